"""The room for waiting calls that pools share: who gets how much of it, and that all of it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.backlog import Backlog
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.pools import KeepingSink, call, limits

SLEEPY = """
import time
def handler(event, context):
    time.sleep(0.3 if event.data == b"sleep" else 0)
"""


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.booleans()), max_size=300))
def test_it_is_never_over_its_bounds_and_always_has_room_for_a_newcomer(steps: list[tuple[int, int, bool]]) -> None:
    backlog = Backlog(40, 400)
    waiting: dict[int, list[int]] = {pool: [] for pool in range(4)}
    for pool, size, comes in steps:
        mine = waiting[pool]
        if comes and backlog.admits(len(mine), sum(mine), size):
            mine.append(size)
            backlog.add(size)
        elif not comes and mine:
            backlog.remove(mine.pop())
        assert backlog.calls == sum(map(len, waiting.values())) <= 40
        assert backlog.size == sum(map(sum, waiting.values())) <= 400
    assert backlog.admits(0, 0, 0)


@pytest.mark.parametrize(("pools", "each"), [(1, 50), (2, 33), (4, 20), (9, 10)])
def test_pools_that_ask_for_all_get_equal_shares(pools: int, each: int) -> None:
    backlog = Backlog(100, 10**9)
    waiting = [0] * pools
    for _ in range(200):
        for pool in range(pools):
            if backlog.admits(waiting[pool], 0, 0):
                waiting[pool] += 1
                backlog.add(0)
    assert all(abs(count - each) <= 1 for count in waiting)
    assert backlog.calls < 100


async def test_a_pool_that_floods_leaves_room_for_the_others(zygote: Zygote) -> None:
    backlog = Backlog(100, 10**6)
    asked = limits(max_pending=1000, timeout=5.0, queue_timeout=30.0)
    pools = [Pool(zygote, Program(SLEEPY), asked, KeepingSink(), backlog=backlog) for _ in range(2)]
    for pool in pools:
        await pool.start()
    try:
        for pool in pools:
            pool.submit(call(b"sleep"))
        flood, few = [call(b"x" * 10) for _ in range(300)], [call(b"y") for _ in range(20)]
        sinks = [pool.sink for pool in pools]
        assert isinstance(sinks[0], KeepingSink)
        assert isinstance(sinks[1], KeepingSink)
        for one in flood:
            pools[0].enqueue(one)
        for one in few:
            pools[1].enqueue(one)
        refused = [result for result in sinks[0].results.values() if result.outcome is Outcome.REJECTED]
        assert len(refused) == 250
        assert (refused[0].code, refused[0].error) == (
            429,
            "too many invocations, of all functions together, are waiting already",
        )
        assert not sinks[1].results, "all of them wait"
        assert backlog.calls == 70
        for pool, count in zip(pools, (301, 21), strict=True):
            pool.flush()
            sink = pool.sink
            assert isinstance(sink, KeepingSink)
            await sink.until(lambda sink=sink, count=count: len(sink.results) == count)  # type: ignore[misc]
        assert {result.outcome for result in sinks[1].results.values()} == {Outcome.OK}
        pools[0].submit(call(b"sleep"))
        for one in [call(b"x") for _ in range(40)]:
            pools[0].enqueue(one)
    finally:
        for pool in pools:
            await pool.close()
    assert (backlog.calls, backlog.size) == (0, 0), "what was waiting when it closed, too"
