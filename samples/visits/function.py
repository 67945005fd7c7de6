"""Counts visits by page, in a bucket of keys and values.

Several workers and clones count at the same time. None of their visits is lost: whoever finds that the count has
changed since it was read reads it again.
"""

from nexlet_functions.authoring import Conflict, Context, Event, KeyValue, NotFound


def handler(event: Event, context: Context):
    (page,) = event.tokens
    counts = context.kv("visits")
    while context.remaining_ms() > 100:
        try:
            return {"page": page, "visits": count(counts, page)}
        except Conflict:
            pass  # somebody else was here at the same time
    raise TimeoutError("too many count at the same time")


def count(counts: KeyValue, page: str):
    try:
        entry = counts.get(page)
    except NotFound:
        counts.create(page, 1)
        return 1
    visits = entry.json() + 1
    counts.update(page, visits, entry.revision)
    return visits
