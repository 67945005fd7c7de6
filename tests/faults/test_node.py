"""What a node may do to its nexlet: restart, forget, come back as another, stay away, refuse, say nothing, end.

All the while requests come to a workload, one after another, and each is answered: nothing that a node does touches
what runs. The node is the stand-in and, where there is a `nex`, a real one; where it has to be odd in a way that
neither is, a scripted one. What a node's absence of minutes does, settings make happen in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from nexlet_functions.control import ControlClient, ControlRefused, NoBid
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.runner import LocalRegistration, Phase, RunnerSettings
from nexlet_models import subjects
from nexlet_models.workloads import StartWorkloadRequest, StopWorkloadRequest, StopWorkloadResponse, WorkloadState
from tests.support.load import Load
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.running import QUICK, Running, run
from tests.support.scripted_node import NODE, ScriptedNode, connection_data
from tests.support.shouting import Shouting, scripted_start, shout

MakeNode = Callable[..., Node]


def settings(**changes: Any) -> RunnerSettings:
    return replace(QUICK, **changes)


@pytest.fixture(params=["stand-in", "real"])
def make_node(request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path) -> MakeNode:
    """Makes nodes of one make, each with an identity of its own."""
    made: list[Node] = []

    def make(**arguments: Any) -> Node:
        folder = tmp_path / f"node-{len(made)}"
        folder.mkdir()
        if request.param == "stand-in":
            made.append(StandIn(nats_server.url, folder, **arguments))
        else:
            binary = find_nex()
            if binary is None:
                pytest.skip(NO_NEX)
            made.append(RealNode(binary, nats_server.url, folder, **arguments))
        return made[-1]

    return make


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()


@pytest.fixture
def control(client: Client) -> ControlClient:
    return ControlClient(client, "acme", nodes=1)


@pytest.fixture
async def scripted(nats_server: EmbeddedServer) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode.on(nats_server.url) as node:
        yield node


async def deployed(control: ControlClient, subject: str = "a.one") -> str:
    """Started, as soon as the node thinks that it may."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await shout(control, subject)
            except (NoBid, ControlRefused):  # its first heartbeat is on the way
                await asyncio.sleep(0.02)


async def listed(control: ControlClient) -> list[str]:
    """What runs: a line each, also where two nexlets have the same one."""
    starting = WorkloadState.STARTING
    return sorted(one.id for one in await control.workloads() if one.workload_state is not starting)


def shouting(running: Running) -> Shouting:
    agent = running.runner.agent
    assert isinstance(agent, Shouting)
    return agent


async def reaches(count: Callable[[], int], wanted: int) -> None:
    await eventually(lambda: count() >= wanted, what=f"{wanted} times")


