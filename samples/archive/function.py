"""Keeps documents in an object store, and gives them back.

A message has a largest size; an object has none that would matter here, and what the store tells of it goes with it.
"""

from nexlet_functions.authoring import Context, Event, NotFound, Reject, Reply


def handler(event: Event, context: Context):
    verb = event.subject.split(".")[1]
    name = event.tokens[0]
    store = context.objects("archive")
    if verb == "put":
        info = store.put(name, event.data, description=event.headers.get("Description", ""))
        return {"name": info.name, "size": info.size, "digest": info.digest}
    try:
        found = store.get(name)
    except NotFound:
        raise Reject(404, f"no document '{name}'")
    return Reply(found.data, headers={"Digest": found.info.digest})
