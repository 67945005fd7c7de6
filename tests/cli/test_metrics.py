"""`nexfn up --metrics` as a process: what Prometheus and an orchestrator read there, as a nexlet lives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.observing.catalog import CATALOG, FUNCTION_LABELS, Kind
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.cli import environment, nexfn
from tests.support.polling import eventually

_ORDER = [
    *FUNCTION_LABELS,
    "use",
    *dict.fromkeys(label for metric in CATALOG.values() for label in metric.labels),
    "le",
]
StartLive = Callable[..., Awaitable[Any]]

SOURCE = """
from nexlet_functions.authoring import Reject

def handler(event, context):
    match event.text:
        case "no":
            raise Reject(422, "no")
        case "bad":
            raise ValueError(event.text)
        case "hang":
            while True:
                pass
    print("x" * 2000)
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
            run_request=json.dumps({"source": SOURCE, **request}),
            tags={},
        )
    )
    return started.id


async def get(address: str, path: str, *headers: str) -> tuple[int, bytes]:
    """Status and body of a page."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", f"Host: {address}", *headers, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def scrape(address: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in their order."""
    status, body = await get(address, "/metrics")
    assert status == 200
    return {
        (
            sample.name,
            *(value for _, value in sorted(sample.labels.items(), key=lambda label: _ORDER.index(label[0]))),
        ): (sample.value)
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def holds(look: Callable[[], Awaitable[bool]]) -> None:
    """Return once it does. Each look is a request."""
    async with asyncio.timeout(30):
        while not await look():  # noqa: ASYNC110  # as it says
            await asyncio.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def ready(address: str) -> dict[str, Any]:
    status, body = await get(address, "/readyz")
    answer: dict[str, Any] = json.loads(body)
    assert status == (200 if answer["ready"] else 503)
    return answer


async def test_what_is_counted_is_what_happened(live: StartLive, client: Client, nats_server: EmbeddedServer) -> None:
    async with await DevNode.start(nats_server.url) as node:
        up = await live("up", "-s", nats_server.url, "--no-state", "--metrics", "127.0.0.1:0")
        address = (await up.until_logged("metrics and health are served"))["address"]
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
        limits = {"timeout": "300ms", "log_rate": "1KiB"}
        made = await deploy(client, "made", triggers=["made"], limits=limits, workers={"max": 1})
        for text in ("yes", "yes", "no", "bad", "hang"):
            await client.request("made", text.encode(), timeout=10)
        await client.publish("made", b"yes", reply="$JS.API.INFO")
        with pytest.raises(Exception, match="refused"):
            await deploy(client, "broken", source="import os\n")

        async def all_ran() -> bool:
            return (await scrape(address))["nexlet_function_invocations_total", "demo", "made", "ok"] == 3

        await holds(all_ran)
        now = await scrape(address)
        for outcome, count in {"ok": 3, "rejected_by_function": 1, "error": 1, "timeout": 1, "crash": 0}.items():
            assert now["nexlet_function_invocations_total", "demo", "made", outcome] == count
            assert now["nexlet_invocations_total", outcome] == count
        for spread in ("duration_seconds", "queue_seconds"):
            assert now[f"nexlet_function_{spread}_count", "demo", "made"] == 6
            assert now[f"nexlet_function_{spread}_bucket", "demo", "made", "+Inf"] == 6
        assert now["nexlet_function_duration_seconds_sum", "demo", "made"] >= 0.3, "one ran to its deadline"
        assert now["nexlet_function_duration_seconds_bucket", "demo", "made", "0.262144"] <= 5
        assert now["nexlet_worker_deaths_total", "timeout"] == 1
        assert now["nexlet_function_worker_deaths_total", "demo", "made", "timeout"] == 1
        assert now["nexlet_deadline_lateness_seconds_count",] == 1
        assert now["nexlet_function_cold_starts_total", "demo", "made"] == 2
        assert now["nexlet_cold_start_seconds_count",] == 2
        assert now["nexlet_function_replies_withheld_total", "demo", "made"] == 1
        assert now["nexlet_function_log_lines_dropped_total", "demo", "made"] >= 1
        assert now["nexlet_function_workers", "demo", "made", "idle"] == 1
        assert now["nexlet_functions", "running"] == 1
        assert now["nexlet_function_starts_total", "started"] == 1
        assert now["nexlet_function_starts_total", "refused"] == 1
        assert (now["nexlet_ready",], now["nexlet_registrations_total",]) == (1, 1)
        assert now["nexlet_phase", "running"] == 1
        assert now["nexlet_connections", "agent", "connected"] == 1
        assert now["process_open_fds",] > 0
        assert now["process_resident_memory_bytes",] > 0

        # A function that goes takes its series along; what all functions did stays counted.
        await ControlClient(client, "demo", nodes=1).stop(made)

        async def gone() -> bool:
            return not any("made" in sample for sample in await scrape(address))

        await holds(gone)
        after = await scrape(address)
        assert after["nexlet_invocations_total", "ok"] == 3
        assert after["nexlet_worker_deaths_total", "timeout"] == 1
        assert after["nexlet_cold_start_seconds_count",] == 2
        assert await up.end(signal.SIGTERM) == 0


OF_OTHERS = {"nexlet_function_schedule_runs", "nexlet_function_stream_messages", "nexlet_function_calls"}
"""Told of functions alone that have such triggers, or grants: see `tests/functions/test_schedules.py`, `tests/streams`
and `tests/grants`."""


async def test_every_metric_is_in_the_catalog_and_the_other_way_round(
    live: StartLive, client: Client, nats_server: EmbeddedServer
) -> None:
    async with await DevNode.start(nats_server.url) as node:
        up = await live("up", "-s", nats_server.url, "--no-state", "--metrics", "0", env=environment())
        address = (await up.until_logged("metrics and health are served"))["address"]
        assert address.startswith("127.0.0.1:")
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
        await deploy(client, "made", triggers=["made"], limits={"timeout": "100ms"})
        await client.request("made", b"hang", timeout=10)
        _, body = await get(address, "/metrics")
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        named = {metric.name.removesuffix("_total"): metric for metric in CATALOG.values()}
        assert {name for name in families if not name.startswith("process_")} == set(named)
        for name, metric in named.items():
            family = families[name]
            assert (family.type, family.documentation) == (metric.kind.value, metric.help)
            assert family.samples or name in OF_OTHERS, f"{name} was never told"
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.labels)
        kinds = {metric.kind for metric in CATALOG.values()}
        assert kinds == set(Kind)
        _, openmetrics = await get(address, "/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        assert openmetrics.endswith(b"# EOF\n")
        assert await up.end(signal.SIGTERM) == 0


async def test_it_is_ready_when_a_node_can_reach_it_and_says_what_is_missing(
    live: StartLive, client: Client, nats_server: EmbeddedServer
) -> None:
    up = await live("up", "-s", nats_server.url, "--no-state", "--metrics", "127.0.0.1:0")
    address = (await up.until_logged("metrics and health are served"))["address"]
    assert (await get(address, "/healthz"))[0] == 200
    await up.until_logged("connected")
    told = await ready(address)
    assert (told["ready"], told["reasons"]) == (False, ["no node has taken it in yet"])

    async def comes(wanted: bool) -> dict[str, Any]:
        async def look() -> bool:
            return (await ready(address))["ready"] is wanted

        await holds(look)
        return await ready(address)

    async with await DevNode.start(nats_server.url) as node:
        told = await comes(True)
        assert told["node_id"] == node.node_id
        assert told["agent_id"]
        await nats_server.kill()
        told = await comes(False)
        assert all("connection" in reason for reason in told["reasons"])
        assert (await get(address, "/healthz"))[0] == 200, "nothing that a restart would mend"
        await nats_server.start()
        await comes(True)
        now = await scrape(address)
        assert now["nexlet_reconnections_total", "agent"] >= 1

        # Nobody can make workers until there is another zygote.
        (zygote,) = children(up.process.pid)
        os.kill(zygote, signal.SIGKILL)

        async def restarted() -> bool:
            return (await scrape(address))["nexlet_zygote_restarts_total",] == 1

        await holds(restarted)
        await comes(True)
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")

        await ControlClient(client, "system", nodes=1).lameduck(node.node_id, delay=60)
        told = await comes(False)
        assert told["reasons"] == ["it is on its way out: lameduck"]
        assert (await get(address, "/healthz"))[0] == 200
        assert await up.end(signal.SIGTERM) == 0


async def test_no_client_of_the_port_keeps_messages_waiting(
    live: StartLive, client: Client, nats_server: EmbeddedServer
) -> None:
    async with await DevNode.start(nats_server.url) as node:
        up = await live("up", "-s", nats_server.url, "--no-state", "--metrics", "127.0.0.1:0")
        address = (await up.until_logged("metrics and health are served"))["address"]
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="registered")
        await deploy(client, "made", triggers=["made"])
        host, _, port = address.rpartition(":")
        crowd = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
        for number, (_, writer) in enumerate(crowd):
            writer.write([b"GET /met", b"\x00" * 60_000, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b""][number % 4])
        assert (await client.request("made", b"yes", timeout=10)).data == b"yes"
        assert (await get(address, "/healthz"))[0] == 200
        for _, writer in crowd:
            writer.transport.abort()
        assert await up.end(signal.SIGTERM) == 0
        assert not [line for line in up.errors if line["level"] == "error"]


async def test_without_the_flag_nothing_listens_and_a_taken_port_ends_it_at_once(
    live: StartLive, nats_server: EmbeddedServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await nexfn("up", "-s", nats_server.url, "--no-state", "--metrics", f":{port}", env=environment())
        assert ended.code == 2
        assert f"metrics cannot be served at 127.0.0.1:{port}: Address already in use" in ended.error["message"]
    ended = await nexfn("up", "--no-state", "--metrics", "some.host:80", env=environment())
    assert ended.code == 2
    assert "--metrics" in ended.err
    up = await live("up", "-s", nats_server.url, "--no-state")
    await up.until_logged("nexlet starts")
    listening = await asyncio.create_subprocess_exec(
        "cat", f"/proc/{up.process.pid}/net/tcp", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await listening.communicate()
    inodes = {line.split()[9] for line in out.decode().splitlines()[1:] if line.split()[3] == "0A"}
    folder = f"/proc/{up.process.pid}/fd"
    held = {os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    assert not {f"socket:[{inode}]" for inode in inodes} & held
    assert await up.end(signal.SIGTERM) == 0
