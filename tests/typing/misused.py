"""What an author's type checker finds: each `ignore` here is an error that it has to find, or it is an error itself."""

from __future__ import annotations

from typing import Any, assert_type

from nexlet_functions.authoring import Context, Entry, Event, Message, Reject, Reply

__all__ = ["handler"]


def handler(event: Event, context: Context) -> Reply:
    """Never run."""
    assert_type(event.subject, str)
    assert_type(event.data, bytes)
    assert_type(event.json(), Any)
    assert_type(event.headers, dict[str, str])
    assert_type(context.remaining_ms(), int)
    assert_type(context.kv("a").get("b"), Entry)
    assert_type(context.request("a"), Message)
    event.jsn()  # type: ignore[attr-defined]
    event.data.encode()  # type: ignore[attr-defined]
    context.env["A"] = "b"  # type: ignore[index]
    context.log.info(name="no message")  # type: ignore[call-arg]
    context.metrics.count("asked", "1")  # type: ignore[arg-type]
    context.kv("a").get(1)  # type: ignore[arg-type]
    if not event.data:
        raise Reject("422")  # type: ignore[arg-type]
    return {"not": "a reply"}  # type: ignore[return-value]
