"""The real `nex` command, against the stand-in and against a real node: what a person types, and what they read."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.nodes import NO_NEX, Node, find_nex
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent

pytestmark = pytest.mark.skipif(find_nex() is None, reason=NO_NEX)

NEXFILE = """\
name: fn
type: inmem
lifecycle: function
description: a function
start_request:
  x: 1
  source: |
    def handler(event, context):
        return "hello"
"""


class Nex:
    """The command, in a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """What it prints."""
        binary = find_nex()
        assert binary is not None
        process = await asyncio.create_subprocess_exec(
            binary, *arguments, "--disable-upgrade-check", "--nats.servers", self._url,
            cwd=self._folder, env={"HOME": str(self._folder), "PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return said.decode()


@pytest.fixture
def nex(nats_server: EmbeddedServer, tmp_path: Path) -> Nex:
    return Nex(nats_server.url, tmp_path)


@pytest.fixture
async def agent(node: Node, nats_server: EmbeddedServer) -> AsyncIterator[ScriptedAgent]:
    schema = json.dumps({"type": "object", "required": ["x"]})
    async with await ScriptedAgent.register(nats_server.url, schema=schema) as registered:
        yield registered


async def test_nodes(agent: ScriptedAgent, node: Node, nex: Nex) -> None:
    [listed] = json.loads(await nex("node", "ls", "--json"))
    assert listed["node_id"] == node.node_id
    assert listed["agent_count"] == 1
    assert node.node_id in await nex("node", "ls")
    info = json.loads(await nex("node", "info", node.node_id, "--json"))
    assert info["node_agent_summaries"][0]["agent_health"] == "healthy"
    shown = await nex("node", "info", node.node_id, "--full")
    assert agent.agent_id in shown
    assert "healthy" in shown
    assert "node not found" in await nex("node", "info", "N" + "A" * 55)


async def test_a_workload_from_start_to_stop(agent: ScriptedAgent, nex: Nex) -> None:
    said = await nex("workload", "start", "-f", "/dev/stdin", "--namespace", "acme", stdin=NEXFILE)
    [workload_id] = agent.workloads
    assert said == f"Workload fn [{workload_id}] successfully started\n"
    request = agent.workloads[workload_id].request
    assert (request.namespace, request.name, request.description) == ("acme", "fn", "a function")
    assert json.loads(request.run_request)["source"].startswith("def handler")

    [[listed]] = json.loads(await nex("workload", "ls", "--namespace", "acme", "--json"))
    assert listed["id"] == workload_id
    assert workload_id in await nex("workload", "ls", "--show-metadata")
    assert "No workloads found" in await nex("workload", "ls", "--namespace", "other")

    said = await nex("workload", "clone", workload_id, "--namespace", "acme")
    clone = next(iter(agent.workloads.keys() - {workload_id}))
    assert said == f"Workload fn [{clone}] successfully started\n"

    said = await nex("workload", "stop", workload_id, "--namespace", "acme")
    assert said == f"Workload {workload_id} successfully stopped\n"
    assert set(agent.workloads) == {clone}
    await nex("workload", "stop", clone)  # from namespace system, which finds out whose it is
    assert not agent.workloads


async def test_refusals(agent: ScriptedAgent, nex: Nex) -> None:
    start = ["workload", "start", "--namespace", "acme", "--type", "inmem", "--name", "fn", "--lifecycle", "function"]
    said = await nex(*start, "--start-request", "{}")
    assert "missing property 'x'" in said

    def refuse(asked: Asked) -> Answer:
        body = {
            "id": asked.workload,
            "name": "fn",
            "error": "fn refused: 1 problem\n  function.py:1:1  no",
            "error_id": "",
        }
        headers = {"Nats-Service-Error": "fn refused: 1 problem", "Nats-Service-Error-Code": "400"}
        return Answer(json.dumps(body).encode(), headers)

    agent.script("STARTWORKLOAD", refuse)
    said = await nex(*start, "--start-request", '{"x":1}')
    assert said == "error: fn refused: 1 problem\n  function.py:1:1  no\n"


async def test_lameduck(agent: ScriptedAgent, node: Node, nex: Nex) -> None:
    said = await nex("node", "lameduck", node.node_id, "--delay", "1s")
    assert "successfully commanded into lame duck mode" in said
    await agent.wait_asked("SETLAMEDUCK")
    await asyncio.wait_for(node.wait_ended(), 15)
