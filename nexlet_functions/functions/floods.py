"""Which functions are flooded, and so have a connection of their own: looked at a few times a second, by their counts.

One timer for all of them. A connection over which next to nothing comes costs a look at one number, however many
functions share it, and a message costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from nexlet_functions.functions.waiting import Waiting
from nexlet_functions.natsio.connection import Connection

__all__ = ["FLOOD_BYTES", "FLOOD_MESSAGES", "LIGHT", "LOOK", "Floodable", "Floods"]

LOOK: Final = 0.25
"""Seconds between two looks."""

FLOOD_MESSAGES: Final = 4000.0
"""Messages a second from which on a function counts as flooded: it takes some twentieth of a processor, and others wait
behind its messages ..."""

FLOOD_BYTES: Final = 16 * 1024 * 1024
"""... and bytes of answers a second."""

HEAVIER: Final = 0.5
"""It has at least this share of what all others on its connection get together: where many are as busy, none moves."""

CALM: Final = 0.25
"""It is over when less than this share of either comes ..."""

CALM_FOR: Final = 10.0
"""... for so many seconds: what comes in bursts does not go to and fro with each of them."""

LIGHT: Final = 0.1
"""To functions that run for at most this share of the time, those that are flooded give way. To others they do not: who
computes or prints without a pause would always be waiting, and one that is merely busy, at half of what it could
answer, would fall behind beside it (270 ms to an answer, not 25)."""

WORTH_A_LOOK: Final = 50.0
"""Messages a second over a connection from which on its functions are looked at one by one."""

TRY_AGAIN: Final = 30.0
"""Seconds until a connection is asked for again that could not be had, or not be had back when it was lost."""


class Floodable(Protocol):
    """What there is to know of a function; see `apart.Apart`."""

    @property
    def home(self) -> Connection: ...
    @property
    def connection(self) -> Connection | None: ...
    @property
    def movable(self) -> bool: ...
    @property
    def moving(self) -> bool: ...
    @property
    def taken(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def ran_ns(self) -> int: ...
    def sockets(self) -> Iterable[int]: ...
    def go(self, others_wait: Callable[[], bool]) -> None: ...
    def come_back(self) -> None: ...


@dataclass(slots=True)
class _Seen:
    """Of one function: its counts at the last look, since when it is calm, and when it may be tried again.

    `lost` says whether it had lost its own connection then.
    """

    taken: int
    sent_bytes: int
    at: float
    calm_since: float = 0.0
    not_before: float = 0.0
    lost: bool = False
    ran_ns: int = 0
    ran_at: float = 0.0

    def light(self, function: Floodable, now: float) -> bool:
        """Whether it has run so little since this was asked the last time that the flooded are to give way to it."""
        ran, seconds = (function.ran_ns - self.ran_ns) / 1e9, now - self.ran_at
        self.ran_ns, self.ran_at = function.ran_ns, now
        return ran <= LIGHT * seconds

    def flooded(self, function: Floodable, now: float) -> float:
        """How much has come since the last look, as a share of what makes a flood."""
        seconds = max(now - self.at, 1e-3)
        messages, sent = function.taken - self.taken, function.sent_bytes - self.sent_bytes
        self.taken, self.sent_bytes, self.at = function.taken, function.sent_bytes, now
        return max(messages / FLOOD_MESSAGES, sent / FLOOD_BYTES) / seconds


class Floods:
    """Moves functions that are flooded out of the others' way, and back. `run` it."""

    def __init__(self, most: int) -> None:
        """No function is known.

        Args:
            most: so many have a connection of their own at a time.
        """
        self._most = most
        self._homes: dict[Connection, dict[Floodable, _Seen]] = {}
        self._received: dict[Connection, tuple[int, float]] = {}
        self._moved: set[Floodable] = set()  # or on their way
        self._waiting = Waiting()  # those that they give way to

    def join(self, function: Floodable, now: float) -> None:
        """It listens from now on, by the clock of the loop."""
        members = self._homes.setdefault(function.home, {})
        members[function] = _Seen(function.taken, function.sent_bytes, now)
        self._received.setdefault(function.home, (function.home.received, now))

    def leave(self, function: Floodable) -> None:
        """It listens no longer; it counts among those with a connection of their own until it has let go of that.

        Safe to repeat.
        """
        members = self._homes.get(function.home, {})
        members.pop(function, None)
        if not members:
            self._homes.pop(function.home, None)
            self._received.pop(function.home, None)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(LOOK)
                self.look(loop.time())
        finally:
            self._waiting.close()

    def look(self, now: float) -> None:
        """Have those move for which it is time."""
        for function in tuple(self._moved):
            if function.connection is None and not function.moving:
                self._moved.discard(function)
            elif (seen := self._homes.get(function.home, {}).get(function)) is not None:
                self._look_at_moved(function, seen, now)
        for home, members in self._homes.items():
            received, (before, since) = home.received, self._received[home]
            self._received[home] = received, now
            # Fewer than before are those of another client: the connection was lost meanwhile.
            if received - before < WORTH_A_LOOK * (now - since) or len(members) == 1:
                continue  # it keeps nobody waiting
            for function, seen in members.items():
                if function not in self._moved:
                    self._look_at(function, seen, now, received - before)
        self._waiting.watch(self._sockets(now) if self._moved else ())

    def _sockets(self, now: float) -> Iterator[int]:
        """What anybody waits for who is to be given way. A worker or a connection that is new is there a look later."""
        for home, members in self._homes.items():
            all_light = True
            for function, seen in members.items():
                if function in self._moved:
                    continue
                if seen.light(function, now):
                    yield from function.sockets()
                else:
                    all_light = False
            if all_light:
                yield home.socket  # else what comes over it is, for the most part, for those that are not

    def _look_at(self, function: Floodable, seen: _Seen, now: float, received: int) -> None:
        messages = function.taken - seen.taken
        if seen.flooded(function, now) < 1.0 or not function.movable or len(self._moved) >= self._most:
            return
        # Where it was not looked at the last time, its own are of a longer time, and the next look tells.
        # To be moved costs it some of its throughput: not while nobody else gets any, nor where all get as much.
        if messages >= received or messages < (received - messages) * HEAVIER:
            return
        if now < seen.not_before:
            return
        seen.calm_since, seen.not_before, seen.lost = now, now + TRY_AGAIN, False
        self._moved.add(function)
        function.go(self._waiting.some)

    def _look_at_moved(self, function: Floodable, seen: _Seen, now: float) -> None:
        if seen.flooded(function, now) >= CALM:
            seen.calm_since = now
        if function.moving or function.connection is None:
            return
        if not function.connection.connected:
            # Most that are lost are there again by the next look. Until then nothing comes, with home in good order.
            if seen.lost and function.home.connected:
                seen.not_before = now + TRY_AGAIN
                function.come_back()
            seen.lost = True
            return
        seen.lost, seen.not_before = False, 0.0
        if now - seen.calm_since >= CALM_FOR:
            seen.calm_since = now  # where that comes to nothing, it is tried again after as long
            function.come_back()
