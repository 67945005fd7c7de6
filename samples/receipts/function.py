"""Publishes a receipt for each order that was paid.

What it may publish on stands in its Nexfile, and nothing else is open to it. Where a stream keeps the receipts, a
message that comes twice leads to one receipt: the nexlet gives each the identity of its invocation.
"""

from decimal import Decimal

from nexlet_functions.authoring import Context, Event, Reject


def handler(event: Event, context: Context):
    order = event.json()
    if not order.get("id"):
        raise Reject(422, "id: an order has one")
    total = sum((Decimal(line["price"]) * line["qty"] for line in order["lines"]), Decimal(0))
    receipt = {"order": order["id"], "total": str(total)}
    kept = context.publish("receipts.issued", receipt, headers={"Content-Type": "application/json"})
    if kept is not None and kept.duplicate:
        context.log.info("the receipt was issued before", order=order["id"])
    return receipt
