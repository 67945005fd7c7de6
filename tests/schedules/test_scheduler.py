"""Waiting for what is due: one timer, clocks that jump, and many schedules at the same hour."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from nexlet_functions.schedules.claims import Claim, Schedule
from nexlet_functions.schedules.ledger import Entry, LedgerUnavailable, Mark
from nexlet_functions.schedules.scheduler import LOOK, SIDE_BY_SIDE, Scheduler
from nexlet_models.cron import Cadence, Cron, Every, from_moment
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.wallclock import WallClock

BEGIN = datetime(2026, 1, 1, 12, 0, 10, tzinfo=UTC)


class Table:
    """A ledger that is a table, and can be made to wait or to fail."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.at_a_time = 0
        self.most = 0

    async def read(self, key: str) -> Entry:
        self.at_a_time += 1
        self.most = max(self.most, self.at_a_time)
        try:
            await self.open.wait()
            if self.broken:
                raise LedgerUnavailable("no connection", "try again")
            return self._entries.get(key, Entry())
        finally:
            self.at_a_time -= 1

    async def write(self, key: str, mark: Mark, revision: int) -> bool:
        if self._entries.get(key, Entry()).revision != revision:
            return False
        self._entries[key] = Entry(revision + 1, mark, self._clock.now())
        return True


class Bench:
    def __init__(self) -> None:
        self.clock = WallClock(BEGIN)
        self.scheduler = Scheduler(self.clock)
        self.table = Table(self.clock)
        self.ran: list[tuple[str, str]] = []

    def schedule(self, key: str, cadence: Cadence, **options: str) -> Schedule:
        def fire(claim: Claim) -> None:
            self.ran.append((key, from_moment(claim.due).strftime("%H:%M:%S")))

        return Schedule(cadence, self.table, key, text=key, owner="W", fire=fire, **options)  # type: ignore[arg-type]  # its policies

    async def pass_(self, seconds: float) -> None:
        await self.clock.pass_(seconds, settled=lambda: not self.scheduler._tasks)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_each_runs_when_it_is_due(bench: Bench) -> None:
    await bench.scheduler.add(bench.schedule("a", Every(30.0)))
    await bench.scheduler.add(bench.schedule("b", Cron("*/2 * * * *")))
    await bench.pass_(110)
    assert bench.ran[:3] == [("a", "12:00:30"), ("a", "12:01:00"), ("a", "12:01:30")]
    assert sorted(bench.ran[3:]) == [("a", "12:02:00"), ("b", "12:02:00")]
    await bench.scheduler.close()


async def test_there_is_one_timer(bench: Bench) -> None:
    assert bench.clock.timers == 0
    schedules = [bench.schedule(f"s{number}", Every(60.0 + number)) for number in range(50)]
    for schedule in schedules:
        await bench.scheduler.add(schedule)
    assert bench.clock.timers == 1
    await bench.pass_(300)
    assert bench.clock.timers == 1
    for schedule in schedules:
        await bench.scheduler.remove(schedule)
    assert bench.clock.timers == 0
    assert len(bench.scheduler) == 0


async def test_a_thousand_at_the_same_hour_are_a_queue(bench: Bench) -> None:
    for number in range(1000):
        await bench.scheduler.add(bench.schedule(f"s{number}", Cron("1 12 * * *")))
    bench.table.most = 0
    await bench.pass_(60)
    assert len(bench.ran) == 1000
    assert bench.table.most <= SIDE_BY_SIDE


async def test_what_is_removed_runs_no_more(bench: Bench) -> None:
    schedule = bench.schedule("a", Every(30.0))
    await bench.scheduler.add(schedule)
    await bench.scheduler.remove(schedule)
    await bench.scheduler.remove(schedule)
    await bench.pass_(120)
    assert bench.ran == []


async def test_what_is_being_claimed_is_begun_before_it_is_removed(bench: Bench) -> None:
    schedule = bench.schedule("a", Every(30.0))
    await bench.scheduler.add(schedule)
    bench.table.open.clear()
    await bench.clock.pass_(20)
    await eventually(lambda: bench.table.at_a_time == 1)
    removing = asyncio.create_task(bench.scheduler.remove(schedule))
    await asyncio.sleep(0)
    assert not removing.done()
    bench.table.open.set()
    await removing
    assert bench.ran == [("a", "12:00:30")]


@row("the clock is put forward, or back")
async def test_a_clock_that_is_put_forward_is_noticed(bench: Bench) -> None:
    await bench.scheduler.add(bench.schedule("skip", Cron("0 * * * *")))
    await bench.scheduler.add(bench.schedule("once", Cron("0 * * * *"), missed="once"))
    bench.clock.set(BEGIN + timedelta(hours=3, minutes=10))
    await bench.pass_(LOOK)
    assert bench.ran == [("once", "15:00:00")]
    await bench.pass_(3600)
    assert sorted(bench.ran[1:]) == [("once", "16:00:00"), ("skip", "16:00:00")]


async def test_a_clock_that_is_set_back_runs_nothing_twice(bench: Bench) -> None:
    await bench.scheduler.add(bench.schedule("a", Cron("*/10 * * * *")))
    await bench.pass_(25 * 60)
    assert bench.ran == [("a", "12:10:00"), ("a", "12:20:00")]
    bench.clock.set(BEGIN + timedelta(minutes=5))
    await bench.pass_(30 * 60)
    assert bench.ran[2:] == [("a", "12:30:00")]


async def test_a_ledger_that_is_back_in_time(bench: Bench) -> None:
    await bench.scheduler.add(bench.schedule("a", Every(60.0)))
    bench.table.broken = True
    await bench.pass_(55)
    assert bench.ran == []
    bench.table.broken = False
    await bench.pass_(3)
    assert bench.ran == [("a", "12:01:00")]


async def test_a_schedule_with_a_fault_of_ours_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = bench.schedule("a", Every(60.0))
    await bench.scheduler.add(schedule)
    look = Schedule.look
    fails = [True]

    async def failing(self: Schedule, now: int) -> object:
        if fails.pop() if fails else False:
            raise RuntimeError("a fault")
        return await look(self, now)

    monkeypatch.setattr(Schedule, "look", failing)
    await bench.pass_(60)
    assert bench.ran == [("a", "12:01:00")]


async def test_a_fast_schedule_is_not_begun_twice_at_a_time(bench: Bench) -> None:
    await bench.scheduler.add(bench.schedule("a", Every(1.0), overlap="allow"))
    bench.table.open.clear()
    await bench.clock.pass_(5)
    await eventually(lambda: bench.table.at_a_time == 1)
    bench.table.open.set()
    await bench.pass_(2)
    assert len({due for _, due in bench.ran}) == len(bench.ran)
    assert bench.ran[-1] == ("a", "12:00:17")
