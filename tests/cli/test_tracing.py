"""`nexfn up --tracing` as a process, with the exporter that the standard variables name."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import nats

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.cli import environment, nexfn, start_nexfn
from tests.support.polling import eventually

StartLive = Callable[..., Awaitable[Any]]


async def invoke(url: str) -> None:
    """Deploy a function, and have one answer of it."""
    client = await nats.connect(url)
    source = "def handler(event, context):\n    return event.text\n"
    await ControlClient(client, "demo", nodes=1).start(
        StartWorkloadRequest(
            name="made",
            namespace="demo",
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps({"source": source, "triggers": ["made"]}),
            tags={},
        )
    )
    assert (await client.request("made", b"x", timeout=10)).data == b"x"
    await client.close()


async def test_spans_go_where_the_variables_say_at_the_latest_at_its_end(nats_server: EmbeddedServer) -> None:
    env = environment(OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="ours", NEXFN_TRACING="true")
    async with await DevNode.start(nats_server.url) as node:
        up = await start_nexfn("up", "-s", nats_server.url, "--no-state", env=env)
        try:
            await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
            await invoke(nats_server.url)
            up.send_signal(signal.SIGTERM)
        except BaseException:
            up.kill()
            raise
        finally:
            out, errors = await up.communicate()
    assert up.returncode == 0, errors.decode()
    span = json.loads(out)
    assert (span["name"], span["attributes"]["nex.outcome"]) == ("process made", "ok")
    assert span["resource"]["attributes"]["service.name"] == "ours"


async def test_an_exporter_that_is_not_there_ends_it_at_once() -> None:
    ended = await nexfn("up", "--no-state", "--tracing", env=environment(OTEL_TRACES_EXPORTER="nowhere"))
    assert ended.code == 2
    assert "install 'nexlet-functions[otel]'" in ended.error["message"]


async def test_a_collector_that_is_gone_holds_nobody_up(live: StartLive, nats_server: EmbeddedServer) -> None:
    env = environment(NEXFN_TRACING="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    async with await DevNode.start(nats_server.url) as node:
        up = await live("up", "-s", nats_server.url, "--no-state", env=env)
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
        await invoke(nats_server.url)
        assert await up.end(signal.SIGTERM) == 0
    await up.until_logged("stopped")
