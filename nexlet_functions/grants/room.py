"""How many calls of all functions are done at a time, and how many bytes they may hold meanwhile.

A worker has one call at a time, so there are no more than workers; `Room` bounds what these together take of the
connections and of this process's memory. What finds none waits in line, within its own time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

__all__ = ["Room"]


class Room:
    """Room for calls. Nobody overtakes: a large one is not kept waiting by small ones that fit."""

    def __init__(self, calls: int, size: int) -> None:
        """Room for so many calls, of so many bytes together. One that is larger by itself gets in alone."""
        self._calls = calls
        self._size = size
        self._inside = self._held = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def inside(self) -> int:
        """Calls that have room now."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    @contextlib.asynccontextmanager
    async def enter(self, size: int) -> AsyncIterator[None]:
        """Room for one call of `size` bytes, from when there is some until the block ends."""
        if self._line or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (size, turn)
            self._line.append(entry)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(size)  # it was let in and cancelled in the same moment
                else:
                    self._line.remove(entry)
                    self._let_in()  # those behind it may have waited for it alone
                raise
        else:
            self._inside += 1
            self._held += size
        try:
            yield
        finally:
            self._leave(size)

    def _fits(self, size: int) -> bool:
        return self._inside < self._calls and (not self._inside or self._held + size <= self._size)

    def _leave(self, size: int) -> None:
        self._inside -= 1
        self._held -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._line:
            size, turn = self._line[0]
            if turn.cancelled():
                return  # whoever waited for it takes it out of the line, and comes here again
            if not self._fits(size):
                return
            self._line.popleft()
            self._inside += 1
            self._held += size
            turn.set_result(None)
