"""Work over many functions: what else there is to do has its turn in between; who goes meanwhile is told of once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_functions import turns
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.function import Function
from nexlet_functions.observing import figures
from nexlet_functions.observing.counts import Counts, counts_of
from nexlet_functions.observing.feed import MetricsFeed
from nexlet_functions.turns import in_turns
from nexlet_models.workloads import WorkloadState
from tests.support.agent import AgentBench, agent_bench, workers_of
from tests.support.nexlets import deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually

ECHO = "def handler(event, context):\n    return event.text\n"


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function is a turn of its own."""
    monkeypatch.setattr(turns, "TURN_NS", 0)


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, metrics_interval="20ms") as bench:
        yield bench


async def start(bench: AgentBench, number: int, **limits: str) -> None:
    for at in range(number):
        await bench.start(f"W{at}", name=f"f{at}", source=ECHO, triggers=[f"t.{at}"], limits=limits)
        await bench.ask(f"t.{at}")


class Others:
    """What else there is to do: something in each turn of the loop."""

    def __init__(self) -> None:
        self.turns = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.turns += 1
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


@pytest.mark.usefixtures("short_turns")
async def test_between_two_of_them_others_have_their_turn() -> None:
    others, seen = Others(), []
    async for item in in_turns(range(5)):
        seen.append((item, others.turns))
    others.stop()
    assert [item for item, _ in seen] == list(range(5))
    assert len({turns for _, turns in seen}) == 5


async def test_a_turn_is_not_given_up_before_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_NS", 3_600_000_000_000)
    others = Others()
    assert [item async for item in in_turns(range(5))] == list(range(5))
    assert others.turns == 0
    others.stop()


async def test_what_they_are_taken_from_may_change() -> None:
    items = {1, 2, 3}
    async for item in in_turns(items):
        items.discard(item)
    assert items == set()


@pytest.mark.usefixtures("short_turns")
async def test_a_heartbeat_holds_up_nobody_and_counts_who_goes_meanwhile_no_more(bench: AgentBench) -> None:
    await start(bench, 4)
    others = Others()
    stopping = asyncio.create_task(bench.agent.stop_workload("W2", "acme"))
    before = others.turns
    await bench.agent.heartbeat()
    assert others.turns - before >= 4
    others.stop()
    await stopping
    await bench.event("WORKLOADSTOPPED", "W2")
    told = json.loads((await bench.agent.heartbeat()).data)
    assert (told["functions"], told["workers"], told["invocations"]["ok"]) == ({"running": 3}, 3, 3)


@pytest.mark.usefixtures("short_turns")
async def test_a_function_that_goes_in_the_middle_of_a_round_is_told_of_once(
    bench: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(bench, 4)
    went: list[Function] = []
    tell = MetricsFeed._tell

    def telling(feed: MetricsFeed, function: Function) -> None:
        tell(feed, function)
        if not went:
            went.append(next(one for one in feed._untold if one is not function))
            asyncio.get_running_loop().call_soon(feed.gone, went[0])

    monkeypatch.setattr(MetricsFeed, "_tell", telling)
    feed = bench.agent._feed
    assert feed is not None
    monkeypatch.setattr(feed, "_functions", lambda: [one for one in bench.agent.functions if one not in went])

    def told(workload_id: str) -> int:
        found = (json.loads(one.data) for one in bench.heard if one.subject.endswith(f".metrics.{workload_id}"))
        return sum(one["invocations"].get("ok", 0) for one in found)

    await bench.agent.register()
    await eventually(lambda: all(told(f"W{at}") for at in range(4)), what="all are told of")
    looked = feed._looked
    await eventually(lambda: feed._looked > looked, what="another round")
    await bench.ask("t.0")
    await eventually(lambda: sum(told(f"W{at}") for at in range(4)) == 5 or went[0].workload_id == "W0", what="told")
    assert told(went[0].workload_id) == 1


@pytest.mark.usefixtures("short_turns")
async def test_totals_do_not_fall_nor_count_twice_who_goes_while_they_are_read(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node) as bench:
            for at in range(4):
                await deploy(bench.control, ECHO, name=f"f{at}", triggers=[f"total.{at}"])
                await bench.ask(f"total.{at}")
            agent, read = bench.nexlet.agent, bench.nexlet._figures
            assert agent is not None
            last = agent.functions[-1]
            going: list[asyncio.Task[None]] = []

            def counting(function: Function) -> Counts:
                if not going:
                    stop = bench.nexlet.runner.agent.stop_workload(last.workload_id, last.namespace)
                    going.append(asyncio.ensure_future(stop))
                return counts_of(function)

            async def total() -> float:
                samples = await read.read(agent=agent, ready=True)
                (found,) = (one for one in samples if (one.name, one.labels) == ("nexlet_invocations_total", ("ok",)))
                assert isinstance(found.value, int)
                return found.value

            monkeypatch.setattr(figures, "counts_of", counting)
            assert await total() == 4
            await going[0]
            await eventually(lambda: last not in agent.functions, what="it is gone")
            assert await total() == 4
    finally:
        await node.stop()


async def test_that_a_function_falls_idle_and_is_woken_is_no_news_and_that_it_is_unwell_is(bench: AgentBench) -> None:
    await start(bench, 1, idle="20ms")
    (function,) = bench.agent.functions
    await eventually(lambda: function.state is WorkloadState.WARM, what="it is idle")
    beats = bench.services.heartbeats
    await bench.ask("t.0")
    await eventually(lambda: function.state is WorkloadState.WARM, what="it is idle again")
    assert bench.services.heartbeats == beats
    await bench.agent.stop_workload("W0", "acme")
    await start(bench, 1)
    (function,) = bench.agent.functions
    beats = bench.services.heartbeats
    while function.state is not WorkloadState.ERROR:
        await eventually(lambda: workers_of(bench.zygote) or function.state is WorkloadState.ERROR, what="a worker")
        for pid in workers_of(bench.zygote):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert bench.services.heartbeats > beats
