"""A time of day that is set by hand, with the timers that go by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from nexlet_models.cron import moment_of

__all__ = ["WallClock"]


class _Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class WallClock:
    """Implements `schedules.Clock`. Time passes by `pass_`; `set` moves the time of day alone, as an operator would.

    Attributes:
        timers: those that were ever asked for and have neither fired nor been cancelled.
    """

    def __init__(self, begin: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = moment_of(begin)
        self._passed = 0.0
        self._timers: list[_Timer] = []

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)

    def now(self) -> int:
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self._passed + seconds, callback)
        self._timers.append(timer)
        return timer

    def set(self, now: datetime) -> None:
        self._now = moment_of(now)

    async def pass_(self, seconds: float, *, settled: Callable[[], bool] = lambda: True) -> None:
        """Let time pass, one timer after the other.

        Args:
            settled: whether what a timer began has come to rest; it is waited for, for ten seconds at most.
        """
        end = self._passed + seconds
        while True:
            await self._rest(settled)
            due = [timer for timer in self._timers if not timer.cancelled and timer.at <= end]
            if not due:
                break
            first = min(due, key=lambda timer: timer.at)
            self._timers.remove(first)
            self._now += max(0, round((first.at - self._passed) * 1e6))
            self._passed = max(self._passed, first.at)
            first.callback()
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        self._now += round((end - self._passed) * 1e6)
        self._passed = end

    async def _rest(self, settled: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not settled():  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.001)
