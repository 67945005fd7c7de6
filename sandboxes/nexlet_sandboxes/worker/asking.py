"""The worker's end of a call to what was granted: send the question, then read until its answer is there.

The function waits for it, and so does the loop above it. What comes meanwhile on the same socket are invocations that
were sent ahead: their bytes are kept, whole or not, and given to the loop as if they had only just come. To find the
answer among them one has to know where a frame begins, also where the loop has read half of one: `Asker` keeps what the
loop has read since a frame last began at the beginning of a read, and looks through it when it has to, so that
invocations that ask for nothing cost nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from nexlet_sandboxes.asking import ASK, pack, unpack
from nexlet_sandboxes.frames import HEADER, Kind, Splitter, frame

__all__ = ["Asker", "Sieve"]

RECEIVE: Final = 256 * 1024
_MAX_U32: Final = 0xFFFFFFFF


class Sieve:
    """Follows a stream of frames, takes one kind out of it, and leaves the other bytes in their order.

    Attributes:
        rest: bytes that were put through and are not of the kind.
    """

    __slots__ = ("_body", "_call", "_flag", "_head", "_kept", "_missing", "_wanted", "rest")

    def __init__(self) -> None:
        self.rest: list[bytes] = []
        self.restart()

    def restart(self) -> None:
        """The next byte is the first of a frame."""
        self._head = b""  # of a header that is not whole
        self._kept = 0  # how many of its bytes somebody else has already
        self._missing = 0  # bytes to come of the frame at hand
        self._wanted = False  # whether that is one to take out
        self._body: list[bytes] = []
        self._flag = self._call = 0

    def follow(self, data: bytes) -> None:
        """Bytes that somebody else has: nothing is taken out of them."""
        before = len(self.rest)
        self._put(data, taking=False)
        del self.rest[before:]

    def put(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are whole with `data`: flag, number and body of each."""
        return self._put(data, taking=True)

    def _put(self, data: bytes, *, taking: bool) -> list[tuple[int, int, bytes]]:
        found: list[tuple[int, int, bytes]] = []
        at, size = 0, len(data)
        while at < size:
            if self._missing:
                end = min(size, at + self._missing)
                (self._body if self._wanted else self.rest).append(data[at:end])
                self._missing -= end - at
                at = end
            else:
                used = min(HEADER.size - len(self._head), size - at)
                self._head += data[at : at + used]
                at += used
                if not taking:
                    self._kept = len(self._head)
                if len(self._head) < HEADER.size:
                    break
                length, kind, flag, _, call = HEADER.unpack(self._head)
                self._missing, self._wanted = length, taking and kind == Kind.ANSWER and not self._kept
                if self._wanted:
                    self._flag, self._call = flag, call
                elif self._kept < HEADER.size:
                    self.rest.append(self._head[self._kept :])
                self._head, self._kept = b"", 0
            if self._wanted and not self._missing:
                found.append((self._flag, self._call, b"".join(self._body)))
                self._body, self._wanted = [], False
        return found


class Asker:
    """Asks for one function, over its worker's socket.

    Attributes:
        max_size: bytes of a call's parts together.
    """

    def __init__(
        self, sock: socket.socket, splitter: Splitter, send: Callable[[bytes], None], *, max_size: int
    ) -> None:
        """Nothing is asked yet.

        Args:
            splitter: the loop's, which knows whether it has half a frame.
            send: sends a frame at once, behind everything that waits to be sent.
        """
        self._sock = sock
        self._splitter = splitter
        self._send = send
        self.max_size = max_size
        self._number = 0
        self._waits = False
        self._sieve = Sieve()
        self._read: list[bytes] = []

    def receive(self, size: int) -> bytes:
        """The loop's next bytes: what came while it waited for an answer, else what comes now."""
        rest = self._sieve.rest
        if rest:
            held = b"".join(rest)
            rest.clear()
            return held  # the sieve has been through it
        data = self._sock.recv(size)
        if not self._splitter.buffered:
            self._sieve.restart()
            self._read.clear()
        self._read.append(data)
        return data

    def ask(self, invocation: int, verb: int, parts: tuple[bytes, ...], wait_ms: int = 0) -> tuple[int, list[bytes]]:
        """Ask, and wait for the answer: its status and its parts.

        Raises:
            RuntimeError: a call is under way.
        """
        if self._waits:
            raise RuntimeError("a call from within a call")
        self._waits = True
        try:
            for data in self._read:
                self._sieve.follow(data)
            self._read.clear()
            self._number = (self._number + 1) & _MAX_U32
            self._send(frame(Kind.ASK, ASK.pack(self._number, wait_ms) + pack(*parts), flag=verb, call=invocation))
            while True:
                data = self._sock.recv(RECEIVE)
                if not data:
                    os._exit(0)  # the nexlet has let go of this worker: there is nobody to answer to
                for status, number, body in self._sieve.put(data):
                    if number == self._number:
                        return status, unpack(body)
        finally:
            self._waits = False

    def too_large(self, parts: tuple[bytes, ...]) -> bool:
        """Whether these parts are more than one call may carry."""
        return sum(map(len, parts)) > self.max_size
