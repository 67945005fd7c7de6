"""Converts between units. What it knows of units is in a helper module beside it."""

from nexlet_functions.authoring import Reject
from quantities import QUANTITIES, convert


def handler(event, context):
    wanted = event.json()
    try:
        value, source, target = wanted["value"], str(wanted["from"]), str(wanted["to"])
    except (KeyError, TypeError):
        raise Reject(400, 'expected is {"value": 5, "from": "km", "to": "mi"}')
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Reject(422, "value: a number is expected")
    try:
        result = convert(value, source, target)
    except LookupError as error:
        raise Reject(422, f"{error.args[0]}; known are {', '.join(QUANTITIES)}")
    return {"value": round(result, 6), "unit": target}
