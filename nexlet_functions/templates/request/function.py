"""Answers a request: reads JSON, checks it, returns what becomes the JSON of the answer."""

from nexlet_functions.authoring import Context, Event, Reject


def handler(event: Event, context: Context):
    request = event.json()
    name = request.get("name") if isinstance(request, dict) else None
    if not isinstance(name, str) or not name:
        raise Reject(422, "name: a text is expected")
    context.log.info("greeting", name=name)
    return {"greeting": f"{context.env['GREETING']}, {name}!"}
