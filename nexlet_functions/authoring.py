"""What a function may import of this package: the types of its two arguments, of its answers, and of what it calls.

    from nexlet_functions.authoring import Context, Event, NotFound, Reject, Reply

Inside a worker the import costs nothing. What a function raises, returns or catches (`Reply`, `Reject`, `CallFailed`,
`NotFound`, `Conflict`, `Denied`, `TimedOut`, `TooLarge`, `Unavailable`) is there without it as well. Outside, an editor
and a type checker find them here.
"""

from __future__ import annotations

from nexlet_sandboxes.worker.contract import (
    CallFailed,
    Conflict,
    Context,
    Denied,
    Entry,
    Event,
    Http,
    HttpResponse,
    KeyValue,
    Message,
    NotFound,
    ObjectInfo,
    Objects,
    PubAck,
    Reject,
    Reply,
    StoredObject,
    TimedOut,
    TooLarge,
    Unavailable,
)

__all__ = [
    "CallFailed",
    "Conflict",
    "Context",
    "Denied",
    "Entry",
    "Event",
    "Http",
    "HttpResponse",
    "KeyValue",
    "Message",
    "NotFound",
    "ObjectInfo",
    "Objects",
    "PubAck",
    "Reject",
    "Reply",
    "StoredObject",
    "TimedOut",
    "TooLarge",
    "Unavailable",
]
