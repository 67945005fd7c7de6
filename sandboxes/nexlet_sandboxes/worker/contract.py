"""The names of an author's contract: what a function may import from `nexlet_functions.authoring`.

`BUILTINS` are those of them that are there without an import: what one raises, returns or catches. The others are types
to annotate with.
"""

from __future__ import annotations

from typing import Final

from nexlet_sandboxes.worker.context import Context
from nexlet_sandboxes.worker.event import Event, Reject, Reply
from nexlet_sandboxes.worker.grants import (
    CallFailed,
    Conflict,
    Denied,
    Entry,
    KeyValue,
    Message,
    NotFound,
    ObjectInfo,
    Objects,
    PubAck,
    StoredObject,
    TimedOut,
    TooLarge,
    Unavailable,
)
from nexlet_sandboxes.worker.http import Http, HttpResponse

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

BUILTINS: Final = (
    *("Reply", "Reject"),
    *("CallFailed", "NotFound", "Conflict", "Denied", "TimedOut", "TooLarge", "Unavailable"),
)
