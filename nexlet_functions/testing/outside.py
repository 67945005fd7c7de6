"""HTTP of a function under test, as a double: held to its grant as the nexlet does it, answered by what a test says.

Nothing goes out. Redirects are answers like any other, and addresses are nobody's: both are the nexlet's to look at.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nexlet_functions.grants.failures import CallFailed as NexletFailed
from nexlet_functions.grants.http_requests import Reach, answer_parts, request_of
from nexlet_functions.testing.readable import Readable
from nexlet_models.start_request import HttpGrant
from nexlet_sandboxes.asking import Ask, Status
from nexlet_sandboxes.worker.grants import FAILURES, CallFailed

__all__ = ["HttpDouble", "HttpReply", "HttpResponder", "HttpSent", "data_of"]

_MAX_REQUEST: Final = 1024 * 1024
"""Bytes of a request's body, as an operator's `http.max_request` has them where nothing is said."""


@dataclass(frozen=True, slots=True)
class HttpSent(Readable):
    """A call that the function made.

    Attributes:
        method: in capitals.
        url: with its query.
        headers: those that the function gave, or that follow from its data; names in lower case.
        data: the body.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer with more than a body."""

    status: int = 200
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


HttpAnswer = Any
"""Bytes, text or what JSON can say, with status 200; an `HttpReply`; an exception, such as `Unavailable("no net")`."""

HttpResponder = HttpAnswer | Callable[[HttpSent], HttpAnswer]
"""What answers a call: always the same, or made of the call; a callable may raise what the function is to catch."""


class HttpDouble:
    """Answers the HTTP of one function's workers.

    Attributes:
        called: what an invocation asked for, by its number.
    """

    def __init__(self, grant: HttpGrant | None, answers: Mapping[str, HttpResponder]) -> None:
        """Answers by url without its query; `*` in it stands for anything."""
        self._reach = Reach(grant or HttpGrant(hosts=()))
        self._answers = answers
        self.called: dict[int, list[HttpSent]] = {}

    def answer(self, ask: Ask) -> tuple[Status, tuple[bytes, ...]]:
        """What a call comes to."""
        try:
            request = request_of(ask.parts)
            method, url, headers = self._reach.begin(request, _MAX_REQUEST)
        except NexletFailed as failed:
            return Status[failed.failure.name], (failed.text.encode(),)
        sent = HttpSent(method, str(url), {name.lower(): value for name, value in headers}, request.body)
        self.called.setdefault(ask.call.id, []).append(sent)
        try:
            reply = self._reply(sent)
        except CallFailed as failed:
            status = next(status for status, kind in FAILURES.items() if isinstance(failed, kind))
            return Status(status), (str(failed).encode(),)
        told = [(name.lower(), value) for name, value in reply.headers.items()]
        return Status.OK, tuple(answer_parts(reply.status, sent.url, told, data_of(reply.data)))

    def _reply(self, sent: HttpSent) -> HttpReply:
        place = sent.url.partition("?")[0]
        for pattern, responder in self._answers.items():
            if fnmatch.fnmatchcase(place, pattern):
                value = responder(sent) if callable(responder) else responder
                if isinstance(value, CallFailed):
                    raise value
                return value if isinstance(value, HttpReply) else HttpReply(data=value)
        raise FAILURES[Status.UNAVAILABLE](f"nobody answers at {place}: say who does with http=")


def data_of(value: Any) -> bytes:
    """A payload of what a test wrote: bytes, text, None, or what JSON can say."""
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, (bytes, bytearray)) else orjson.dumps(value)
