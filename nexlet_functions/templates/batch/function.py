"""Works through a batch: a record that is wrong does not stop the others, and what is not done in time is said."""

from nexlet_functions.authoring import Context, Event, Reject

SPARE_MS = 200  # enough to answer with what was done


def process(record):
    return record["qty"] * record["price"]


def handler(event: Event, context: Context):
    records = event.json()
    if not isinstance(records, list):
        raise Reject(422, "a list of records is expected")
    total, failed = 0, []
    for index, record in enumerate(records):
        if context.remaining_ms() < SPARE_MS:
            context.log.warning("out of time", done=index, left=len(records) - index)
            return {"done": index, "left": len(records) - index, "total": total, "failed": failed}
        try:
            total += process(record)
        except (KeyError, TypeError) as error:
            failed.append({"index": index, "error": f"{type(error).__name__}: {error}"})
    context.metrics.count("records", len(records))
    return {"done": len(records), "left": 0, "total": total, "failed": failed}
