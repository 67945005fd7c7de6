"""A clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Time passes by `advance` alone; sleepers wake in the order of their hours."""

    def __init__(self) -> None:
        self._seconds = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._seconds + seconds, woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass; who wakes on the way has run up to its next wait when this returns."""
        end = self._seconds + seconds
        while True:
            await _settle()
            due = sorted((entry for entry in self._sleepers if entry[0] <= end), key=lambda entry: entry[0])
            if not due:
                break
            self._seconds = due[0][0]
            self._sleepers.remove(due[0])
            due[0][1].set()
        self._seconds = end
        await _settle()


async def _settle() -> None:
    for _ in range(10):  # turns of the loop: enough for whoever was woken to come to rest
        await asyncio.sleep(0)
