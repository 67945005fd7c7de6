"""Books the parcels that depots scan. The stream keeps each scan until it was booked; what can never be is set aside.

A scan that makes no sense is refused with `Reject`: it is not tried again, and goes to the dead letters at once. A
depot that is closed for the moment is a fault: the same scan comes again after a pause, three times in all.
"""

import re

from nexlet_functions.authoring import Reject

NUMBER = re.compile("[A-Z]{2}[0-9]{6}")
CLOSED = frozenset({"north"})


def handler(event, context):
    depot = event.tokens[0]
    scan = event.json()
    number = scan.get("parcel") if isinstance(scan, dict) else None
    if not isinstance(number, str) or not NUMBER.fullmatch(number):
        raise Reject(422, "parcel: two letters and six digits are expected, such as AB123456")
    if depot in CLOSED:
        raise RuntimeError(f"the depot {depot} is closed, attempt {event.attempt}")
    # Stream and number name this scan whenever it comes: what is booked under them twice is booked once.
    context.log.info("booked", parcel=number, depot=depot, booking=f"{event.stream}-{event.sequence}")
    context.metrics.count("parcels_booked", depot=depot)