class Said:
    """What the log has said; a line is looked for in all of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def count(self, words: str) -> int:
        self._text += self._capsys.readouterr().out
        return self._text.count(words)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


# --- it restarts ----------------------------------------------------------------------------------------------------


@pytest.mark.faults  # it waits twice for a node to come up
@pytest.mark.parametrize("keeps", [True, False], ids=["with state", "without"])
@row("the node restarts, the nexlet lives")
async def test_a_node_that_restarts(
    make_node: MakeNode, control: ControlClient, nats_server: EmbeddedServer, keeps: bool
) -> None:
    node = make_node(keeps=keeps)
    await node.start()
    async with run(nats_server.url, agent=Shouting) as running:
        workload = await deployed(control)
        agent_id = running.runner.agent_id
        async with Load(nats_server.url, "a.one") as load:
            for times in (2, 3):
                await load.more()
                await node.stop()
                await load.more()
                await node.start()
                await reaches(lambda: running.runner.registrations, times)
                await load.more()
                assert running.runner.agent_id == agent_id
                assert await listed(control) == [workload]
            # It takes new work by the node that came back, and stops by it what came by the one before.
            other = await deployed(control, "a.two")
            assert await listed(control) == sorted([workload, other])
        assert (await control.stop(workload)).stopped
        assert await listed(control) == [other]


@pytest.mark.faults  # and here for two of them
@row("the node stays away, or another stands in its place")
async def test_a_node_in_the_place_of_another(
    make_node: MakeNode, control: ControlClient, nats_server: EmbeddedServer
) -> None:
    first, second = make_node(), make_node()
    await first.start()
    async with run(nats_server.url, agent=Shouting) as running:
        workload = await deployed(control)
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            await first.stop()
            await load.more()
            await second.start()
            await eventually(lambda: running.runner.node_id == second.node_id, what="registered with the second")
            await load.more()
            assert await listed(control) == [workload]
        assert (await control.stop(workload)).stopped
        assert await listed(control) == []


@row("the node stays away, or another stands in its place")
async def test_a_node_that_is_away_for_long_and_comes_back_without_a_word(
    nats_server: EmbeddedServer, said: Said
) -> None:
    """As one does that emits no events: it is found by looking for one again and again."""
    quick = settings(node_silence=0.3)
    async with run(nats_server.url, agent=Shouting, settings=quick) as running:
        async with ScriptedNode.on(nats_server.url) as node:
            former = await node.registered()
            await node.start("w1", scripted_start(node, "a.one"))
        async with Load(nats_server.url, "a.one") as load:
            await eventually(lambda: said.count("the node is silent; serving on and looking for one") == 1)
            await eventually(lambda: said.count("registering anew failed") >= 3)
            await load.more()
            async with ScriptedNode.on(nats_server.url) as node:
                node.ids += ["GIVEN", "BEFORE"]
                await eventually(lambda: running.runner.agent_id not in (former, ""), what="another id")
                await node.registered()
                await load.more()
                assert await node.listed() == ["w1"]
                assert said.count("the node is silent") == 1, "once, however often it looked"


async def test_a_node_that_is_started_after_the_nexlet(
    make_node: MakeNode, control: ControlClient, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """What runs by the state is served before there is a node, which then learns of it."""
    node, state = make_node(), tmp_path / "state"
    await node.start()
    async with run(nats_server.url, agent=Shouting, state_folder=state) as running:
        workload = await deployed(control)
        await running.kill()
    await node.stop()
    async with run(nats_server.url, agent=Shouting, state_folder=state) as running:
        await eventually(lambda: running.runner.phase is Phase.RUNNING)
        await eventually(lambda: shouting(running).running == [workload], what="restored")
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            await node.start()
            await eventually(lambda: running.runner.registrations == 2, what="taken back")
            await load.more()
            assert await listed(control) == [workload]


# --- it ends ----------------------------------------------------------------------------------------------------


async def ask_until_it_ends(client: Client, running: Running) -> int:
    """How many were answered before nobody served any more, which is right only once the delay is over."""
    answered = 0
    while True:
        try:
            assert (await client.request("a.one", b"on", timeout=10)).data == b"ON"
        except nats.errors.NoRespondersError:
            assert running.runner._stopping.is_set(), "not before its time"
            return answered
        answered += 1


@pytest.mark.faults  # a second of it is the delay
@row("the node is in lameduck")
async def test_a_node_in_lameduck_has_its_functions_served_to_the_end(
    make_node: MakeNode, control: ControlClient, client: Client, nats_server: EmbeddedServer
) -> None:
    node = make_node()
    await node.start()
    async with run(nats_server.url, agent=Shouting) as running:
        await deployed(control)
        asking = [asyncio.create_task(ask_until_it_ends(client, running)) for _ in range(8)]
        assert (await control.lameduck(node.node_id, 1.0)).success
        await eventually(lambda: running.runner.phase is Phase.LAMEDUCK)
        with pytest.raises((ControlRefused, NoBid)):
            await shout(control, "a.two")
        await asyncio.wait_for(running.task, 20)  # it ends by itself, and without an error
        assert all(answered > 0 for answered in await asyncio.gather(*asking))
        assert running.runner.phase is Phase.ENDED
    await node.wait_ended()
    await node.stop()


# --- it refuses, or says nothing -----------------------------------------------------------------------------------


@row("the node refuses us, or says nothing")
async def test_a_node_that_refuses_to_take_us_back_for_a_while(
    nats_server: EmbeddedServer, scripted: ScriptedNode, said: Said
) -> None:
    async with run(nats_server.url, agent=Shouting) as running:
        await scripted.registered()
        await scripted.start("w1", scripted_start(scripted, "a.one"))
        async with Load(nats_server.url, "a.one") as load:
            scripted.forget()
            scripted.refuse = ("failed agent registrar check", "403")
            for times in (1, 2, 3):
                await scripted.beat()
                await reaches(lambda: said.count("registering anew failed"), times)
            assert said.count("failed agent registrar check") >= 3, "the node's own word"
            assert running.runner.phase is Phase.RUNNING
            await load.more()
            scripted.refuse = None
            await scripted.beat()
            await scripted.registered(2)
            await load.more()
            assert await scripted.listed() == ["w1"]


@row("the node refuses us, or says nothing")
async def test_the_node_that_started_us_refuses_to_take_us_back_for_good(
    nats_server: EmbeddedServer, scripted: ScriptedNode, said: Said
) -> None:
    """There is no other id to be had: it serves on, and asks again whenever the node says that it does not know us."""
    local = LocalRegistration(NODE, "LOCAL1", connection_data(nats_server.url))
    async with run(agent=Shouting, registration=local) as running:
        await scripted.registered()
        await scripted.start("w1", scripted_start(scripted, "a.one"))
        async with Load(nats_server.url, "a.one") as load:
            scripted.forget()
            scripted.refuse = ("failed agent registrar check", "403")
            for times in (2, 3, 4):
                await scripted.beat()
                await reaches(lambda: scripted.asked, times)
            await load.more()
            assert running.runner.phase is Phase.RUNNING


@row("the node refuses us, or says nothing")
async def test_a_node_that_never_answers_is_asked_again_and_again(
    nats_server: EmbeddedServer, scripted: ScriptedNode, said: Said
) -> None:
    """Each question has its deadline, whichever of the two it is; then a pause."""
    quick = settings(remote_register_timeout=0.1, register_timeout=0.1)
    scripted.remote = False
    async with run(nats_server.url, agent=Shouting, settings=quick):
        await eventually(lambda: scripted.ids_asked >= 3, what="an id asked for three times")
        assert scripted.asked == 0
        scripted.remote, scripted.mute = True, True
        await eventually(lambda: scripted.asked >= 3, what="a registration asked for three times")
        assert said.count("asking nexus 'nexus' for an id failed") >= 2
        assert said.count(f"registering with node {NODE} failed") >= 2
        assert len(set(scripted.ids)) == len(scripted.ids) >= 3, "a new id each time: the last may have been taken"
        # What may have been taken is taken out of the running.
        await eventually(lambda: scripted.states(scripted.ids[0]) == ["stopping"])
        scripted.mute = False
        await scripted.registered()


@row("the node refuses us, or says nothing")
async def test_a_node_that_falls_silent_leaves_us_serving(
    nats_server: EmbeddedServer, scripted: ScriptedNode, said: Said
) -> None:
    quick = settings(remote_register_timeout=0.1, register_timeout=0.1, node_silence=0.3)
    async with run(nats_server.url, agent=Shouting, settings=quick):
        former = await scripted.registered()
        await scripted.start("w1", scripted_start(scripted, "a.one"))
        async with Load(nats_server.url, "a.one") as load:
            scripted.mute = True
            await eventually(lambda: scripted.asked >= 4, what="asked three times more")
            await load.more()
            scripted.mute = False
            await scripted.registered(2)
            await load.more()
            assert scripted.agent != former
            await eventually(lambda: scripted.states(former)[-1] == "stopping")


async def test_the_node_that_started_us_never_answers(nats_server: EmbeddedServer, scripted: ScriptedNode) -> None:
    scripted.mute = True
    local = LocalRegistration(NODE, "LOCAL1", connection_data(nats_server.url))
    async with run(agent=Shouting, registration=local, settings=settings(register_timeout=0.1)) as running:
        await eventually(lambda: scripted.asked >= 3, what="asked three times")
        assert running.runner.phase is Phase.STARTING
        scripted.mute = False
        assert await scripted.registered() == "LOCAL1"


# --- two nexlets of one type -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def nexlet(url: str, **arguments: Any) -> AsyncIterator[Running]:
    """One that has registered, and may just be about to start what it was told of."""
    async with run(url, agent=Shouting, **arguments) as running:
        await asyncio.wait_for(running.runner.wait_registered(), 20)
        yield running


async def two_deployed(control: ControlClient, first: Running, second: Running) -> tuple[str, str]:
    """A workload at each: a node chooses by chance."""
    number = 0
    async with asyncio.timeout(30):
        while not (shouting(first).running and shouting(second).running):
            number += 1
            await deployed(control, f"a.{number}")
    return shouting(first).running[0], shouting(second).running[0]


@row("two nexlets of one type on a node, and one comes back")
async def test_what_runs_at_one_nexlet_is_not_started_by_the_other_when_that_comes_back(
    make_node: MakeNode, control: ControlClient, client: Client, nats_server: EmbeddedServer
) -> None:
    node = make_node()
    await node.start()
    async with nexlet(nats_server.url) as first:
        async with nexlet(nats_server.url) as second:
            here, there = await two_deployed(control, first, second)
            every = await listed(control)
            mine = shouting(first).running
            await second.kill()
        async with nexlet(nats_server.url) as again:
            # Told everything by the node, it starts what died with the one before, and no more.
            await eventually(lambda: there in shouting(again).running, what="restored")
            assert shouting(first).running == mine
            assert await settled(again) == sorted(set(every) - set(mine))
            assert await listed(control) == every, "a line each"
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            for workload in (here, there):
                asked = StopWorkloadRequest(namespace="acme").to_json()
                await client.publish(subjects.stop_workload(node.node_id, workload), asked, reply=inbox)
                both = [StopWorkloadResponse.from_json((await answers.next_msg(5)).data) for _ in range(2)]
                assert sorted(one.stopped for one in both) == [False, True], "one has it, and both answer"
            with pytest.raises(nats.errors.TimeoutError):
                await answers.next_msg(0.1)  # once each
            assert sorted([*shouting(first).running, *shouting(again).running]) == sorted(set(every) - {here, there})
            for workload in set(every) - {here, there}:
                asked_of_all = subjects.get_workload(node.node_id, workload)
                answer = await client.request(asked_of_all, b"{}", timeout=5)
                assert StartWorkloadRequest.from_json(answer.data).namespace == "acme", "whoever has it says what it is"
    await node.stop()


@pytest.mark.faults  # it waits for a node to come up
@row("two nexlets of one type on a node, and one comes back")
async def test_a_node_that_comes_back_has_each_nexlet_run_what_it_ran(
    make_node: MakeNode, control: ControlClient, nats_server: EmbeddedServer
) -> None:
    node = make_node()
    await node.start()
    async with (
        nexlet(nats_server.url) as first,
        nexlet(nats_server.url) as second,
    ):
        await two_deployed(control, first, second)
        every, ran = await listed(control), (shouting(first).running, shouting(second).running)
        async with Load(nats_server.url, "a.1") as load:
            await load.more()
            await node.stop()
            await node.start()
            await eventually(lambda: first.runner.registrations == second.runner.registrations == 2)
            assert (await settled(first), await settled(second)) == ran
            await eventually_listed(control, every)
            await load.more()
    await node.stop()


@row("two nexlets of one type on a node, and one comes back")
async def test_two_that_are_told_the_same_at_the_same_time_do_not_both_start_it(
    nats_server: EmbeddedServer, scripted: ScriptedNode
) -> None:
    scripted.existing = {f"w{number}": scripted_start(scripted, f"a.{number}") for number in range(20)}
    async with (
        nexlet(nats_server.url) as first,
        nexlet(nats_server.url) as second,
    ):
        await eventually(lambda: len(shouting(first).running) + len(shouting(second).running) >= 20)
        assert sorted([*await settled(first), *await settled(second)]) == sorted(scripted.existing)


async def test_what_runs_at_one_that_leaves_is_started(nats_server: EmbeddedServer, scripted: ScriptedNode) -> None:
    scripted.existing = {"w1": scripted_start(scripted, "a.one")}
    async with nexlet(nats_server.url) as first:
        await eventually(lambda: shouting(first).running == ["w1"])
        await scripted.ask(subjects.set_lameduck(NODE), {"delay": "1m0s"})
        async with nexlet(nats_server.url) as second, Load(nats_server.url, "a.one") as load:
            await eventually(lambda: shouting(second).running == ["w1"], what="started here")
            await first.runner.stop()
            await load.more()


async def test_without_state_a_nexlet_takes_over_by_what_the_node_replays(
    make_node: MakeNode, control: ControlClient, nats_server: EmbeddedServer
) -> None:
    """The sequence of docs/operations.md: start the second, see everything twice, end the first."""
    node = make_node()
    await node.start()
    async with contextlib.AsyncExitStack() as over, nexlet(nats_server.url) as first:
        workload = await deployed(control)
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            second = await over.enter_async_context(nexlet(nats_server.url, take_over=True))
            await eventually_listed(control, [workload, workload])
            await first.runner.stop()
            await load.more()
            assert shouting(second).running == [workload]
            await eventually_listed(control, [workload])
    await node.stop()


async def settled(running: Running) -> list[str]:
    """What runs once nothing is asked or started any more."""
    await running.runner._restoring.settled()
    return shouting(running).running


async def eventually_listed(control: ControlClient, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await listed(control) == wanted:
                return
            await asyncio.sleep(0.02)
