"""A flooded function moves to a connection of its own and back: nothing is lost or run twice, whatever happens.

What counts is what the nexlet's pool was given and what came back: each message has a text of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions import floods
from nexlet_functions.functions.function import Function
from nexlet_functions.natsio.life import Options
from tests.support.flooding import (
    ECHO,
    TWO,
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
from tests.support.nexlets import MONITORED, deploy
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.turns import somebody_waits


@pytest.fixture
def options() -> Options:
    return Options(ping_interval=0.5, connect_timeout=1.0, backoff_max=0.2, backoff_refused=0.3)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(config=MONITORED) as server:
        yield server


@row("a function is flooded")
@pytest.mark.parametrize("public_only", [False, True])
async def test_to_and_fro_while_it_is_flooded(
    server: EmbeddedServer, options: Options, tmp_path: Path, public_only: bool
) -> None:
    async with open_bench(server, replace(options, public_only=public_only), tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded.*", "other"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        await bench.ask("flooded.1", b"begun")
        before = await settled_inventory(server.monitoring)
        flood = Flood(bench.client, "flooded.2")
        for _ in range(4):
            await flood.more()
            await away(apart)
            await flood.more()
            assert (await facts(bench, workload))["connection"] == "its own, while it is flooded"
            await home(apart)
        await flood.end()
        assert "connection" not in await facts(bench, workload)
        assert not flood.lost
        assert set(flood.answered.values()) == {1}
        assert ended.ran == flood.answered + Counter([b"begun"])
        assert not ended.others
        counts = function.counts
        assert counts is not None
        assert (counts.replies_dropped, counts.events_dropped) == (0, 0)
        events = bench.events(workload)
        await eventually(lambda: len(bench.events(workload)) == ended.ran.total(), what="an event for each")
        assert len({event["invocation_id"] for event in events}) == len(events)
        await nothing_left(before, server.monitoring)


@row("a function is flooded")
async def test_answers_go_where_their_messages_came_from(options: Options, tmp_path: Path) -> None:
    """A server may permit an answer only to the connection that had the message; one may not have a queue group."""
    users = """authorization { users: [
        {user: all, password: secret}
        {user: acme, password: own, permissions: {
            publish: {allow: ["$NEX.FEED.acme.>"]}, subscribe: {allow: ["flooded", "every"]},
            allow_responses: {max: 1, expires: "1m"}
        }}
    ] }
    no_auth_user: all"""
    (tmp_path / "password").write_text("own\n")
    rules = {"acme": {"credentials": {"user": "acme", "password_file": str(tmp_path / "password")}}}
    async with (
        EmbeddedServer(config=f"{MONITORED}\n{users}") as server,
        open_bench(server, options, tmp_path, namespaces=rules) as bench,
    ):
        workload = await deploy(
            bench.control,
            ECHO,
            name="flooded",
            workers=TWO,
            triggers=["flooded", {"subject": "every", "queue_group": ""}],
        )
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        by_group, to_every = Flood(bench.client, "flooded"), Flood(bench.client, "every", at_once=4)
        for _ in range(3):
            # What runs for a while is answered after the move.
            slow = asyncio.create_task(bench.ask("flooded", b"sleep"))
            await eventually(lambda: _begun(function), what="it runs")
            await away(apart)
            assert (await slow).data == b"sleep"
            for flood in (by_group, to_every):
                await flood.more(100)
            slow = asyncio.create_task(bench.ask("flooded", b"sleep"))
            await eventually(lambda: _begun(function), what="it runs")
            await home(apart)
            assert (await slow).data == b"sleep"
            for flood in (by_group, to_every):
                await flood.more(100)
        for flood in (by_group, to_every):
            await flood.end()
            assert not flood.lost
            assert set(flood.answered.values()) == {1}
        assert ended.ran.total() == by_group.answered.total() + to_every.answered.total() + 6
        assert all(one.stats().publish_violations == 0 for one in bench.nexlet.runner.connections)


def _begun(function: Function) -> bool:
    assert function.pool is not None
    return any(call.payload == b"sleep" for call in function.pool.calls())


@row("a function is flooded")
async def test_the_server_restarts_while_it_moves(server: EmbeddedServer, options: Options, tmp_path: Path) -> None:
    async with open_bench(server, options, tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        function = function_of(bench, workload)
        apart, ended = apart_of(function), watch(function)
        await bench.ask("flooded", b"begun")
        before = await settled_inventory(server.monitoring)
        flood = Flood(bench.client, "flooded", at_once=16, patience=0.5)
        for go, there in ((partial(apart.go, somebody_waits), True), (apart.come_back, False)) * 2:
            await flood.more(100)
            go()
            await server.restart()
            await eventually(lambda: not apart.moving, within=30, what="it has moved, or not")
            if (apart.connection is not None) is not there:  # it could not: everything is as it was
                await flood.more(50)
                go()
                await eventually(
                    lambda: (apart.connection is not None) is there and not apart.moving,  # noqa: B023
                    within=30,
                    what="it has moved",
                )
        await flood.more(100)
        await flood.end()
        assert set(ended.ran.values()) == {1}  # what the server took with it was lost, and nothing came twice
        assert flood.answered <= ended.ran
        assert set(flood.answered.values()) == {1}
        assert not ended.others
        await nothing_left(before, server.monitoring)


@row("a function is flooded")
@pytest.mark.parametrize("when", ["going", "apart", "coming back"])
async def test_stopped_while_it_is_flooded(server: EmbeddedServer, options: Options, tmp_path: Path, when: str) -> None:
    """What a clone beside it does not take is answered, and nothing is left of it."""
    async with open_bench(server, options, tmp_path) as bench:
        kept = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        await bench.ask("flooded", b"begun")
        before = await settled_inventory(server.monitoring)
        for _ in range(3):
            workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
            functions = [function_of(bench, one) for one in (kept, workload)]
            ended, apart = [watch(one) for one in functions], apart_of(functions[1])
            flood = Flood(bench.client, "flooded")
            await flood.more()
            if when == "going":
                apart.go(somebody_waits)
                await asyncio.sleep(0)
            else:
                await away(apart)
                await flood.more()
                if when == "coming back":
                    apart.come_back()
                    await asyncio.sleep(0)
            await bench.control.stop(workload)
            await flood.more()
            await flood.end()
            assert not flood.lost
            assert set(flood.answered.values()) == {1}
            assert ended[0].ran + ended[1].ran == flood.answered
            assert not ended[0].others + ended[1].others
            await nothing_left(before, server.monitoring)


@row("a function is flooded")
async def test_where_there_is_no_connection_for_it_nothing_changes(
    server: EmbeddedServer, options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_bench(server, options, tmp_path) as bench:
        workload = await deploy(bench.control, ECHO, name="flooded", triggers=["flooded"], workers=TWO)
        apart = apart_of(function_of(bench, workload))
        await bench.ask("flooded", b"begun")
        before = await settled_inventory(server.monitoring)
        there = json.loads(await asyncio.to_thread(fetch, f"{server.monitoring}/varz"))["connections"]
        server.reconfigure(f"{MONITORED}\nmax_connections: {there}")
        await eventually(lambda: b"Reloaded: max_connections" in server.log_file.read_bytes(), what="reloaded")
        flood = Flood(bench.client, "flooded")
        for _ in range(2):
            apart.go(somebody_waits)
            await eventually(lambda: not apart.moving, within=30, what="it was given up")
            assert apart.connection is None
            assert apart.trouble
            await flood.more()
        warned = [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
        assert len([line for line in warned if "no connection of its own for a flooded function" in line]) == 1
        assert not any("cannot connect" in line for line in warned), "it is said once"
        server.reconfigure(f"{MONITORED}\nmax_connections: 1000")
        await eventually(lambda: server.log_file.read_bytes().count(b"Reloaded: max_connections") == 2, what="reloaded")
        await away(apart)
        assert not apart.trouble
        await flood.more()
        await home(apart)
        await flood.end()
        assert not flood.lost
        await nothing_left(before, server.monitoring)


@row("a function is flooded")
async def test_what_is_flooded_moves_by_itself(
    server: EmbeddedServer, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a neighbour; not what has its messages in order, or every message for itself."""
    monkeypatch.setattr(floods, "FLOOD_MESSAGES", 200.0)
    monkeypatch.setattr(floods, "CALM_FOR", 0.5)
    async with open_bench(server, options, tmp_path, most=1) as bench:
        plain = await deploy(bench.control, ECHO, name="plain", triggers=["plain"], workers=TWO)
        ordered = await deploy(bench.control, ECHO, name="ordered", triggers=["ordered"], workers={"max": 1})
        every = await deploy(
            bench.control, ECHO, name="every", triggers=[{"subject": "every", "queue_group": ""}], workers=TWO
        )
        functions = {name: apart_of(function_of(bench, name)) for name in (plain, ordered, every)}
        for subject in ("plain", "ordered", "every"):
            await bench.ask(subject, b"begun")
        before = await settled_inventory(server.monitoring)
        for subject, workload in (("ordered", ordered), ("every", every)):
            flood = Flood(bench.client, subject)
            await flood.more(1500)
            await flood.end()
            assert not functions[workload].movable
            assert functions[workload].connection is None
        flood, beside = Flood(bench.client, "plain"), Flood(bench.client, "ordered", at_once=1)
        await eventually(lambda: functions[plain].connection is not None, within=30, what="it is apart")
        await flood.more()
        for one in (flood, beside):
            await one.end()
        assert not beside.lost
        await eventually(lambda: functions[plain].connection is None, within=30, what="it is back")
        assert (await bench.ask("plain", b"back")).data == b"back"
        assert not flood.lost
        await nothing_left(before, server.monitoring)
