"""Things break while a flooded function is on its own connection: each message is accounted for, nothing is left.

What the nexlet does by itself, with nothing breaking, is in `test_floods.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions import floods
from nexlet_functions.natsio.life import Options
from tests.support.flooding import ECHO, TWO, Ended, Flood, apart_of, away, facts, function_of, home, open_bench, watch
from tests.support.inventory import fetch, nothing_left, settled_inventory
from tests.support.nexlets import MONITORED, NexletBench, deploy
from tests.support.polling import eventually
from tests.support.row import row

SYSTEM = """
accounts {
    SYS { users: [{user: sys, password: sys}] }
    APP { users: [{user: app, password: app}], jetstream: enabled }
}
system_account: SYS
no_auth_user: app
"""


@pytest.fixture
def options() -> Options:
    return Options(ping_interval=0.5, connect_timeout=1.0, backoff_max=0.2, backoff_refused=0.3)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(config=f"{MONITORED}\n{SYSTEM}") as server:
        yield server


@pytest.fixture
async def system(server: EmbeddedServer) -> AsyncIterator[Client]:
    """Somebody who may have the server cut off its clients."""
    client = await nats.connect(server.url, user="sys", password="sys")
    yield client
    await client.close()


async def seen(server: EmbeddedServer) -> dict[str, Any]:
    """The server's connections."""
    found: dict[str, Any] = json.loads(await asyncio.to_thread(fetch, f"{server.monitoring}/connz?subs=1&limit=1000"))
    return found


async def of_workloads(server: EmbeddedServer) -> dict[int, list[str]]:
    """What each of the nexlet's connections for workloads subscribes to, by the server's number for it."""
    return {
        one["cid"]: sorted(one.get("subscriptions_list") or ())
        for one in (await seen(server))["connections"]
        if one.get("name") == "nexlet-workloads"
    }


async def cut_off(server: EmbeddedServer, system: Client, subject: str) -> None:
    """Have the server end the one connection that subscribes to it."""
    (cid,) = (cid for cid, subjects in (await of_workloads(server)).items() if subject in subjects)
    identity = (await seen(server))["server_id"]
    answer = await system.request(f"$SYS.REQ.SERVER.{identity}.KICK", b'{"cid": %d}' % cid, timeout=5)
    assert "error" not in json.loads(answer.data), answer.data


