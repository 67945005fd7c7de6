"""Keeps the last reading of each meter in a bucket, all meters of a site under one key.

A call is given up to 64 readings. What they have in common is done once: a site is read and written once for all of
its readings, and whoever sent one that makes no sense is told so, while those beside it are kept.
"""

from nexlet_functions.authoring import CallFailed, Conflict, Context, Event, KeyValue, NotFound, Reject


def handler(events: list[Event], context: Context):
    outcomes = [None] * len(events)
    sites = {}
    for number, event in enumerate(events):
        try:
            site, meter = event.tokens
            sites.setdefault(site, []).append((number, meter, reading(event)))
        except Reject as refused:
            outcomes[number] = refused
    for site, readings in sites.items():
        try:
            stored = {"revision": store(context.kv("meters"), site, readings)}
        except (CallFailed, ValueError) as error:  # ValueError: a site that cannot be a key
            stored = error
        for number, _, _ in readings:
            outcomes[number] = stored
    return outcomes


def reading(event: Event):
    said = event.json()
    kwh = said.get("kwh") if isinstance(said, dict) else None
    if not isinstance(kwh, int | float) or kwh < 0:
        raise Reject(422, "kwh: a number, 0 or more, is expected")
    return kwh


def store(bucket: KeyValue, site: str, readings: list):
    for _ in range(5):
        try:
            entry = bucket.get(site)
            meters, revision = entry.json(), entry.revision
        except NotFound:
            meters, revision = {}, 0
        for _, meter, kwh in readings:
            meters[meter] = kwh
        try:
            return bucket.update(site, meters, revision) if revision else bucket.create(site, meters)
        except Conflict:
            pass  # another worker has written this site meanwhile
    raise Conflict(f"too many write {site} at the same time")
