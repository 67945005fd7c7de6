"""The workers that wait for a function, as an operator has them: set, counted, of nobody, and gone with the nexlet."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_sandboxes import machine
from nexlet_sandboxes.warm import most_idle
from tests.support.agent import agent_bench, workers_of
from tests.support.inventory import fetch
from tests.support.nexlets import deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually

ECHO = "def handler(event, context):\n    return event.text\n"


async def test_a_function_scaled_to_zero_is_woken_by_one_that_waits(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, reserve_workers=2) as bench:
        reserve = bench.agent.reserve
        assert workers_of(bench.zygote) == [], "without a function nobody needs one"
        await bench.start(source=ECHO, triggers=["t"], limits={"idle": "20ms"})
        (function,) = bench.agent.functions
        await eventually(lambda: function.state == "warm" and reserve.waiting == 2, what="it is idle")
        assert len(workers_of(bench.zygote)) == 2
        before = Counter(reserve.taken)
        assert (await bench.ask("t", b"woken")).data == b"woken"
        assert reserve.taken - before == {"reserve": 1}
        await bench.agent.stop_workload("W1", "acme")
        await eventually(lambda: len(workers_of(bench.zygote)) == reserve.waiting == 2, what="those that wait stay")
    # That the agent's end is theirs, too, is what the bench looks at.


async def test_they_are_counted(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node, reserve_workers=1) as bench:
            agent = bench.nexlet.agent
            assert agent is not None
            await deploy(bench.control, ECHO, name="f", triggers=["counted.f"])
            await eventually(lambda: agent.reserve.waiting == 1, what="one waits")
            served = (await asyncio.to_thread(fetch, f"http://{bench.metrics}/metrics")).decode().splitlines()
            assert "nexlet_reserve_workers 1.0" in served
            for origin in ("reserve", "forked"):
                assert f'nexlet_workers_begun_total{{origin="{origin}"}} {agent.reserve.taken[origin]}.0' in served
    finally:
        await node.stop()


@pytest.mark.parametrize("asked", [None, 7])
async def test_how_many_stand_idle_follows_from_the_machine_where_nobody_says(
    nats_server: EmbeddedServer, asked: int | None
) -> None:
    async with agent_bench(nats_server, max_idle_workers=asked) as bench:
        most = most_idle(machine.memory(), machine.descriptors(), machine.processes())
        assert bench.agent._means.warm.most == (asked or most)
