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
        self._line: deque[tuple[int, str, asyncio.Future[None]]] = deque()
        self._owners: dict[str, tuple[int, int]] = {}  # calls inside, and their bytes

    @property
    def inside(self) -> int:
        """Calls that have room now."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    @contextlib.asynccontextmanager
    async def enter(self, size: int, owner: str = "") -> AsyncIterator[None]:
        """Room for one call of `size` bytes, from when there is some until the block ends.

        Args:
            owner: whose it is. One owner gets half of the room at most, so that there is some for others however long
                its calls take; "" has no such bound.
        """
        if not self._fits(size) or not self._has_share(size, owner) or self._first_in_line(owner):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (size, owner, turn)
            self._line.append(entry)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(size, owner)  # it was let in and cancelled in the same moment
                else:
                    self._line.remove(entry)
                    self._let_in()  # those behind it may have waited for it alone
                raise
        else:
            self._take(size, owner)
        try:
            yield
        finally:
            self._leave(size, owner)

    def _first_in_line(self, owner: str) -> bool:
        """Whether somebody is in line whom one of `owner` may not overtake: all but those who wait for their share."""
        return any(of == owner or self._has_share(size, of) for size, of, _ in self._line)

    def _has_share(self, size: int, owner: str) -> bool:
        if not owner:
            return True
        calls, held = self._owners.get(owner, (0, 0))
        return calls < max(1, self._calls // 2) and (not calls or held + size <= self._size // 2)

    def _take(self, size: int, owner: str) -> None:
        self._inside += 1
        self._held += size
        if owner:
            calls, held = self._owners.get(owner, (0, 0))
            self._owners[owner] = (calls + 1, held + size)

    def _fits(self, size: int) -> bool:
        return self._inside < self._calls and (not self._inside or self._held + size <= self._size)

    def _leave(self, size: int, owner: str) -> None:
        self._inside -= 1
        self._held -= size
        if owner:
            calls, held = self._owners.pop(owner)
            if calls > 1:
                self._owners[owner] = (calls - 1, held - size)
        self._let_in()

    def _let_in(self) -> None:
        for entry in tuple(self._line):
            size, owner, turn = entry
            if turn.cancelled():
                return  # whoever waited for it takes it out of the line, and comes here again
            if not self._has_share(size, owner):
                continue  # it waits for its own, and nobody else for that
            if not self._fits(size):
                return
            self._line.remove(entry)
            self._take(size, owner)
            turn.set_result(None)
