"""Garbage collection in quiet moments, and not while a message waits.

Python looks for garbage when enough objects were made, and then it may look through everything there is: where a
thousand functions are deployed, that is tens of milliseconds in which nothing else happens. Nearly all of it lives as
long as its function does. So when functions came or went, and nothing is going on, what can be collected is, and what
is left is set aside: collections to come have only what is made after that to look through.

What was set aside is freed by its reference count all the same; what hangs together in a circle is not. So when many
functions have gone, everything is looked through once more.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sized
from typing import Final, Protocol

__all__ = ["Collecting", "Watched"]

LOOK: Final = 1.0
"""Seconds between two looks whether there is something to be done."""

SHARE: Final = 4
"""When more than one part in so many of the functions have gone, all is looked through: Python's own measure."""

FEW: Final = 16
"""... and as many at least: to look through all of it costs the same where next to nothing is deployed."""


class Watched(Protocol):
    """What is looked at of a `FunctionAgent`."""

    @property
    def changes(self) -> tuple[int, int]:
        """How many functions came so far, and how many went."""
        ...

    @property
    def quiet(self) -> bool:
        """Whether nothing goes on that would have to wait."""
        ...

    @property
    def functions(self) -> Sized:
        """Those that are here."""
        ...


class Collecting:
    """Collects the garbage of this process. It is to be the nexlet's own: what is set aside is everybody's."""

    def __init__(self, agent: Callable[[], Watched | None]) -> None:
        """Nothing is done yet.

        Args:
            agent: whose functions they are; None before there is one.
        """
        self._agent = agent
        self._seen = self._collected = (0, 0)
        self._gone = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Collect, where functions came or went before the last look, and none did since, and nothing is under way."""
        agent = self._agent()
        if agent is None or agent.changes == self._collected:
            return
        before, self._seen = self._seen, agent.changes
        if before != self._seen or not agent.quiet:
            return
        self._collected = self._seen
        _, gone = self._seen
        if gone - self._gone >= max(FEW, len(agent.functions) // SHARE):
            self._gone = gone
            gc.unfreeze()
        gc.collect()
        gc.freeze()
