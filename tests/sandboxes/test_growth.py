"""Pools that grow and shrink: real workers, and what is looked at between them and the rule (`test_scaling.py`)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest

from nexlet_sandboxes import growth, rush, scaling
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.pools import KeepingSink, Sandbox, call, limits, open_pool, run

SOURCE = """
import time

def handler(event, context):
    what, _, seconds = event.text.partition(" ")
    if what == "sleep":
        time.sleep(float(seconds))
    elif what == "burn":
        end = time.process_time() + float(seconds)
        while time.process_time() < end:
            pass
    return b""
"""


@pytest.fixture
def strict(zygote: Zygote) -> Sandbox:
    """One profile: growing is the same in each whose workers are used again."""
    return Sandbox(zygote, "strict")


def asked(**changes: object) -> Any:
    return limits(**({"max_workers": 4, "timeout": 60.0, "queue_timeout": 60.0, "wait": 0.005} | changes))


class Load:
    """Keeps so many calls in a pool, one coming for each that ends, until it is told to stop."""

    def __init__(self, pool: Pool, payload: bytes, at_a_time: int) -> None:
        self._pool, self._payload = pool, payload
        assert isinstance(pool.sink, KeepingSink)
        self.sink = pool.sink
        self._wanted = at_a_time
        self._sent = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            while self._sent - len(self.sink.results) < self._wanted:
                self._pool.enqueue(call(self._payload))
                self._sent += 1
            self._pool.flush()
            ended = len(self.sink.results)
            await self.sink.until(lambda: len(self.sink.results) > ended)  # noqa: B023

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.sink.until(lambda: len(self.sink.results) == self._sent)
        assert {result.outcome for result in self.sink.results.values()} == {Outcome.OK}


async def test_what_waits_for_too_long_gets_as_many_workers_as_there_may_be(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked()) as pool, Load(pool, b"sleep 0.03", 24):
        await eventually(lambda: pool.stats().workers == 4, within=30)
        assert pool.stats().cold_starts == 4


async def test_what_may_wait_for_longer_gets_none(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked(wait=30.0)) as pool:
        results = await run(pool, *[b"sleep 0.03"] * 24)
        assert {result.outcome for result in results} == {Outcome.OK}
        assert pool.stats().cold_starts == 1


async def test_only_as_many_come_as_the_wait_takes(strict: Sandbox) -> None:
    """Two at a time wait for each other where there is one worker, and for nobody where there are two."""
    async with open_pool(strict, SOURCE, asked(wait=0.1)) as pool, Load(pool, b"sleep 0.3", 2) as load:
        await eventually(lambda: pool.stats().workers == 2, within=30)
        ended = len(load.sink.results)
        await load.sink.until(lambda: len(load.sink.results) >= ended + 4)
        assert pool.stats().workers == 2


async def test_many_quick_ones_are_no_reason(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked(max_pending=5000, wait=5.0)) as pool:
        results = await run(pool, *[b"echo"] * 4000)
        assert {result.outcome for result in results} == {Outcome.OK}
        assert pool.stats().cold_starts == 1


async def test_a_burst_that_is_over_before_another_worker_is_ready_gets_none(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked()) as pool:
        for _ in range(9):
            pool.start_times.add(60_000_000_000)  # as with a module that loads for long
        results = await run(pool, *[b"sleep 0.02"] * 12)
        assert {result.outcome for result in results} == {Outcome.OK}
        assert pool.stats().cold_starts == 1


async def test_one_long_call_is_seen_while_it_runs(strict: Sandbox) -> None:
    """All that ran before it were quick: it is its own time that tells."""
    async with open_pool(strict, SOURCE, asked(max_workers=2)) as pool:
        await run(pool, *[b"echo"] * 100)
        pool._links[0].window = 1  # as where the last call was slow: what is sent ahead waits for its worker
        pool.submit(call(b"sleep 30"))
        (result,) = await run(pool, b"echo")
        assert (result.outcome, pool.stats().workers) == (Outcome.OK, 2)
        assert pool.busy, "it is still at the long one"


async def test_one_that_computes_gets_no_more_than_processors_take(
    strict: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "processors", lambda: 0.5)
    looks: list[int] = []

    def watched(*arguments: Any, **named: Any) -> int:
        looks.append(scaling.more(*arguments, **named))
        return looks[-1]

    monkeypatch.setattr(growth, "more", watched)
    async with open_pool(strict, SOURCE, asked()) as pool, Load(pool, b"burn 0.2", 6):
        await eventually(lambda: len(looks) >= 4, within=30)
        assert not any(looks)
        assert pool.stats().workers == 1


async def test_one_that_waits_for_others_is_not_held_back_by_that(
    strict: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "processors", lambda: 1)
    async with open_pool(strict, SOURCE, asked()) as pool, Load(pool, b"sleep 0.03", 24):
        await eventually(lambda: pool.stats().workers == 4, within=30)


@dataclass(eq=False)
class Worker:
    """What a rush looks at of a worker."""

    pid: int
    answers: int = 0
    ran_ns: int = 0
    at_its_call_ns: int = 0

    @property
    def process(self) -> Worker:
        return self

    def running_ns(self, now: int) -> int:
        return self.at_its_call_ns


def test_a_rush_tells_calls_from_what_is_in_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    used, waited, runs = {1: 500, 2: 700}, {1: 90, 2: 80}, {2}
    monkeypatch.setattr(rush, "used_ns", used.__getitem__)
    monkeypatch.setattr(rush, "waited_ns", waited.__getitem__)
    monkeypatch.setattr(rush, "runnable", runs.__contains__)
    one, two = workers = [Worker(1, 5, 1000), Worker(2)]
    seen = rush.Rush(1000, workers)  # type: ignore[arg-type]  # all that it looks at

    def look(now: int) -> tuple[float, float]:
        return seen.measured(now, workers)  # type: ignore[arg-type]

    # One runs for half of the time, and a call takes a tenth of it; the other one may have wanted to, all the while.
    used[1] += 300
    waited[1] += 200
    one.answers, one.ran_ns = 15, 2000
    assert look(2000) == (0.75, (300 + 500) / 10)
    # Nothing of that is to be believed while one stays at the same call.
    two.at_its_call_ns = 400
    assert look(2500)[1] == 0.0
    two.answers, one.answers = 1, 16
    assert look(2500)[1] == (300 + 500) / 12
    # A worker that has just come is nobody to judge by.
    before = look(2500)[0]
    workers.append(Worker(3, answers=100, ran_ns=10**9))
    used[3], waited[3] = 10**9, 10**9
    two.at_its_call_ns = 0
    assert look(2500) == (before, (300 + 500) / 12)
    # Nor is what was long ago.
    look(3 * rush.AS_LONG_AGO_NS)
    runs.clear()
    used[1] += rush.AS_LONG_AGO_NS // 10
    share, takes = look(4 * rush.AS_LONG_AGO_NS)
    assert share == pytest.approx(0.1 / 3)
    assert takes == 0.0, "no call has ended since"


@pytest.mark.parametrize("least", [0, 2])
async def test_those_of_a_rush_go_and_the_last_ones_stay(
    strict: Sandbox, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(scaling, "SURPLUS", 0.05)
    async with open_pool(strict, SOURCE, asked(min_workers=least, idle=3600.0)) as pool:
        async with Load(pool, b"sleep 0.03", 24):
            await eventually(lambda: pool.stats().workers == 4, within=30)
        kept = max(least, 1)
        await eventually(lambda: pool.stats().workers == kept, within=30)
        (result,) = await run(pool, b"echo")
        assert result.outcome is Outcome.OK
        assert pool.stats().workers == kept
        assert pool.stats().cold_starts == 4, "nobody came instead of them"


async def test_after_the_idle_time_nobody_is_left(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked(idle=0.05)) as pool:
        async with Load(pool, b"sleep 0.03", 24):
            await eventually(lambda: pool.stats().workers == 4, within=30)
        await eventually(lambda: pool.asleep, within=30)
        assert pool._growth._idle_timer is None


async def test_while_starts_are_spaced_out_the_queue_is_not_looked_at_all_the_time(strict: Sandbox) -> None:
    """One worker is at a long call, and those beside it die: calls wait, and nothing can be done about it yet."""
    async with open_pool(strict, SOURCE, asked(max_workers=2)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await run(pool, *[b"echo"] * 10)
        pool._links[0].window = 1
        pool.submit(call(b"sleep 30"))
        pool._growth.deaths_in_row = growth.UNWELL_AFTER + 10
        looks = 0
        look = pool._on_queue_timer

        def counted() -> None:
            nonlocal looks
            looks += 1
            look()

        pool._on_queue_timer = counted  # type: ignore[method-assign]
        pool.submit(call(b"echo"))
        await eventually(lambda: pool._growth._retry_timer is not None)
        before = looks
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert looks - before <= 2


async def test_enough_is_fetched_to_show_that_more_workers_are_wanted(strict: Sandbox) -> None:
    async with open_pool(strict, SOURCE, asked(max_workers=8, wait=0.1)) as pool:
        assert pool.capacity() == 8, "of one that has run nothing"
        await run(pool, *[b"sleep 0.001"] * 40)
        (taken,) = pool._growth.runs_ns()
        assert pool.capacity() == pytest.approx(2 * (2 + 0.1e9 / taken), abs=2)
    async with open_pool(strict, SOURCE, asked(max_workers=8, wait=60.0)) as pool:
        await run(pool, b"sleep 0.001")
        assert pool.capacity() == 512
    async with open_pool(strict, SOURCE, asked(max_workers=8, wait=60.0, max_pending=100)) as pool:
        await run(pool, b"sleep 0.001")
        assert pool.capacity() == 100, "what would be refused is not fetched"
