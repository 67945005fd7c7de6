"""The log of `nexfn up`: whose line it is, what stands in it, and what never does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.cli import environment
from tests.support.polling import eventually

StartLive = Callable[..., Awaitable[Any]]

CANARY = "c-a-n-a-r-y"
SOURCE = f"""
# {CANARY}
from nexlet_functions.authoring import Reject

def handler(event, context):
    print(event.text, context.env["KEY"])
    context.log.warning(event.text)
    context.metrics.count("orders", 1, of=event.text)
    if event.headers.get("How") == "reject":
        raise Reject(422, event.text)
    if event.headers.get("How") == "raise":
        raise ValueError(event.text)
    if event.headers.get("How") == "hang":
        print("hangs")
        while True:
            pass
    return event.text
"""


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection to this test's server."""
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


async def deploy(client: Client, name: str, **request: object) -> str:
    started = await ControlClient(client, "demo", nodes=1).start(
        StartWorkloadRequest(
            name=name,
            namespace="demo",
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps(request),
            tags={},
        )
    )
    return started.id


async def test_every_line_says_whose_it_is_and_none_what_was_in_a_message(
    live: StartLive, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "key").write_text(CANARY)
    async with await DevNode.start(nats_server.url) as node:
        env = environment(NEXFN_LOG_LEVEL="debug", NEXFN_SECRETS_DIR=str(tmp_path))
        up = await live("up", "-s", nats_server.url, "--no-state", env=env)
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
        made = await deploy(
            client,
            "made",
            source=SOURCE,
            triggers=["made"],
            environment={"KEY": "secret://key", "OTHER": CANARY},
            limits={"timeout": "5s"},
        )
        for how in ("answer", "reject", "raise"):
            await client.request("made", CANARY.encode(), timeout=10, headers={"How": how, "Canary": CANARY})
        # One that dies with its worker: the operator's line has the invocation's id, as the requester's event has it.
        events = await client.subscribe("$NEX.FEED.demo.events.WORKLOADTRIGGERED")
        said = await client.subscribe(f"$NEX.FEED.demo.logs.{made}.stdout")
        asked = asyncio.ensure_future(client.request("made", CANARY.encode(), timeout=10, headers={"How": "hang"}))
        while (await said.next_msg(timeout=10)).data != b"hangs":
            pass
        for worker in workers(up.process.pid):
            os.kill(worker, signal.SIGKILL)
        await asked
        event = json.loads((await events.next_msg(timeout=10)).data)
        died = await up.until_logged("worker ended with its invocation")
        assert (died["workload_id"], died["namespace"], died["name"]) == (made, "demo", "made")
        assert died["invocation_id"] == event["invocation_id"]
        with pytest.raises(Exception, match="refused"):
            await deploy(client, "broken", source=f"import {CANARY.replace('-', '')}\nx = '{CANARY}'\n")
        await ControlClient(client, "demo", nodes=1).stop(made)
        await up.until_logged("function stopped")
        assert await up.end(signal.SIGTERM) == 0

    lines: list[dict[str, Any]] = up.errors
    registered = next(number for number, line in enumerate(lines) if line["event"] == "registered")
    for number, line in enumerate(lines):
        assert CANARY not in json.dumps(line)
        assert {"event", "level", "logger", "time"} <= line.keys()
        if number >= registered:
            assert (line["agent_id"], line["node_id"]) == (lines[registered]["agent_id"], node.node_id), line
        if "workload_id" in line:
            assert line["namespace"] == "demo", line
            assert line["name"], line
    told = {line["event"] for line in lines if line.get("workload_id") == made}
    assert {"function started", "function stopped", "worker ended with its invocation"} <= told


def workers(pid: int) -> list[int]:
    """The children of the zygote of a nexlet."""
    (zygote,) = children(pid)
    return children(zygote)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_part_may_say_more_than_the_rest(live: StartLive, nats_server: EmbeddedServer) -> None:
    up = await live("up", "-s", nats_server.url, "--no-state", "--log-level", "error", "--log-levels", "natsio=info")
    await up.until_logged("connected")
    assert await up.end(signal.SIGTERM) == 0
    assert {line["logger"] for line in up.errors} == {"nexlet_functions.natsio"}
