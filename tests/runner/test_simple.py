"""The example nexlet of the docs, as a process of its own; and the agent it is made with."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.runner import Refused, Services
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.simple import SimpleAgent
from nexlet_models.workloads import AgentStartWorkloadRequest, WorkloadState
from tests.support.polling import eventually
from tests.support.running import Start
from tests.support.scripted_node import ScriptedNode, start_request

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "examples" / "shout.py"


async def test_the_example_nexlet(nats_server: EmbeddedServer, node: ScriptedNode) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), nats_server.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        await node.registered()
        answer = await node.start("w1", start_request(node.url, run='{"subject": "shout"}'))
        assert answer.json == {"id": "w1", "name": "fn"}
        reply = await node.client.request("shout", b"is anybody there?", timeout=5)
        assert reply.data == b"IS ANYBODY THERE?"
        assert reply.headers == {"workload_id": "w1", "namespace": "acme"}
        assert await node.listed("acme") == ["w1"]
        assert (await node.stop("w1")).json["stopped"] is True
        with pytest.raises(nats.errors.NoRespondersError):
            await node.client.request("shout", timeout=5)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
        await eventually(lambda: node.states()[-1] == "stopping")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Held:
    """A workload that does nothing until it is stopped."""

    def __init__(self) -> None:
        self.grace: float | None = None

    async def stop(self, grace: float) -> None:
        self.grace = grace
        if grace == 13:
            raise RuntimeError("cannot end")


class Starts:
    """Starts workloads as its gates allow."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuse = False

    async def __call__(self, services: Services, workload_id: str, request: AgentStartWorkloadRequest) -> Held:
        await self.gate.wait()
        if self.refuse:
            raise Refused("not today")
        return self.held.setdefault(workload_id, Held())


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
async def agent(nats_server: EmbeddedServer, node: ScriptedNode, start: Start, starts: Starts) -> Any:
    def make(services: Services) -> SimpleAgent:
        return SimpleAgent(services, starts, register_type="echo", version="1.0.0")

    async with start(nats_server.url, agent=make) as running:
        await node.registered()
        yield running.runner.agent


async def test_starting_twice(agent: SimpleAgent, node: ScriptedNode, starts: Starts) -> None:
    starts.gate.clear()
    first = asyncio.create_task(node.start("w1", start_request(node.url)))
    await eventually(lambda: agent._workloads)
    assert [one.workload_state for one in await agent.query_workloads("acme", ())] == [WorkloadState.STARTING]
    again = asyncio.create_task(node.start("w1", start_request(node.url)))
    starts.gate.set()
    assert (await first).json == (await again).json == {"id": "w1", "name": "fn"}
    assert len(starts.held) == 1
    other = await node.start("w1", start_request(node.url, run='{"other": 1}'))
    assert other.error == ("workload w1 runs already, started by another request", "409")


async def test_a_refused_start_leaves_nothing(agent: SimpleAgent, node: ScriptedNode, starts: Starts) -> None:
    starts.refuse = True
    assert (await node.start("w1", start_request(node.url))).error == ("not today", "400")
    assert await node.listed() == []
    starts.refuse = False
    assert (await node.start("w1", start_request(node.url))).error is None


async def test_stop_while_starting(agent: SimpleAgent, node: ScriptedNode, starts: Starts) -> None:
    starts.gate.clear()
    starting = asyncio.create_task(node.start("w1", start_request(node.url)))
    await eventually(lambda: agent._workloads)
    assert (await node.stop("w1")).json["stopped"] is True
    starts.gate.set()
    assert (await starting).error == ("workload w1 was stopped while it started", "409")
    assert starts.held["w1"].grace == 0
    assert await node.listed() == []


async def test_a_second_start_of_one_that_failed(agent: SimpleAgent, node: ScriptedNode, starts: Starts) -> None:
    starts.gate.clear()
    request = start_request(node.url)
    first = asyncio.create_task(agent.start_workload("w1", request, existing=False))
    second = asyncio.create_task(agent.start_workload("w1", request, existing=False))
    await eventually(lambda: agent._workloads)
    starts.refuse = True
    starts.gate.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(one) for one in results] == [Refused, AgentError]


async def test_one_that_cannot_end_does_not_keep_the_others(
    agent: SimpleAgent, node: ScriptedNode, starts: Starts
) -> None:
    for number in range(3):
        await node.start(f"w{number}", start_request(node.url))
    await agent.close(13)
    assert [held.grace for held in starts.held.values()] == [13, 13, 13]
