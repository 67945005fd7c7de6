"""Things break while a flooded function is on its own connection: each message is accounted for, nothing is left.

What the nexlet does by itself, with nothing breaking, is in `test_floods.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from nexlet_functions.control import ControlClient, NoBid
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions import floods
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.life import Options
from tests.support.cli import environment
from tests.support.cluster import cluster
from tests.support.flooding import (
    ECHO,
    TWO,
    Ended,
    Flood,
    apart_of,
    away,
    facts,
    function_of,
    home,
    open_bench,
    watch,
)
from tests.support.inventory import fetch, nothing_left, settled_inventory
from tests.support.live import Live
from tests.support.nexlets import MONITORED, NAMESPACE, NexletBench, deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually
from tests.support.processes import descendants, none_left
from tests.support.row import row
from tests.support.turns import somebody_waits

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


async def none_of_workloads(server: EmbeddedServer) -> None:
    """Return once none of the nexlet's connections is there any more: the server may have to read yet that they end."""
    async with asyncio.timeout(5):
        while await of_workloads(server):  # noqa: ASYNC110  # each look is a request
            await asyncio.sleep(0.02)


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


@row("a function is flooded")
async def test_the_server_restarts_while_it_is_apart(server: EmbeddedServer, options: Options, tmp_path: Path) -> None:
    async with open_bench(server, options, tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        await bench.ask("flooded", b"begun")
        before = await settled_inventory(server.monitoring)
        flood = Flood(bench.client, "flooded", at_once=16, patience=1.0)
        await away(apart)
        for again in (server.restart, server.kill):
            await flood.more(100)
            await again()
            if server.pid is None:
                await server.start()
            await flood.more(100)
            assert apart.connection is not None
            assert list((await of_workloads(server)).values()).count(["flooded"]) == 1
        await flood.end()
        account(flood, ended, Counter([b"begun"]))
        await home(apart)
        await nothing_left(before, server.monitoring)


@row("a function is flooded")
@pytest.mark.parametrize("when", ["going", "apart", "coming back"])
async def test_a_server_of_a_cluster_goes_into_lame_duck_mode(options: Options, tmp_path: Path, when: str) -> None:
    """Its connections leave for the other one, whatever either is just doing, and the function with them."""
    async with cluster(2, more=MONITORED) as (leaving, staying):
        node = StandIn(staying.url, tmp_path, tells=(leaving.url,))
        await node.start()
        async with nexlet_bench(staying, node, options=options, max_own_connections=0) as bench:
            workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
            function = function_of(bench, workload)
            apart, ended = apart_of(function), watch(function)
            await bench.ask("flooded", b"begun")
            flood = Flood(bench.client, "flooded", at_once=16, patience=2.0)
            if when != "going":
                await away(apart)
            await flood.more()
            used = bench.nexlet.runner.connections_by_use["workloads"]
            assert {server_of(one) for one in used} == {leaving.url}
            leaving.signal(signal.SIGUSR2)
            if when == "apart":
                await eventually(lambda: all(one.stats().moves for one in used), what="they have moved")
            else:
                while not all(one.stats().moves for one in used if one.connected):
                    if not apart.moving:
                        if apart.connection is None:
                            apart.go(somebody_waits)
                        else:
                            apart.come_back()
                    await asyncio.sleep(0)
            await eventually(lambda: not apart.moving, what="it is where it goes")
            await flood.more()
            await flood.end()
            account(flood, ended, Counter([b"begun"]))
            if apart.connection is not None:
                await home(apart)
            assert {server_of(one) for one in bench.nexlet.runner.connections_by_use["workloads"]} == {staying.url}
            assert list((await of_workloads(staying)).values()) == [["flooded"]]
            assert (await bench.ask("flooded", b"after")).data == b"after"
        await node.stop()


def server_of(connection: Connection) -> str:
    url = connection.client.connected_url
    return f"nats://{url.netloc}" if url is not None else ""


@row("a function is flooded")
@pytest.mark.parametrize("when", ["going", "apart", "coming back"])
async def test_the_nexlet_ends(server: EmbeddedServer, options: Options, tmp_path: Path, when: str) -> None:
    """As on SIGTERM: what was delivered is answered, and the server has nothing of it any more."""
    for steps in (0, 1, 2, 8, 21) if when != "apart" else (0,):
        folder = tmp_path / str(steps)
        folder.mkdir()
        async with open_bench(server, options, folder) as bench:
            workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
            function = function_of(bench, workload)
            apart, ended = apart_of(function), watch(function)
            flood = Flood(bench.client, "flooded", patience=5.0)
            await flood.more()
            if when == "going":
                apart.go(somebody_waits)
            else:
                await away(apart)
                await flood.more()
                if when == "coming back":
                    apart.come_back()
            for _ in range(steps):
                await asyncio.sleep(0)
            await bench.nexlet.close()
            await flood.end()
            # What was delivered is answered; from then on nobody is there.
            assert set(flood.lost) <= {"NoRespondersError"}
            assert ended.ran == flood.answered
            assert not ended.others
            assert not bench.workers()
            assert not apart.moving
            assert apart.connection is None
            await none_of_workloads(server)
            assert {one.get_name() for one in asyncio.all_tasks()} & {f"move {workload}"} == set()


@row("a function is flooded")
@pytest.mark.parametrize("when", ["going", "coming back"])
async def test_it_is_stopped_while_it_moves_and_the_server_stands_still(
    server: EmbeddedServer, options: Options, tmp_path: Path, when: str
) -> None:
    """It does not wait for a server that does not answer, and nothing of it is left once that goes on."""
    options = replace(options, ping_interval=60.0)  # it is not to be noticed
    async with open_bench(server, options, tmp_path) as bench:
        await deploy(bench.control, ECHO, name="other", triggers=["other"], workers=TWO)
        await bench.ask("other", b"begun")
        before = await settled_inventory(server.monitoring)
        for steps in (1, 3, 8):
            workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
            function = function_of(bench, workload)
            apart = apart_of(function)
            await bench.ask("flooded", b"begun")
            if when == "coming back":
                await away(apart)
            agent = bench.nexlet.agent
            assert agent is not None
            if when == "going":
                apart.go(somebody_waits)
                await eventually(lambda: apart.connection is not None, what="it has one")  # noqa: B023
            else:
                apart.come_back()
            server.signal(signal.SIGSTOP)
            for _ in range(steps):
                await asyncio.sleep(0)
            stopping = asyncio.create_task(agent.stop_workload(workload, "acme"))
            await asyncio.sleep(3)
            server.signal(signal.SIGCONT)
            await stopping
            await nothing_left(before, server.monitoring)


@row("a function is flooded")
async def test_no_more_connections_than_are_allowed(
    server: EmbeddedServer, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is flooded as well stays where it is, is served there, and has its turn when another one has come back."""
    monkeypatch.setattr(floods, "FLOOD_MESSAGES", 100.0)
    monkeypatch.setattr(floods, "CALM_FOR", 0.5)
    monkeypatch.setattr(floods, "HEAVIER", 0.2)
    async with open_bench(server, options, tmp_path, most=1) as bench:
        await deploy(bench.control, ECHO, name="idle", triggers=["idle"], workers=TWO)
        await bench.ask("idle", b"begun")
        before = await settled_inventory(server.monitoring)
        names = ("first", "second", "third")
        ids = {name: await deploy(bench.control, ECHO, name=name, triggers=[name], workers=TWO) for name in names}
        aparts = {name: apart_of(function_of(bench, ids[name])) for name in names}
        ended = {name: watch(function_of(bench, ids[name])) for name in names}

        def own() -> list[str]:
            return [name for name in names if aparts[name].connection is not None]

        flooding = {"first": Flood(bench.client, "first", at_once=8)}
        flooding["beside"] = Flood(bench.client, "second", at_once=1, pause=0.02)
        await eventually(lambda: own() == ["first"], within=20, what="the first one has one")
        await flooding.pop("beside").end()
        flooding |= {name: Flood(bench.client, name, at_once=8) for name in names[1:]}
        for name in names[1:]:
            await flooding[name].more(1000)
        assert own() == ["first"]
        assert len(await of_workloads(server)) == 2
        await flooding["first"].end()
        await eventually(lambda: own() in (["second"], ["third"]), within=20, what="another one has it")
        (having,) = own()
        left = next(name for name in names[1:] if name != having)
        await bench.control.stop(ids[having])
        await eventually(lambda: own() == [left] or not own(), within=20, what="it has let go")
        await flooding[having].end()
        await flooding[left].end()
        assert set(flooding[having].lost) <= {"NoRespondersError"}
        for name in ("first", left):
            assert not flooding[name].lost
            assert flooding[name].answered <= ended[name].ran
        await eventually(lambda: not own(), within=20, what="all are back")
        for name in ("first", left):
            await bench.control.stop(ids[name])
        await nothing_left(before, server.monitoring)


@row("a function is flooded")
async def test_its_credentials_are_void_and_others_come(options: Options, tmp_path: Path) -> None:
    """Both connections are turned away, and both are there again by what the operator gives."""
    users = """authorization {{ users: [ {{user: all, password: secret}}, {{user: acme, password: {password}}} ] }}
    no_auth_user: all"""
    password = tmp_path / "password"
    password.write_text("one\n")
    rules = {"acme": {"credentials": {"user": "acme", "password_file": str(password)}}}
    config = f"{MONITORED}\n{users}"
    async with (
        EmbeddedServer(config=config.format(password="one")) as server,
        open_bench(server, options, tmp_path, namespaces=rules) as bench,
    ):
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        await bench.ask("flooded", b"begun")
        before = await settled_inventory(server.monitoring)
        flood = Flood(bench.client, "flooded", at_once=16, patience=1.0)
        await away(apart)
        await flood.more()
        server.reconfigure(config.format(password="two"))
        own = apart.connection
        assert own is not None
        await eventually(lambda: own.last_failure is not None and own.last_failure.refused, what="it is turned away")
        assert (await facts(bench, workload))["disconnected"]
        password.write_text("two\n")
        await flood.more()
        assert apart.connection is own
        assert "disconnected" not in await facts(bench, workload)
        await home(apart)
        await flood.more()
        await flood.end()
        account(flood, ended, Counter([b"begun"]))
        await nothing_left(before, server.monitoring)


# --- whole processes ----------------------------------------------------------------------------------------------


StartEasily = Callable[..., Awaitable[Live]]


@pytest.fixture
async def easily(tmp_path: Path) -> AsyncIterator[StartEasily]:
    """Starts nexlets that soon take a function for flooded; what runs at the end is killed."""
    started: list[Live] = []

    async def start(*arguments: str | Path) -> Live:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.easily_flooded", *map(str, arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        started.append(Live(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.ended()


async def is_apart(server: EmbeddedServer) -> None:
    """Return once one of the nexlets' connections has the flooded function for itself."""
    async with asyncio.timeout(30):
        while ["flooded"] not in (await of_workloads(server)).values():  # noqa: ASYNC110  # each look is a request
            await asyncio.sleep(0.05)


@pytest.mark.faults
@row("a function is flooded")
async def test_a_process_is_ended_by_sigterm(server: EmbeddedServer, easily: StartEasily, tmp_path: Path) -> None:
    node = StandIn(server.url, tmp_path)
    await node.start()
    nexlet = await easily("up", "-s", server.url, "--no-state")
    await nexlet.until_logged("registered")
    client = await nats.connect(server.url)
    ids = [await deploy_at(client, name) for name in ("flooded", "beside")]
    flood = Flood(client, "flooded", at_once=32, patience=5.0)
    beside = Flood(client, "beside", at_once=1, pause=0.01)
    await is_apart(server)
    await flood.more()
    processes = descendants(nexlet.process.pid)
    assert await nexlet.end(signal.SIGTERM) == 0, nexlet.errors
    await none_left(processes)
    await none_of_workloads(server)
    for asked, workload in ((flood, ids[0]), (beside, ids[1])):
        await asked.end()
        assert set(asked.lost) == {"NoRespondersError"}
        (said,) = (
            line for line in nexlet.errors
            if line["event"] == "function stopped" and line["workload_id"] == workload
        )  # fmt: skip
        assert said["invocations"] == asked.answered.total()
    await client.close()
    await node.stop()


@pytest.mark.faults
@row("a function is flooded")
async def test_a_new_nexlet_takes_over(server: EmbeddedServer, easily: StartEasily, tmp_path: Path) -> None:
    """Nothing is lost, and the new one gives the function a connection of its own in its turn."""
    node = StandIn(server.url, tmp_path)
    await node.start()
    arguments = ("up", "-s", server.url, "--state-dir", tmp_path / "state", "--take-over")
    nexlet = await easily(*arguments)
    await nexlet.until_logged("registered")
    client = await nats.connect(server.url)
    for name in ("flooded", "beside"):
        await deploy_at(client, name)
    flood, beside = Flood(client, "flooded", at_once=32), Flood(client, "beside", at_once=1, pause=0.01)
    for _ in range(2):
        await is_apart(server)
        await flood.more()
        former, nexlet = nexlet, await easily(*arguments)
        await nexlet.until_logged("took over")
        assert await former.ended() == 0, former.errors
    await is_apart(server)
    assert len(await of_workloads(server)) == 2
    for asked in (flood, beside):
        await asked.end()
        assert not asked.lost
        assert set(asked.answered.values()) == {1}
    assert await nexlet.end(signal.SIGTERM) == 0, nexlet.errors
    await none_of_workloads(server)
    await client.close()
    await node.stop()


async def deploy_at(client: Client, name: str) -> str:
    """As soon as a nexlet is heard of."""
    control = ControlClient(client, NAMESPACE, nodes=1)
    async with asyncio.timeout(30):
        while True:
            try:
                return await deploy(control, ECHO, name=name, triggers=[name], workers=TWO)
            except NoBid:  # its first heartbeat is on the way
                await asyncio.sleep(0.05)
