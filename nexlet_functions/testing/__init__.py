"""Functions in unit tests, in the same kind of worker that runs them in production.

    from nexlet_functions.testing import load_function

    def test_greets():
        with load_function("samples/greet") as greet:
            assert greet.invoke(json={"name": "Ada"}).json() == {"greeting": "Hello, Ada!"}

No NATS is needed. `async with load_function(...)` is the same for tests that are coroutines. `sample_events` reads a
folder's `events/*.json`, which `nexlet-functions dev` plays as well.
"""

from __future__ import annotations

from nexlet_functions.testing.events import EventRefused, SampleEvent, sample_events
from nexlet_functions.testing.function import AsyncFunction, Function, load_function
from nexlet_functions.testing.granted import Sent
from nexlet_functions.testing.invocation import Invocation, LogLine
from nexlet_functions.testing.outside import HttpReply, HttpSent

__all__ = [
    "AsyncFunction",
    "EventRefused",
    "Function",
    "HttpReply",
    "HttpSent",
    "Invocation",
    "LogLine",
    "SampleEvent",
    "Sent",
    "load_function",
    "sample_events",
]
