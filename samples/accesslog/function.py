"""Turns the access log of a web server into figures and warnings: nobody waits for an answer, so these are its work.

What goes to `context.metrics` is on the namespace's metrics feed, what goes to `context.log` on its log feed, with the
id of the invocation in each line.
"""

from nexlet_functions.authoring import Reject

WANTED = {"method": str, "path": str, "status": int, "ms": (int, float), "bytes": int}


def handler(event, context):
    entry = event.json()
    if not isinstance(entry, dict):
        raise Reject(422, f"an entry is an object with {', '.join(WANTED)}")
    wrong = [name for name, kind in WANTED.items() if not isinstance(entry.get(name), kind)]
    if wrong:
        raise Reject(422, f"an entry has {', '.join(WANTED)}; missing or of another kind: {', '.join(wrong)}")

    site = event.tokens[0]
    kind = f"{entry['status'] // 100}xx"
    context.metrics.count("requests", site=site, status=kind)
    context.metrics.count("bytes_sent", entry["bytes"], site=site)
    context.metrics.observe("request_ms", entry["ms"], site=site)

    said = {"site": site, "path": entry["path"], "status": entry["status"], "ms": entry["ms"]}
    if entry["status"] >= 500:
        context.log.error("request failed", **said)
    elif entry["ms"] > float(context.env["SLOW_MS"]):
        context.log.warning("request was slow", **said)
    else:
        context.log.debug("request", **said)
