"""Works through records, many at a call: what they share is done once, and one that is wrong stops no other."""

from nexlet_functions.authoring import Context, Event, Reject


def total(event):
    record = event.json()
    if not isinstance(record, dict) or not {"qty", "price"} <= record.keys():
        raise Reject(422, "qty and price are expected")
    return record["qty"] * record["price"]


def handler(events: list[Event], context: Context):
    outcomes = []
    for event in events:
        try:
            outcomes.append({"total": total(event)})
        except (Reject, TypeError) as error:
            outcomes.append(error)  # this one's outcome; the others have theirs
    context.metrics.count("records", len(events))  # once for all of them, as a write to a bucket would be
    return outcomes
