"""Waits for all schedules of a nexlet, with one timer.

A heap has what is due next. When the timer fires, what is due is looked at by a few tasks that end when there is no
more, so that a thousand functions that are due on the hour are a queue and not a thousand tasks. The timer never
sleeps for long: a clock that is set, or a machine that was asleep, is noticed within `LOOK` seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from nexlet_functions.schedules.claims import Claim, Schedule, Verdict

__all__ = ["LOOK", "Clock", "Scheduler", "SystemClock"]

_log = structlog.stdlib.get_logger("nexlet_functions.schedules")

LOOK = 5.0
"""Seconds at most between two looks at the clock, while there is any schedule."""

SIDE_BY_SIDE = 16
"""Looks into the ledger at a time: each is two answers of a server away from its end."""

_SECOND = 1_000_000
_SET_BACK = _SECOND
"""Microseconds: a clock that is set back by less is being kept right, and times that were waited for stay."""


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def cancel(self) -> None:
        """It does not fire any more."""
        ...


class Clock(Protocol):
    """What a scheduler knows of time."""

    def now(self) -> int:
        """The time of day: microseconds since 1970. May jump."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, when so much time has passed."""
        ...


class SystemClock:
    """The machine's own, and the running loop's."""

    def now(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1000

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        return asyncio.get_running_loop().call_later(seconds, callback)


class _Waiting:
    """A schedule that is waited for."""

    __slots__ = ("at", "busy", "gone", "schedule", "told")

    def __init__(self, schedule: Schedule, at: int) -> None:
        self.schedule = schedule
        self.at = at
        self.busy: asyncio.Future[None] | None = None
        self.gone = False
        self.told = False


class Scheduler:
    """All schedules of a nexlet."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Nothing is waited for."""
        self._clock = clock or SystemClock()
        self._waiting: dict[Schedule, _Waiting] = {}
        self._heap: list[tuple[int, int, _Waiting]] = []
        self._count = 0
        self._timer: Timer | None = None
        self._seen = 0
        self._due: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def add(self, schedule: Schedule) -> None:
        """Wait for a schedule from now on.

        Raises:
            LedgerUnavailable: it could never run.
        """
        at = await schedule.join(self._clock.now())
        waiting = self._waiting[schedule] = _Waiting(schedule, at)
        self._push(waiting, at)
        self._arm()

    async def remove(self, schedule: Schedule) -> None:
        """Wait for it no more. When this returns, it fires nothing any more; unknown ones are fine."""
        waiting = self._waiting.pop(schedule, None)
        if waiting is None:
            return
        waiting.gone = True
        self._heap = [entry for entry in self._heap if entry[2] is not waiting]
        heapq.heapify(self._heap)
        self._arm()
        if waiting.busy is not None:
            await asyncio.wait([waiting.busy])  # what it claims meanwhile is begun, and not lost

    def next_due(self, schedule: Schedule) -> int:
        """When it is looked at next, in microseconds since 1970; 0 where it is not waited for."""
        waiting = self._waiting.get(schedule)
        return waiting.at if waiting is not None else 0

    def ended(self, claim: Claim) -> None:
        """A run has ended, however it did."""
        if claim.schedule.needs_release(claim):
            self._soon(lambda: claim.schedule.release(claim))

    async def close(self) -> None:
        """Finish what is under way, and wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._heap.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- time --------------------------------------------------------------------------------------------------------

    def _push(self, waiting: _Waiting, at: int) -> None:
        waiting.at = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, waiting))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            left = (self._heap[0][0] - self._clock.now()) / _SECOND
            self._timer = self._clock.call_later(min(LOOK, max(0.0, left)), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock.now()
        if now < self._seen - _SET_BACK:
            self._set_back(now)
        self._seen = now
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, waiting = heapq.heappop(heap)
            if not waiting.gone and waiting.busy is None and waiting.at == at:
                waiting.busy = asyncio.get_running_loop().create_future()
                self._soon(lambda waiting=waiting: self._look(waiting))  # type: ignore[misc]  # bound, not given
        self._arm()

    def _set_back(self, now: int) -> None:
        """The clock was set back: what was waited for was reckoned by another time."""
        _log.warning("the clock was set back", seconds=round((self._seen - now) / _SECOND, 3))
        self._heap.clear()
        for waiting in self._waiting.values():
            if waiting.busy is None:
                self._push(waiting, waiting.schedule.cadence.after(now))

    # --- what is due -------------------------------------------------------------------------------------------------

    def _soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._due.append(work)
        if len(self._tasks) < SIDE_BY_SIDE:
            task = asyncio.get_running_loop().create_task(self._work(), name="schedules")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while self._due:
            await self._due.popleft()()

    async def _look(self, waiting: _Waiting) -> None:
        schedule = waiting.schedule
        again = self._clock.now() + _SECOND
        try:
            if not waiting.gone:
                verdict, again = await schedule.look(self._clock.now())
                self._tell(waiting, verdict)
        except Exception:  # noqa: BLE001  # a fault of ours in one schedule: it is logged, and all of them go on
            _log.exception("looking after a schedule failed", schedule=schedule.text)
        finally:
            assert waiting.busy is not None
            if not waiting.busy.done():
                waiting.busy.set_result(None)
            waiting.busy = None
            if not waiting.gone and schedule in self._waiting:
                self._push(waiting, again)
                self._arm()

    def _tell(self, waiting: _Waiting, verdict: Verdict) -> None:
        """A line when the ledger cannot be used any more, and one when it can again."""
        failing = bool(waiting.schedule.last_error)
        if failing and not waiting.told:
            _log.warning(
                "a schedule cannot be kept", schedule=waiting.schedule.text, reason=waiting.schedule.last_error
            )
        elif waiting.told and not failing:
            _log.info("a schedule is kept again", schedule=waiting.schedule.text, verdict=verdict.value)
        waiting.told = failing
