"""Processor time by namespace: measured by the kernel, held by stopping, shared by pools, and given back in time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from nexlet_sandboxes.budget import LOOK_S, Budget
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.pools import KeepingSink, Sandbox, call, limits, run

BURN = """
import time
def handler(event, context):
    if event.data == b"spin":
        while True:
            pass
    end = time.process_time() + float(event.text or 0)
    while time.process_time() < end:
        pass
    return "burnt"
"""


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_pools_that_share_a_budget_use_no_more_than_it(sandbox: Sandbox) -> None:
    budget = Budget(0.1)
    sinks = [KeepingSink(), KeepingSink()]
    pools = [
        Pool(sandbox.zygote, Program(BURN), limits(timeout=60.0), sink, profile=sandbox.profile, budget=budget)
        for sink in sinks
    ]
    try:
        for pool in pools:
            await pool.start()
        began = time.monotonic_ns()
        results = [one for both in await asyncio.gather(*(run(pool, b"0.06") for pool in pools)) for one in both]
        took = time.monotonic_ns() - began
        assert {result.outcome for result in results} == {Outcome.OK}
        # What was used since the last look, when the work was done, nobody had to wait for any more.
        paid_for = 0.12 - 0.1 * 0.1 - LOOK_S[0]
        assert took >= paid_for / 0.1 * 1e9 * 0.9, "0.12 s of work at a tenth of a processor, less a burst and a look"
        (after,) = await run(pools[0], b"0")
        assert after.body == b"burnt"
    finally:
        for pool in pools:
            await pool.close()
    await eventually(lambda: budget._timer is None, what="nothing is looked at any more")


async def test_what_is_held_still_has_its_deadline_and_can_be_stopped(zygote: Zygote) -> None:
    budget = Budget(0.001)
    pool = Pool(zygote, Program(BURN), limits(timeout=0.5, max_workers=3), KeepingSink(), budget=budget)
    await pool.start()
    try:
        worker = pool._links[0].process.pid
        pool.submit(call(b"spin"))
        await eventually(lambda: budget.held and stopped(worker), what="its workers stand still")
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await sink.until(lambda: bool(sink.results))
        (result,) = sink.results.values()
        assert (result.outcome, result.code) == (Outcome.TIMEOUT, 504)
        pool.submit(call(b"0"))
        assert budget.held
        assert pool.stats().starting == 0, "no worker is started only to stand still"
    finally:
        await asyncio.wait_for(pool.close(), 10)


async def test_a_neighbour_with_another_budget_is_not_held(zygote: Zygote) -> None:
    held, free = (
        Pool(zygote, Program(BURN), limits(timeout=20.0), KeepingSink(), budget=Budget(processors))
        for processors in (0.001, 200.0)
    )
    try:
        await held.start()
        await free.start()
        held.submit(call(b"spin"))
        await eventually(lambda: held.budget is not None and held.budget.held, what="one is held")
        (result,) = await run(free, b"0.01")
        assert result.outcome is Outcome.OK
        assert free.budget is not None
        assert not free.budget.held
    finally:
        await held.close()
        await free.close()


@pytest.mark.parametrize("processors", [0.05, 100.0])
async def test_single_use_workers_are_counted_though_they_live_shortly(zygote: Zygote, processors: float) -> None:
    budget = Budget(processors)
    pool = Pool(zygote, Program(BURN), limits(timeout=20.0), KeepingSink(), profile="oneshot", budget=budget)
    await pool.start()
    try:
        for _ in range(4):
            await run(pool, b"0.1")
        assert (budget.held_ns > 0) is (processors < 1)
    finally:
        await pool.close()
