"""What is left of functions that have nothing to do: their subscriptions, their programs, and no work for anybody."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models.workloads import WorkloadState
from nexlet_sandboxes.pool import Pool
from tests.support.agent import AgentBench, agent_bench
from tests.support.inventory import nothing_left, settled_inventory
from tests.support.nexlets import MONITORED, NAMESPACE, deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually

ECHO = "def handler(event, context):\n    return event.text\n"
SHORT = {"idle": "20ms"}


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, metrics_interval="20ms") as bench:
        await bench.agent.register()
        yield bench


def asleep(bench: AgentBench) -> int:
    return sum(function.state is WorkloadState.WARM for function in bench.agent.functions)


def timers() -> int:
    """How many there are that are to fire yet."""
    now = asyncio.get_running_loop().time()
    found = [one for one in gc.get_objects() if isinstance(one, asyncio.TimerHandle)]
    return sum(not one.cancelled() and one.when() > now for one in found)


async def test_an_idle_function_is_its_subscription_and_its_program_and_nothing_else(tmp_path: Path) -> None:
    async with EmbeddedServer(config=MONITORED) as server:
        node = StandIn(server.url, tmp_path)
        await node.start()
        try:
            async with nexlet_bench(server, node, metrics_interval="1h") as bench:
                agent = bench.nexlet.agent
                assert agent is not None

                async def idle(*names: str) -> None:
                    for name in names:
                        await deploy(bench.control, ECHO, name=name, triggers=[f"idle.{name}"], limits=SHORT)
                        assert (await bench.ask(f"idle.{name}", b"here")).data == b"here"
                    await eventually(
                        lambda: all(one.state is WorkloadState.WARM for one in agent.functions), what="all are idle"
                    )

                await idle("first", "second")
                before, running = await settled_inventory(server.monitoring), timers()
                names = [f"more-{number}" for number in range(6)]
                await idle(*names)
                before.subscriptions.update(f"nexlet-workloads idle.{name} {NAMESPACE}.{name}" for name in names)
                await nothing_left(before, server.monitoring)
                await eventually(lambda: timers() <= running, what="no more timers than before")
                for function in agent.functions:
                    assert function.pool is not None
                    assert function.pool.compiled
                assert (await bench.ask("idle.more-3", b"again")).data == b"again"
        finally:
            await node.stop()


async def test_what_idle_functions_have_counted_is_not_counted_again(
    bench: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await bench.start(f"W{number}", name=f"f{number}", source=ECHO, triggers=[f"t.{number}"], limits=SHORT)
        await bench.ask(f"t.{number}")
    await eventually(lambda: asleep(bench) == 5, what="all are idle")
    await bench.agent.heartbeat()
    feed = bench.agent._feed
    assert feed is not None
    looked = feed._looked
    await eventually(lambda: feed._looked > looked, what="the feed has told of their end")

    counted: Counter[str] = Counter()
    stats = Pool.stats

    def counting(pool: Pool) -> object:
        counted[pool.program.name] += 1
        return stats(pool)

    monkeypatch.setattr(Pool, "stats", counting)
    before = feed._looked
    beat = json.loads((await bench.agent.heartbeat()).data)
    await eventually(lambda: feed._looked > before, what="the feed has looked at them")
    assert counted == Counter()
    assert (beat["functions"], beat["invocations"]["ok"], beat["workers"]) == ({"warm": 5}, 5, 0)

    await bench.ask("t.3")
    await eventually(lambda: counted["f3"], what="one that has something to do is looked at")
    beat = json.loads((await bench.agent.heartbeat()).data)
    assert beat["invocations"]["ok"] == 6
    await eventually(lambda: asleep(bench) == 5, what="all are idle")
    assert counted.keys() == {"f3"}
    beat = json.loads((await bench.agent.heartbeat()).data)
    assert (beat["functions"], beat["workers"]) == ({"warm": 5}, 0)


async def test_sums_are_those_of_the_functions_that_are_here(bench: AgentBench) -> None:
    await bench.start("W1", source=ECHO, triggers=["one"])
    await bench.start("W2", source=ECHO, triggers=["two"], namespace="other", name="two")
    for subject in ("one", "two", "two"):
        await bench.ask(subject)
    told = json.loads((await bench.agent.heartbeat()).data)
    assert (told["namespace_count"], told["functions"], told["workers"]) == (2, {"running": 2}, 2)
    assert told["invocations"]["ok"] == 3
    await bench.agent.stop_workload("W2", "other")
    told = json.loads((await bench.agent.heartbeat()).data)
    assert (told["namespace_count"], told["functions"], told["workers"]) == (1, {"running": 1}, 1)
    assert told["invocations"]["ok"] == 1
