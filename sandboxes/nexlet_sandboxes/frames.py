"""The binary frames between the nexlet and a worker, the same module on both sides.

A frame is a fixed header and a body. The header says how long the body is, what kind of frame it is, and which
invocation it belongs to. Payloads travel as they came; nothing in a frame is ever unpickled or evaluated, and the two
JSON bodies there are (what to load, and why a load was refused) are parsed as data, under a size limit. A program's
compiled form goes from the worker that made it to others of the same function, and is bytes to the nexlet.

    0        4     5     6      8                16
    +--------+-----+-----+------+----------------+----------
    | length | kind| flag| aux  | invocation id  | body ...
    +--------+-----+-----+------+----------------+----------

The nexlet trusts nothing that comes out of a worker: `Splitter` bounds the length before a byte of the body is kept.
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections.abc import Iterator
from typing import Final

__all__ = [
    "HEADER",
    "INVOKE",
    "INVOKE_FIGURES",
    "MARKER_SIZE",
    "MAX_BODY",
    "MAX_COMPILED",
    "RESULT",
    "RESULT_FIGURES",
    "Ending",
    "Frame",
    "FrameError",
    "Kind",
    "Splitter",
    "Stream",
    "frame",
]

HEADER: Final = struct.Struct("<IBBHQ")
"""length of the body, kind, flag, aux, invocation id."""

INVOKE: Final = struct.Struct("<IBBHQHHIIIQQ")
"""A whole INVOKE header: HEADER (aux = index of the trigger pattern), then the lengths of subject, reply subject and
header block, the attempt (1 = first), the time allowed in microseconds, and two times (CLOCK_MONOTONIC, nanoseconds):
when it has waited too long to be run, and when its caller gives up. Subject, reply, header block and payload follow."""

RESULT: Final = struct.Struct("<IBBHQIIII")
"""A whole RESULT header: HEADER (flag = an `Ending`, aux = the code a `Reject` chose), then microseconds it ran,
microseconds of CPU, the worker's peak memory in KiB, and the length of the first of two sections. The sections are
header lines and body of a reply, or a one-line error and its traceback."""

RESULT_FIGURES: Final = struct.Struct("<IIII")
"""What a RESULT has behind its HEADER."""

INVOKE_FIGURES: Final = struct.Struct("<HHIIIQQ")
"""What an INVOKE has behind its HEADER. (The layout of both has no gaps: `<` aligns nothing.)"""

INVOKE_EXTRA: Final = INVOKE.size - HEADER.size
RESULT_EXTRA: Final = RESULT.size - HEADER.size

MAX_BODY: Final = 72 * 1024 * 1024
"""Bytes of a body at most: nats-server's largest `max_payload` is 64 MiB, and headers come on top."""


MAX_COMPILED: Final = 4 * 1024 * 1024
"""Bytes of a program's compiled form that are kept for its workers: four times what a source may be by default. Of a
larger one nothing is kept, and each worker compiles the sources itself."""

MARKER_SIZE: Final = mmap.PAGESIZE
"""Bytes of the marker: a page of memory into which a worker writes what it is at, in words of eight bytes."""


class Kind(enum.IntEnum):
    """What a frame is. Below 16: to the worker; from 16: from the worker.

    REHEARSE, which has nothing, may come before LOAD: a worker that waits for its program uses the time (`rehearsal`).
    LOAD has, in the place of the id, the length of its JSON; the program's compiled form follows, if there is one.
    READY has that form as its body, where it was asked for. FAILED says why a worker could not be locked; DROPPED has,
    in the place of the id, how many lines of output the worker itself kept back. ASK is a call of the running function
    (flag = a `Verb`), ANSWER what it came to (flag = a `Status`, the number of the call in the place of the id): see
    `asking`.
    """

    LOAD = 1
    INVOKE = 2
    ANSWER = 3
    REHEARSE = 4
    READY = 16
    REFUSED = 17
    RESULT = 18
    LOG = 19
    METRIC = 20
    FAILED = 21
    DROPPED = 22
    ASK = 23


class Ending(enum.IntEnum):
    """How the worker says an invocation ended (the flag of a RESULT)."""

    OK = 0
    ERROR = 1
    REJECT = 2
    MEMORY = 3
    EXPIRED = 4
    RETURNED = 5
    """Not an ending: it was not begun, because the call before it was slow; another worker may be free by now."""
    LATE = 6
    """It ended by itself, after its time was over and before it was ended from outside."""


class Stream(enum.IntEnum):
    """Where a line of output goes (the flag of a LOG; its aux is the level, 0 for what was printed)."""

    STDOUT = 0
    STDERR = 1


Frame = tuple[int, int, int, int, bytes, int, int]
"""Kind, flag, aux, id, buffer, start and end. The body is `buffer[start:end]`, not copied out: most readers want only a
part of it."""


class FrameError(Exception):
    """Bytes that are no frames of this protocol. Whoever sent them is not to be listened to again."""


def frame(kind: Kind, body: bytes = b"", *, flag: int = 0, aux: int = 0, call: int = 0) -> bytes:
    """One frame as bytes."""
    return HEADER.pack(len(body), kind, flag, aux, call) + body


class Splitter:
    """Cuts a stream of bytes into frames; keeps what is incomplete, and no more than one frame of it.

    A body arrives in pieces when it is large: pieces are kept in a list and joined once, so that a large body costs
    what it weighs and not its square.

    Attributes:
        cutting: whether there are frames to be taken yet of what was fed.
    """

    __slots__ = ("_have", "_max_body", "_parts", "_want", "cutting")

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self.cutting = False
        self._parts: list[bytes] = []
        self._have = 0
        self._want = HEADER.size

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not whole yet."""
        return self._have

    @property
    def unfinished(self) -> int:
        """The invocation id of the frame that is not whole yet; 0 where not even its header is."""
        head = b"".join(part[: HEADER.size] for part in self._parts[: HEADER.size])[: HEADER.size]
        return int(HEADER.unpack(head)[4]) if len(head) == HEADER.size else 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The whole frames in `data` and what was kept. All of them are to be taken before more is fed.

        Raises:
            FrameError: a frame claims a longer body than is allowed.
        """
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._want:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        self._have = 0
        self.cutting = True
        at, size = 0, len(data)
        unpack, header = HEADER.unpack_from, HEADER.size
        while size - at >= header:
            length, kind, flag, aux, call = unpack(data, at)
            if length > self._max_body:
                raise FrameError(f"a frame of {length} bytes, more than the {self._max_body} that are allowed")
            start = at + header
            end = start + length
            if end > size:
                self._want = end - at
                break
            yield kind, flag, aux, call, data, start, end
            at = end
        else:
            self._want = header
        if at < size:
            self._parts.append(data[at:] if at else data)
            self._have = size - at
        self.cutting = False
