"""Converts euros at the rate of the day, as somebody has it who knows. Where nobody can say, at one that was
written down, and says so: an answer that is a little old is worth more to its caller than none."""

from decimal import ROUND_HALF_UP, Decimal

from nexlet_functions.authoring import Reject, TimedOut, Unavailable

RATES = "https://rates.example.com/latest"

rates_of_the_day = {}  # currency: (rate, day); as long as this worker lives


def todays_rate(currency, context):
    """Rate and day, or None where they cannot be had now."""
    if currency in rates_of_the_day:
        return rates_of_the_day[currency]
    try:
        answer = context.http.get(RATES, params={"base": "EUR", "symbols": currency}, timeout=2)
    except (TimedOut, Unavailable) as reason:
        context.log.warning("no rates to be had", reason=str(reason))
        return None
    if answer.status == 404:
        raise Reject(422, f"to: nobody knows a currency {currency}")
    if not answer.ok:
        context.log.warning("no rates to be had", status=answer.status)
        return None
    said = answer.json()
    rate = rates_of_the_day[currency] = (Decimal(str(said["rates"][currency])), said["date"])
    return rate


def handler(event, context):
    order = event.json()
    amount, currency = Decimal(str(order["euros"])), order["to"]
    spare = dict(entry.split("=") for entry in context.env["SPARE_RATES"].split())
    rate, day = todays_rate(currency, context) or (Decimal(spare.get(currency, 0)), "")
    if not rate:
        raise Reject(503, f"to: the rate of {currency} cannot be had now, try again later")
    converted = (amount * rate).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
    return {"amount": str(converted), "currency": currency, "rate_of": day or "an older day"}
