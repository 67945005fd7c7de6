"""How many workers stand idle, of all pools together: who goes when there are too many, and who does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.warm import SLACK, Warm
from nexlet_sandboxes.zygote import Zygote
from tests.support.pools import KeepingSink, call, limits, run

ECHO = "def handler(event, context):\n    return event.data\n"
ONCE = """
import time
def handler(event, context):
    time.sleep(0.2)
    return b""
"""


@contextlib.asynccontextmanager
async def pools_of(
    zygote: Zygote, warm: Warm, number: int, *, min_workers: int = 0, source: str = ECHO, profile: str = "strict"
) -> AsyncIterator[list[Pool]]:
    asked = limits(min_workers=min_workers, max_workers=2)
    pools = [Pool(zygote, Program(source), asked, KeepingSink(), warm=warm, profile=profile) for _ in range(number)]
    try:
        for pool in pools:
            await pool.start()
        yield pools
    finally:
        for pool in pools:
            await pool.close()


def workers(pools: list[Pool]) -> list[int]:
    return [pool.stats().workers for pool in pools]


async def test_the_longest_idle_go_and_come_back_with_their_next_message(zygote: Zygote) -> None:
    warm = Warm(3)
    async with pools_of(zygote, warm, 5) as pools:
        assert workers(pools) == [0, 0, 1, 1, 1]
        assert warm.retired == 2
        (result,) = await run(pools[0], b"again")
        assert (result.outcome, result.body) == (Outcome.OK, b"again")
        assert workers(pools) == [1, 0, 1, 1, 1], "it was busy when it was looked at"
        await run(pools[1], b"again")
        assert workers(pools) == [1, 1, 0, 1, 1], "the one that has been idle for longest made room"


async def test_one_that_was_used_meanwhile_stays(zygote: Zygote) -> None:
    async with pools_of(zygote, Warm(2), 2) as pools:
        await run(pools[0], b"x")
        async with pools_of(zygote, pools[0].warm or Warm(), 1) as others:
            assert workers(pools + others) == [1, 0, 1]


async def test_workers_that_a_function_asked_to_keep_and_busy_ones_stay(zygote: Zygote) -> None:
    warm = Warm(1)
    async with (
        pools_of(zygote, warm, 3, min_workers=1) as kept,
        pools_of(zygote, warm, 1, source=ONCE) as busy,
    ):
        slow = call(b"")
        busy[0].submit(slow)
        async with pools_of(zygote, warm, 2) as others:
            assert workers(kept) == [1, 1, 1]
            assert workers(busy) == [1]
            assert workers(others) == [0, 1]
            sink = busy[0].sink
            assert isinstance(sink, KeepingSink)
            await sink.until(lambda: slow.id in sink.results)
            assert sink.results[slow.id].outcome is Outcome.OK


async def test_workers_of_a_profile_that_uses_each_once_are_not_counted(zygote: Zygote) -> None:
    warm = Warm(1)
    async with pools_of(zygote, warm, 3, profile="oneshot") as pools:
        assert workers(pools) == [1, 1, 1]
        assert warm.retired == 0


async def test_with_many_it_is_looked_at_now_and_then_and_never_are_there_more(zygote: Zygote) -> None:
    warm = Warm(2 * SLACK)
    async with pools_of(zygote, warm, 3 * SLACK) as pools:
        assert sum(workers(pools)) <= 2 * SLACK
        assert workers(pools)[-1] == 1


async def test_a_closed_pool_is_forgotten(zygote: Zygote) -> None:
    warm = Warm(2)
    async with pools_of(zygote, warm, 2):
        pass
    async with pools_of(zygote, warm, 2) as pools:
        assert workers(pools) == [1, 1]
    assert warm.retired == 0
