"""Routes by subject: one trigger with wildcards, one small function for each action."""

from nexlet_functions.authoring import Context, Event, Reject


def upper(event, path):
    return {"path": path, "text": event.text.upper()}


def count(event, path):
    return {"path": path, "words": len(event.text.split())}


ROUTES = {"upper": upper, "count": count}


def handler(event: Event, context: Context):
    action, path = event.tokens
    route = ROUTES.get(action)
    if route is None:
        raise Reject(404, f"no action '{action}': there are {', '.join(sorted(ROUTES))}")
    return route(event, path)