async def figures(bench: NexletBench) -> Counter[tuple[str, ...]]:
    """What the nexlet has counted, by metric and the values of its labels."""
    text = await asyncio.to_thread(fetch, f"http://{bench.metrics}/metrics")
    return Counter(
        {
            (sample.name, *sample.labels.values()): int(sample.value)
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    )


def account(flood: Flood, ended: Ended, others: Counter[bytes]) -> None:
    """Nothing ran twice, what was answered ran, and no more was lost than did not run or was on its way back."""
    assert set(ended.ran.values()) == {1}
    assert set(flood.answered.values()) == {1}
    assert flood.answered + others <= ended.ran
    assert flood.answered.total() + flood.lost.total() == flood.asked
    assert set(flood.lost) <= {"TimeoutError", "NoRespondersError"}
    assert not ended.others


@row("a function is flooded")
async def test_its_own_connection_alone_is_cut_off(
    server: EmbeddedServer, system: Client, options: Options, tmp_path: Path
) -> None:
    """It is served again at once; what the server had sent to it is run, and its neighbour notices nothing."""
    async with open_bench(server, options, tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        await deploy(bench.control, ECHO, name="beside", triggers=["beside"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        for subject in ("flooded", "beside"):
            await bench.ask(subject, b"begun")
        before, counted = await settled_inventory(server.monitoring), await figures(bench)
        flood = Flood(bench.client, "flooded", at_once=16, patience=1.0)
        beside = Flood(bench.client, "beside", at_once=1, pause=0.01)
        await away(apart)
        for _ in range(3):
            await flood.more()
            assert apart.connection is not None
            connects = apart.connection.stats().connects
            await cut_off(server, system, "flooded")
            await eventually(lambda: apart.connection is None or apart.connection.stats().connects > connects)  # noqa: B023
            await flood.more()
            await beside.more(20)
            if apart.connection is None:
                await away(apart)
        await flood.end()
        await beside.end()
        account(flood, ended, Counter([b"begun"]))
        assert not beside.lost
        now = await figures(bench)
        await home(apart)
        await nothing_left(before, server.monitoring)
        later = await figures(bench)
        assert not now - later, "what was counted of a connection that is gone stays counted"
        now -= counted
        assert now["nexlet_invocations_total", "ok"] == ended.ran.total() - 1 + beside.answered.total()
        assert now["nexlet_reconnections_total", "workloads"] == 3


@row("a function is flooded")
async def test_what_is_counted_of_a_connection_stays_where_nobody_looked_meanwhile(
    server: EmbeddedServer, options: Options, tmp_path: Path
) -> None:
    async with open_bench(server, options, tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        apart = apart_of(function_of(bench, workload))
        flood = Flood(bench.client, "flooded")
        await flood.more()
        counted, answered = await figures(bench), flood.answered.total()
        await away(apart)
        await flood.more(1000)
        await home(apart)
        await flood.end()
        now = await figures(bench) - counted
        # An answer and an event each; some were answered between the two looks.
        assert now["nexlet_messages_published_total", "workloads"] >= 2 * (flood.answered.total() - answered - 64)


@row("a function is flooded")
async def test_its_own_connection_is_cut_off_and_cannot_be_had_again(
    server: EmbeddedServer, system: Client, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared one is there: it comes back to that, well before its flood would be taken for over."""
    monkeypatch.setattr(floods, "FLOOD_MESSAGES", 200.0)
    async with open_bench(server, options, tmp_path, most=1) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        await deploy(bench.control, ECHO, name="beside", triggers=["beside"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended, pool = apart_of(function), watch(function), function.pool
        assert pool is not None
        for subject in ("flooded", "beside"):
            await bench.ask(subject, b"begun")
        before = await settled_inventory(server.monitoring)
        flood = Flood(bench.client, "flooded", at_once=16, patience=1.0)
        beside = Flood(bench.client, "beside", at_once=1, pause=0.01)
        await eventually(lambda: apart.connection is not None and not apart.moving, within=30, what="it is apart")
        await flood.more()
        async with no_more_connections(server, beyond=1):
            slow = asyncio.create_task(bench.ask("flooded", b"sleep"))
            await eventually(lambda: any(call.payload == b"sleep" for call in pool.calls()), what="it runs")
            await cut_off(server, system, "flooded")
            began = asyncio.get_running_loop().time()
            await eventually(lambda: "disconnected" in (function.summary().metadata or {}), what="that is said")
            await flood.more()
            took = asyncio.get_running_loop().time() - began
            assert (await slow).data == b"sleep", "what it still ran is answered over the other one"
            assert apart.connection is None
        await flood.end()
        await beside.end()
        account(flood, ended, Counter([b"begun", b"sleep"]))
        assert not beside.lost
        assert not {"connection", "disconnected"} & set(await facts(bench, workload))
        await nothing_left(before, server.monitoring)
    assert took < 3


@contextlib.asynccontextmanager
async def no_more_connections(server: EmbeddedServer, *, beyond: int) -> AsyncIterator[None]:
    """The server takes no more clients: whoever is cut off finds its place taken by one that waits for it."""
    there = len((await seen(server))["connections"])
    config = f"{MONITORED}\n{SYSTEM}"
    reloaded = server.log_file.read_bytes().count(b"Reloaded: max_connections")
    server.reconfigure(f"{config}\nmax_connections: {there}")
    await eventually(
        lambda: server.log_file.read_bytes().count(b"Reloaded: max_connections") > reloaded, what="reloaded"
    )
    taken: list[asyncio.StreamWriter] = []
    port = int(server.url.rpartition(":")[2])

    async def wait_for_a_place() -> None:
        while len(taken) < beyond:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            try:
                await reader.readuntil(b"PONG\r\n")
                taken.append(writer)
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
                await asyncio.sleep(0.002)

    waiting = [asyncio.create_task(wait_for_a_place()) for _ in range(4)]
    try:
        yield
        assert taken, "nobody took the place"
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for writer in taken:
            writer.close()
        server.reconfigure(f"{config}\nmax_connections: 1000")
