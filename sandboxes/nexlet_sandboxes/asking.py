"""What a running function asks of the nexlet: calls to what it was granted, as they go over a worker's frames.

A function does nothing outside its process by itself. It asks: an ASK frame names one of a small fixed set of calls
(`Verb`), with its arguments as parts of bytes, and the worker waits for the ANSWER. To this package a call is a number
and bytes: who answers (`Answerer`) checks the grant, and what is in the parts is between that and
`worker.grants`. Nothing in them is ever unpickled or evaluated.

- `pack` and `unpack`: the parts, on both sides.
- `Ask`: one call under way, as the nexlet sees it. A worker has one at a time: there are no more than workers.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from nexlet_sandboxes.frames import FrameError

if TYPE_CHECKING:
    from nexlet_sandboxes.calls import Call

__all__ = [
    "ASK",
    "MAX_PARTS",
    "Answerer",
    "Ask",
    "Asks",
    "Status",
    "Verb",
    "not_granted",
    "pack",
    "store_denied",
    "unpack",
]

ASK: Final = struct.Struct("<II")
"""What the body of an ASK begins with: the number of the call, counted by the worker from 1, and how many milliseconds
the function will wait for it at most (0: as long as its invocation has). The parts follow."""

MAX_PARTS: Final = 8
_LENGTH: Final = struct.Struct("<I")


class Verb(enum.IntEnum):
    """What can be asked for (the flag of an ASK)."""

    PUBLISH = 1
    REQUEST = 2
    KV_GET = 16
    KV_PUT = 17
    KV_CREATE = 18
    KV_UPDATE = 19
    KV_DELETE = 20
    KV_KEYS = 21
    OBJECT_GET = 32
    OBJECT_PUT = 33
    OBJECT_INFO = 34
    OBJECT_LIST = 35
    OBJECT_DELETE = 36
    HTTP = 48


class Status(enum.IntEnum):
    """How it ended (the flag of an ANSWER). What is not OK has one part, a text for the author."""

    OK = 0
    NOT_FOUND = 1
    CONFLICT = 2
    DENIED = 3
    TIMED_OUT = 4
    TOO_LARGE = 5
    UNAVAILABLE = 6


def pack(*parts: bytes) -> bytes:
    """Parts as one body: how many, how long each is, and then all of them."""
    return b"".join((bytes((len(parts),)), *(_LENGTH.pack(len(part)) for part in parts), *parts))


def unpack(body: bytes, at: int = 0) -> list[bytes]:
    """The parts of a body that `pack` made, from `at` on.

    Raises:
        FrameError: it is no such body, to the last byte.
    """
    if at >= len(body):
        raise FrameError("a call without its parts")
    count = body[at]
    start = at + 1 + count * _LENGTH.size
    if count > MAX_PARTS or start > len(body):
        raise FrameError("a call with more parts than there are")
    parts = []
    for number in range(count):
        (length,) = _LENGTH.unpack_from(body, at + 1 + number * _LENGTH.size)
        end = start + length
        if end > len(body):
            raise FrameError("a part of a call that is shorter than it says")
        parts.append(body[start:end])
        start = end
    if start != len(body):
        raise FrameError("a call with more behind its parts")
    return parts


class Asks:
    """What one invocation has asked for so far.

    Attributes:
        count: calls, the one under way included; of the first of a batch, with those made for all of it.
        published: messages it has published, for whoever gives each of them an identity.
        together: likewise those of the first of a batch that were published for all of it.
    """

    __slots__ = ("count", "published", "together")

    def __init__(self) -> None:
        self.count = 0
        self.published = 0
        self.together = 0


class Ask:
    """One call under way.

    Attributes:
        call: the invocation that asks; where a batch does, the first of it.
        calls: all that ask: that one alone, or the whole batch.
        asks: what `call` has asked for, this one included.
        verb: as the worker says; perhaps none of `Verb`.
        number: the worker's.
        parts: its arguments.
        deadline_ns: CLOCK_MONOTONIC until which an answer is of use to the function.
        on_drop: called when nobody waits any more: the invocation has ended, or its worker. Not after `answer`.
    """

    __slots__ = ("_answer", "asks", "call", "calls", "deadline_ns", "number", "on_drop", "parts", "verb")

    def __init__(
        self,
        answer: Callable[[Ask, int, bytes], None],
        calls: Sequence[Call],
        asks: Asks,
        verb: int,
        number: int,
        parts: Sequence[bytes],
        deadline_ns: int,
    ) -> None:
        self._answer = answer
        self.call = calls[0]
        self.calls = calls
        self.asks = asks
        self.verb = verb
        self.number = number
        self.parts = parts
        self.deadline_ns = deadline_ns
        self.on_drop: Callable[[], object] | None = None

    def answer(self, status: Status, *parts: bytes) -> None:
        """Send the answer. Where nobody waits for it any more it is dropped."""
        self.on_drop = None
        self._answer(self, status, pack(*parts))


class Answerer(Protocol):
    """Answers the calls of one function's workers. Called from the event loop."""

    @property
    def max_size(self) -> int:
        """Bytes of a call's parts together. A worker says that more is too large; one that sends more is ended."""
        ...

    def asked(self, ask: Ask) -> None:
        """A call came in; `ask.answer` is called for it, now or later. Must not block.

        Raises:
            FrameError: no worker of ours asks so; it is ended.
        """
        ...


def not_granted(what: str, line: str) -> str:
    """What the author reads of a call that was not granted.

    Args:
        what: the call, such as `publishing on 'orders.created'`.
        line: what grants it, such as `publish: [orders.created]`.
    """
    return f"{what} was not granted; add to start_request in the Nexfile: grants: {{{line}}}"


def store_denied(kind: str, bucket: str, access: str) -> tuple[str, str]:
    """The two arguments of `not_granted` for a bucket.

    Args:
        kind: "kv" or "objects".
        access: "read" or "write".
    """
    what = "bucket" if kind == "kv" else "object store"
    return f"{'reading' if access == 'read' else 'writing'} the {what} {bucket!r}", f"{kind}: {{{bucket}: {access}}}"


MAX_NAME: Final = 512
"""Bytes of the name of a key or an object: it goes into a subject, and a server takes those up to some 4,000 bytes."""

_KEY: Final = re.compile(r"[-/_=a-zA-Z0-9]+(?:\.[-/_=a-zA-Z0-9]+)*", re.ASCII)


def key_problem(key: str) -> str | None:
    """None if `key` is one, else why not. The form is that of NATS clients (nats-architecture-and-design, ADR-8)."""
    if len(key) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if not _KEY.fullmatch(key):
        return "is not of letters, digits and - / _ = with single dots between them"
    return None
