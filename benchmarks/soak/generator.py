"""The load: requests over one raw connection, at a rate, and what became of each.

It knows a few words of the protocol, keeps two bytes for each request ever sent, and connects again by itself. Which
kind the n-th request is, how large, and whether its caller is patient, follows from the seed and the rate alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, cast
from urllib.parse import urlsplit

from benchmarks.load import introduction
from benchmarks.soak.account import LOST, NO_RESPONDERS, Account, Oddity
from benchmarks.soak.functions import KINDS, LONGEST, NUMBER, PATIENCE, Kind

__all__ = ["Generator"]

TICK: Final = 0.005
CRLF: Final = b"\r\n"
_WAITING, _DONE, _GIVEN_UP = 0, 1, 2
_CODE: Final = b"Nats-Service-Error-Code: "


class Generator(asyncio.Protocol):
    """Sends while it is `sending`. Its account is complete once `finish` has returned."""

    def __init__(
        self, urls: Sequence[str], seed: int, rate: float, account: Account, *, user: tuple[str, str] = ("", "")
    ) -> None:
        """Nothing is connected yet.

        Args:
            urls: of the servers; which of them it is connected to, chance and their failures decide.
            rate: requests a second.
            user: JWT and seed, where the servers ask who somebody is.
        """
        self._servers = deque(urls)
        self._user = user
        self._choices = random.Random(f"load {seed}")
        self._rate = rate
        self._account = account
        fixed = sum(kind.rate for kind in KINDS)
        rest = max(rate - fixed, 0.0) / max(rate, 1.0)
        self._weights = list(accumulate(kind.rate / rate if kind.rate else kind.share * rest for kind in KINDS))
        self._filler = b"x" * max(kind.sizes[1] for kind in KINDS)
        self._inbox = f"_INBOX.soak{seed}"
        self._buffer = b""
        self._connected: asyncio.Transport
        self._transport: asyncio.Transport | None = None  # once it may be written to
        self._status = bytearray()
        self._kinds = bytearray()
        self._sent_at: dict[int, float] = {}
        self._overdue: deque[tuple[float, int]] = deque()
        self._impatient: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = asyncio.Event()
        self._ending = False
        self.sending = False
        self.held_back = 0

    @property
    def now(self) -> float:
        """Seconds on the soak's clock."""
        return time.monotonic() - self._began

    async def start(self) -> None:
        """Connect, and from now on send whenever `sending` says so."""
        await self._connect()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._stay_connected())]

    async def finish(self) -> None:
        """Send no more, wait until every request has ended, and disconnect."""
        self.sending = False
        while self._sent_at:  # noqa: ASYNC110  # what is overdue is found by the same clock
            await asyncio.sleep(TICK)
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()

    def burst(self, count: int, kind: Kind) -> None:
        """So many requests of one kind at once."""
        self._write([self._request(KINDS.index(kind)) for _ in range(count)])

    # The connection.

    async def _connect(self) -> None:
        while True:
            self._servers.rotate(-1)
            parts = urlsplit(self._servers[0])
            host, port = parts.hostname or "127.0.0.1", parts.port or 4222
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, host, port)
                return
            except OSError:
                await asyncio.sleep(0.02)

    async def _stay_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            await self._connect()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of `asyncio.Protocol`."""
        self._connected = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        self._buffer = b""

    def _introduce(self, info: bytes) -> None:
        """Say who we are, once the server has said what it wants to know; only then may anything be sent."""
        said = introduction(info, self._user)
        self._connected.write(b"CONNECT %b\r\nSUB %b.* 1\r\n" % (said, self._inbox.encode()))
        self._transport = self._connected

    def connection_lost(self, exc: Exception | None) -> None:
        """Of `asyncio.Protocol`."""
        self._transport = None
        if not self._ending:
            self._lost.set()

    # Out.

    async def _send(self) -> None:
        due = 0.0
        then = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            # A machine that had no time for us for a while is not made to pay for it with a burst.
            due += min(now - then, 4 * TICK) * self._rate if self.sending else 0.0
            then = now
            self._look_at_the_clock()
            count, due = int(due), due % 1.0
            if count and (self._transport is None or self._transport.get_write_buffer_size() > 4 << 20):
                self.held_back += count
            elif count:
                indices = self._choices.choices(range(len(KINDS)), cum_weights=self._weights, k=count)
                self._write([self._request(index) for index in indices])

    def _request(self, index: int) -> bytes:
        kind = KINDS[index]
        number = len(self._status)
        self._status.append(_WAITING)
        self._kinds.append(index)
        now = self.now
        self._sent_at[number] = now
        self._overdue.append((now + LONGEST, number))
        self._account.sent += 1
        if kind.impatient and self._choices.random() < kind.impatient:
            self._impatient.append((now + PATIENCE, number))
        size = self._choices.randint(*kind.sizes)
        body = b"%016x%b" % (number, self._filler[: size - NUMBER])
        return b"PUB %b %b.%d %d\r\n%b\r\n" % (kind.asked_on.encode(), self._inbox.encode(), number, size, body)

    def _write(self, messages: list[bytes]) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(messages))

    def _look_at_the_clock(self) -> None:
        now = self.now
        while self._impatient and self._impatient[0][0] <= now:
            number = self._impatient.popleft()[1]
            if self._status[number] == _WAITING:
                self._end(number, "gave up", status=_GIVEN_UP)
        while self._overdue and self._overdue[0][0] <= now:
            number = self._overdue.popleft()[1]
            if self._status[number] == _WAITING:
                self._end(number, LOST, odd=True, status=_GIVEN_UP)

    # In.

    def data_received(self, data: bytes) -> None:
        """Of `asyncio.Protocol`."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while (end := buffer.find(CRLF, at)) >= 0:
            words = buffer[at:end].split(b" ")
            verb = words[0]
            if verb not in (b"MSG", b"HMSG"):
                if verb == b"INFO" and self._transport is None:
                    self._introduce(buffer[at:end])
                elif verb == b"PING" and self._transport is not None:
                    self._transport.write(b"PONG\r\n")
                at = end + 2
                continue
            start, size = end + 2, int(words[-1])
            if len(buffer) < start + size + 2:
                break
            head = int(words[-2]) if verb == b"HMSG" else 0
            self._answer(
                int(words[1].rsplit(b".", 1)[1]), buffer[start : start + head], buffer[start + head : start + size]
            )
            at = start + size + 2
        self._buffer = buffer[at:]

    def _answer(self, number: int, head: bytes, body: bytes) -> None:
        kind = KINDS[self._kinds[number]]
        if self._status[number] != _WAITING:
            if self._status[number] == _GIVEN_UP:
                self._account.late += 1
            elif kind.answers == 1:
                self._account.wrong.append(f"request {number:x} to {kind.name!r} was answered twice")
            return
        if head.startswith(b"NATS/1.0 503"):
            self._end(number, NO_RESPONDERS, odd=True)
            return
        at = head.find(_CODE)
        code = int(head[at + len(_CODE) : head.index(CRLF, at)]) if at >= 0 else 200
        if body == b"AGAIN":
            self._account.wrong.append(f"request {number:x} to {kind.name!r} was run twice by one worker")
        elif code == 200 and kind.echoes and body[:NUMBER] != b"%016x" % number:
            self._account.wrong.append(f"request {number:x} to {kind.name!r} has another one's answer: {body[:40]!r}")
        self._end(number, str(code), odd=code not in (kind.code, 429, 503))

    def _end(self, number: int, result: str, *, odd: bool = False, status: int = _DONE) -> None:
        self._status[number] = status
        kind = KINDS[self._kinds[number]].name
        sent = self._sent_at.pop(number)
        self._account.ended(kind, result)
        if odd:
            self._account.odd.append(Oddity(result, kind, sent, self.now))
