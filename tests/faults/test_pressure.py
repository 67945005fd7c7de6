"""More than can be served: what a flood does to memory, to the account of its messages, and to its neighbours.

The scenarios are those of `make bench ARGS="overload fairness"`, which tells their figures.
"""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import fairness, overload
from benchmarks.bench import open_bench
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.zygote import Zygote
from tests.support.agent import agent_bench
from tests.support.bursts import burst
from tests.support.pools import KeepingSink, Sandbox, call, limits, open_pool
from tests.support.settle import settle

pytestmark = pytest.mark.faults

GROWTH_MIB = 10.0
STARVED = 3.0
"""An idle neighbour's p99 beside one that is busy, over what it is alone ..."""

AS_THE_MACHINE_HAS_IT = 2.0
"""... or, where that is more, over what a bare responder's p99 becomes beside bare ones, each in its own process. On
two cores the kernel lets what wakes wait for a tick of its clock (4 ms) at about one wake-up in a hundred."""

LATE_MS = 50.0


async def test_ten_times_the_load_leaves_memory_as_it_is_and_loses_nothing() -> None:
    async with open_bench(floors=()) as bench:
        seen = await overload.measure_on(bench, seconds=62)
    assert seen.growth_mib < GROWTH_MIB, seen.memory_mib
    assert seen.unaccounted == {"slow": 0, "quick": 0}
    assert seen.outcomes["slow"]["rejected"] > seen.outcomes["slow"]["ok"], "it was too much by far"
    assert seen.outcomes["quick"].keys() == {"ok"}


async def test_a_function_that_computes_does_not_starve_an_idle_one() -> None:
    async with open_bench(floors=()) as bench:
        (burning,) = await fairness.measure_on(bench, ways=("burn",))
    alone, bare = burning.ours.p99_ms, burning.floor.busy_p99_ms
    assert burning.ours.busy_p99_ms <= max(STARVED * alone, AS_THE_MACHINE_HAS_IT * bare), burning
    assert burning.ours.busy_rate > 0


@pytest.mark.parametrize("wire", ["fast", "public"])
@pytest.mark.parametrize("max_pending", [1000, 65536])
async def test_a_burst_of_a_hundred_thousand_is_accounted_for(
    nats_server: EmbeddedServer, wire: str, max_pending: int
) -> None:
    async with agent_bench(nats_server, options=Options(public_only=wire == "public")) as bench:
        await settle(bench.client)
        await burst(bench, 100_000, max_pending=max_pending, within=240)


@pytest.mark.parametrize("own", [False, True], ids=["its limit", "its caller's"])
async def test_a_deadline_ends_a_call_within_50_ms_of_what_the_function_was_told(own: bool) -> None:
    source = "import time\ndef handler(event, context):\n    print(time.monotonic() + context.remaining_ms() / 1000)\n"
    source += "    while True:\n        pass\n"
    zygote = await Zygote.start()
    loop = asyncio.get_running_loop()
    late = []
    try:
        async with open_pool(Sandbox(zygote, "strict"), source, limits(timeout=20.0 if own else 0.3)) as pool:
            sink = pool.sink
            assert isinstance(sink, KeepingSink)
            for number in range(1, 12):
                one = call()
                if own:
                    one.deadline_ns = one.received_ns + 300_000_000
                pool.submit(one)
                await sink.until(lambda number=number: len(sink.results) == number)  # type: ignore[misc]
                late.append((loop.time() - float(sink.lines[-1][3])) * 1000)
                assert sink.results[one.id].outcome is Outcome.TIMEOUT
    finally:
        await zygote.close()
    late.sort()
    assert late[0] > -1
    assert late[len(late) // 2] < LATE_MS, late
