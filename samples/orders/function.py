"""Prices an order: checks what came in, adds it up in decimals, and tells the customer what is wrong where it is."""

from decimal import ROUND_HALF_UP, Decimal

from nexlet_functions.authoring import Reject

CENT = Decimal("0.01")


def money(amount):
    return str(amount.quantize(CENT, rounding=ROUND_HALF_UP))


def read_item(number, item):
    """One line of the order as (quantity, price), or a refusal that names the line."""
    if not isinstance(item, dict):
        raise Reject(422, f"items[{number}]: an object is expected")
    qty = item.get("qty")
    if isinstance(qty, bool) or not isinstance(qty, int) or qty < 1:
        raise Reject(422, f"items[{number}].qty: a whole number above 0 is expected")
    # A price comes as text: a JSON number would have lost its cents on the way already.
    price = item.get("price")
    if not isinstance(price, str) or not price.replace(".", "", 1).isdigit():
        raise Reject(422, f"items[{number}].price: a decimal number in quotes is expected, such as \"9.90\"")
    return qty, Decimal(price)


def handler(event, context):
    order = event.json()
    items = order.get("items") if isinstance(order, dict) else None
    if not isinstance(items, list) or not items:
        raise Reject(422, "items: a list with at least one item is expected")

    net = Decimal(0)
    for number, item in enumerate(items):
        qty, price = read_item(number, item)
        net += qty * price

    tax = net * Decimal(context.env["TAX_PERCENT"]) / 100
    context.log.info("priced", items=len(items), net=money(net))
    context.metrics.count("orders_priced")
    return {"items": len(items), "net": money(net), "tax": money(tax), "total": money(net + tax)}
