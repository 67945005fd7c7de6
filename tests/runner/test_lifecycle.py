"""Registration, heartbeats, restarts of nodes and nexlets, lameduck and the end."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import RawCredentials
from pydantic import SecretStr

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Credentials
from nexlet_functions.runner import LocalRegistration, Phase, RegistrationFailed, Runner, RunnerSettings, restoring
from nexlet_functions.runner.agent import Refused
from nexlet_functions.runner.state import StateUnusable
from nexlet_models import subjects
from nexlet_models.registration import RegisterAgentRequest
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadResponse
from tests.support.echo_agent import EchoAgent
from tests.support.jwt import Operator
from tests.support.polling import eventually
from tests.support.running import QUICK, Running, Start
from tests.support.scripted_node import NODE, ScriptedNode, connection_data, start_request
from tests.support.settle import settle

TRIGGERS = '{"triggers": ["a.*"]}'


def settings(**changes: Any) -> RunnerSettings:
    return replace(QUICK, **changes)


# --- registering ----------------------------------------------------------------------------------------------------


async def test_what_a_remote_nexlet_registers(running: Running, node: ScriptedNode) -> None:
    assert running.runner.agent_id == node.ids[0]
    assert running.runner.node_id == NODE
    assert running.runner.phase is Phase.RUNNING
    assert node.known[node.agent] == await running.agent.register()
    assert running.agent.services.agent_id == node.ids[0]
    assert running.agent.services.node_id == NODE
    assert running.agent.services.nexus == "nexus"
    assert running.agent.services.state_folder is None


async def test_a_nexlet_may_be_started_before_its_node(nats_server: EmbeddedServer, start: Start) -> None:
    async with start(nats_server.url) as running, ScriptedNode.on(nats_server.url) as node:
        await node.registered()
        assert running.runner.agent_id == node.agent


async def test_a_nexlet_may_be_started_before_the_server(start: Start) -> None:
    server = await EmbeddedServer().start()
    await server.kill()
    try:
        async with start(server.url):
            await server.start()
            async with ScriptedNode.on(server.url) as node:
                await node.registered()
    finally:
        await server.stop()


async def test_a_node_that_refuses_is_asked_again(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    node.refuse = ("failed agent registrar check", "403")
    async with start(nats_server.url) as running:
        said = ""

        def told() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return said.count("not registered yet") >= 2

        await eventually(told)
        assert "failed agent registrar check" in said
        assert running.runner.phase is Phase.STARTING
        node.refuse = None
        await node.registered()


@pytest.mark.parametrize(("name", "version"), [("has space", "1.0.0"), ("fine", "1.0"), ("", "1.0.0")])
async def test_an_offer_that_no_node_takes_ends_the_run(nats_server: EmbeddedServer, name: str, version: str) -> None:
    class Wrong(EchoAgent):
        async def register(self) -> RegisterAgentRequest:
            return (await super().register()).model_copy(update={"name": name, "version": version})

    runner = Runner(Wrong, credentials=Credentials((nats_server.url,)), settings=QUICK)
    with pytest.raises(RegistrationFailed):
        await asyncio.wait_for(runner.run(), 10)
    assert runner.phase is Phase.ENDED


async def test_a_runner_needs_one_way_to_register() -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        Runner(EchoAgent)


async def test_a_runner_can_be_stopped_while_it_looks_for_a_node(nats_server: EmbeddedServer, start: Start) -> None:
    async with start(nats_server.url) as running:
        await eventually(lambda: running.runner.connections[0].connected)
        await asyncio.wait_for(running.runner.stop(), 10)


async def test_minted_credentials_that_do_not_do_say_what_is_missing(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "authorization { users = [ { user: op, password: pw } ] }"
    own = {"user": "op", "password": "pw"}
    async with EmbeddedServer(config=config) as server, ScriptedNode.on(server.url, **own):
        mine = Credentials((server.url,), user="op", password=SecretStr("pw"))
        async with start(credentials=mine):
            said = ""

            def told() -> bool:
                nonlocal said
                said += capsys.readouterr().out
                return "start the node with an issuer" in said

            await eventually(told)
            assert "the server asks for some" in said


# --- a node that starts us ------------------------------------------------------------------------------------------


async def test_a_local_nexlet_registers_with_the_id_it_was_given(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    local = LocalRegistration(NODE, "LOCAL1", connection_data(nats_server.url))
    async with start(registration=local) as running:
        assert await node.registered() == "LOCAL1"
        assert node.ids == []
        assert (await node.start("w1", start_request(node.url))).json["id"] == "w1"
        assert running.runner.agent_id == "LOCAL1"


async def test_a_local_nexlet_that_the_node_restarted_goes_on(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    node.known["LOCAL1"] = await EchoAgent(None).register()  # type: ignore[arg-type]
    local = LocalRegistration(NODE, "LOCAL1", connection_data(nats_server.url))
    async with start(registration=local):
        await eventually(lambda: node.beats.get("LOCAL1"))
        assert await node.listed() == []


async def test_a_local_nexlet_that_is_refused_ends(nats_server: EmbeddedServer, node: ScriptedNode) -> None:
    node.refuse = ("failed agent registrar check", "403")
    local = LocalRegistration(NODE, "LOCAL1", connection_data(nats_server.url))
    runner = Runner(EchoAgent, registration=local, settings=QUICK)
    with pytest.raises(RegistrationFailed, match="failed agent registrar check"):
        await asyncio.wait_for(runner.run(), 10)


# --- heartbeats -----------------------------------------------------------------------------------------------------


async def test_heartbeats_come_by_themselves_and_at_changes(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    async with start(nats_server.url):
        agent_id = await node.registered()
        seen = len(node.beats[agent_id])
        await eventually(lambda: len(node.beats[agent_id]) >= seen + 2)
        assert node.beats[agent_id][0].data == "echo"
    async with start(nats_server.url, settings=settings(heartbeat_interval=60)):
        agent_id = await node.registered(2)
        assert len(node.beats[agent_id]) == 1
        await asyncio.gather(*(node.start(f"w{number}", start_request(node.url)) for number in range(20)))
        await eventually(lambda: node.beats[agent_id][-1].summary.workload_count == 20)
        assert len(node.beats[agent_id]) < 20


async def test_an_agent_that_cannot_tell_its_state_once_is_asked_again(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    class Shy(EchoAgent):
        asked = 0

        async def heartbeat(self) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("not now")
            return await super().heartbeat()

    async with start(nats_server.url, agent=Shy):
        await node.registered()


async def test_the_last_heartbeat_says_stopping(nats_server: EmbeddedServer, node: ScriptedNode, start: Start) -> None:
    async with start(nats_server.url) as running:
        agent_id = await node.registered()
        await node.start("w1", start_request(node.url))
        await running.runner.stop(3)
        assert running.agent.closed == 3
        assert running.runner.phase is Phase.ENDED
    await eventually(lambda: node.states(agent_id)[-1] == "stopping")
    assert node.states(agent_id) == ["running", "stopping"]


async def test_a_stop_leaves_no_task_and_no_connection(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    before = asyncio.all_tasks()
    async with start(nats_server.url) as running:
        await node.registered()
        await node.start("w1", start_request(node.url, run=TRIGGERS))
        await running.runner.stop(0)
        assert [one.state.value for one in running.runner.connections] == ["closed", "closed"]
    assert {task for task in asyncio.all_tasks() - before if "nats" not in str(task)} == set()


async def test_an_agent_that_hangs_does_not_keep_the_runner(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    class Broken(EchoAgent):
        async def close(self, grace: float) -> None:
            raise RuntimeError("cannot end")

    async with start(nats_server.url, agent=Broken) as running:
        await node.registered()
        await asyncio.wait_for(running.runner.stop(0), 10)


# --- what ran before ------------------------------------------------------------------------------------------------


async def test_existing_workloads_are_started_side_by_side_and_failures_reported_once(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    node.existing = {
        "slow": start_request(node.url, run='{"wait": "g"}'),
        "bad": start_request(node.url, name="broken", run='{"refuse": "no longer allowed\\nsecond line"}'),
        "bug": start_request(node.url, run='{"bug": 1}'),
        "fine": start_request(node.url, run=TRIGGERS),
    }

    class Gated(EchoAgent):
        def __init__(self, services: Any) -> None:
            super().__init__(services)
            self.gates["g"] = asyncio.Event()

    async with start(nats_server.url, agent=Gated) as running:
        await node.registered()
        await eventually(lambda: running.agent.existing == ["fine"])
        await node.client.publish("a.b", b"x")
        await running.agent.sink.count(1)
        running.agent.gates["g"].set()
        await eventually(lambda: running.agent.existing == ["fine", "slow"])
        # The node replays all of it at a new registration.
        node.forget()
        await node.beat()
        await eventually(lambda: running.agent.attempts.count("bad") == 2)
        assert running.agent.attempts.count("fine") == 1
        said = capsys.readouterr().out
        assert said.count("could not be restored") == 2
        assert "no longer allowed" in said
        assert "broken" in said


async def test_what_could_not_be_restored_for_want_of_something_is_tried_until_it_starts_or_is_stopped(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_AGAIN", (0.01, 0.02))
    short_of: set[str] = {"first", "second", "third"}
    tried: Counter[str] = Counter()

    class Short(EchoAgent):
        async def start_workload(
            self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool
        ) -> StartWorkloadResponse:
            tried[workload_id] += 1
            if workload_id in short_of:
                raise Refused("out of processes", status=503)
            if workload_id == "bad":
                raise Refused("a syntax error")
            return await super().start_workload(workload_id, request, existing=existing)

    node.existing = {name: start_request(node.url, run=TRIGGERS) for name in (*short_of, "bad")}
    async with start(nats_server.url, agent=Short) as running:
        await node.registered()
        await eventually(lambda: min(tried[name] for name in short_of) > 3)
        assert tried["bad"] == 1, "its own request is at fault"
        short_of.discard("first")
        await eventually(lambda: running.agent.existing == ["first"])
        await running.runner.stopped("second")  # what the endpoint does when a node has it stopped
        counted, others = tried["second"], tried["third"]
        short_of.discard("second")
        await eventually(lambda: tried["third"] > others + 5)
        assert tried["second"] <= counted + 1, "one try may have been under way"
        assert running.agent.existing == ["first"]


# --- a node that forgets us -----------------------------------------------------------------------------------------


async def test_a_node_that_restarted_takes_us_back_and_nothing_stops(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    async with start(nats_server.url) as running:
        agent_id = await node.registered()
        await node.start("w1", start_request(node.url, run=TRIGGERS))
        await node.beat()  # it lists us: nothing happens
        node.existing = {"w1": start_request(node.url), "w2": start_request(node.url)}
        node.forget()
        await node.beat()
        await eventually(lambda: node.registrations == 2)
        await eventually(lambda: running.agent.existing == ["w2"])
        assert running.agent.attempts == ["w1", "w2"]
        assert node.agent == agent_id  # it had forgotten the id, so it could be had again
        await node.client.publish("a.b", b"x")
        await running.agent.sink.count(1)
        assert len(await node.ask_many(subjects.ping_agents(NODE))) == 1
        await node.stop("w1")
        assert await node.listed() == ["w2"]


async def test_a_node_that_cannot_be_heard_is_asked(start: Start) -> None:
    operator = Operator()
    async with EmbeddedServer(config=operator.config) as server:
        jwt, seed = operator.user("node")
        async with ScriptedNode.on(server.url, user_credentials=RawCredentials(_creds(jwt, seed))) as node:
            node.registration_creds = lambda agent: operator.registration(server.url, NODE, agent)
            node.creds = lambda agent: operator.agent(server.url, NODE, agent)
            mine = Credentials.from_connection_data(
                operator.creds(server.url, "nexlet", publish=["$NEX.SVC.nexus.agent.RREGISTER"], subscribe=["_INBOX.>"])
            )
            async with start(credentials=mine, settings=settings(probe_interval=0.2)) as running:
                agent_id = await node.registered()
                node.forget()
                await eventually(lambda: node.registrations == 2)
                assert node.agent == agent_id
                assert (await node.start("w1", start_request(server.url))).json == {"id": "w1", "name": "fn"}
                assert len(await node.ask_many(subjects.ping_agents(NODE))) == 1
                assert running.runner.phase is Phase.RUNNING


async def test_a_node_that_is_gone_is_replaced_by_another(nats_server: EmbeddedServer, start: Start) -> None:
    async with start(nats_server.url, settings=settings(node_silence=0.4)) as running:
        async with ScriptedNode.on(nats_server.url, node_id="NFIRST") as first:
            await first.registered()
            await first.start("w1", start_request(first.url, run=TRIGGERS))
        await eventually(lambda: running.runner.phase is Phase.RUNNING)
        async with ScriptedNode.on(nats_server.url, node_id="NSECOND") as second:
            await second.registered()
            assert running.runner.node_id == "NSECOND"
            assert await second.listed() == ["w1"]
            await second.client.publish("a.b", b"x")
            await running.agent.sink.count(1)
            # The second one is alive, and stays the one.
            registrations = second.registrations
            for _ in range(6):
                await second.beat()
                await settle(second.client)
                await eventually(lambda: len(second.beats[second.agent]) > 1)
            assert second.registrations == registrations


async def test_a_node_that_says_it_starts_is_found_without_waiting_for_silence(
    nats_server: EmbeddedServer, start: Start
) -> None:
    async def starts(node: ScriptedNode) -> None:
        await node.client.publish(f"$NEX.FEED.{node.node_id}.events.NODESTARTED", b"{}")

    async with start(nats_server.url) as running:
        async with ScriptedNode.on(nats_server.url, node_id="NFIRST") as first:
            agent_id = await first.registered()
            await starts(first)  # it knows us: nothing happens
            first.forget()
            await starts(first)
            await eventually(lambda: first.registrations == 2)
            assert first.agent == agent_id
            async with ScriptedNode.on(nats_server.url, node_id="NOTHER") as other:
                await starts(other)
                await first.beat()
                await settle(first.client)
                assert other.registrations == 0, "ours is there still"
        async with ScriptedNode.on(nats_server.url, node_id="NSECOND") as second:
            await starts(second)
            await second.registered()
            assert running.runner.node_id == "NSECOND"


async def test_an_agent_that_is_locked_out_registers_anew(start: Start) -> None:
    """The node's credentials for us are revoked while we run: a new registration brings new ones."""
    users = "authorization {{ users = [ {{ user: node, password: pw }}, {{ user: {0}, password: pw }} ] }}"
    named = {"nats_user_password": SecretStr("pw")}
    async with (
        EmbeddedServer(config=users.format("first")) as server,
        ScriptedNode.on(server.url, user="node", password="pw") as node,
    ):
        node.registration_creds = lambda agent: connection_data(server.url, nats_user_name="node", **named)
        node.creds = lambda agent: connection_data(server.url, nats_user_name="first", **named)
        mine = Credentials((server.url,), user="node", password=SecretStr("pw"))
        async with start(credentials=mine, settings=settings(probe_interval=0.4)) as running:
            former = await node.registered()
            node.creds = lambda agent: connection_data(server.url, nats_user_name="second", **named)
            server.reconfigure(users.format("second"))
            newer = await node.registered(2)
            assert newer != former
            assert running.runner.agent_id == newer
            assert (await node.start("w1", start_request(server.url))).json == {"id": "w1", "name": "fn"}
            await eventually(lambda: node.states(former)[-1] == "stopping")


async def test_a_server_that_restarts_changes_nothing(nats_server: EmbeddedServer, running: Running) -> None:
    agent_id = running.runner.agent_id
    await running.agent.start_workload("w1", start_request(nats_server.url, run=TRIGGERS), existing=False)
    await nats_server.restart()
    async with ScriptedNode.on(nats_server.url) as node:
        node.known[agent_id] = await running.agent.register()
        await eventually(lambda: node.beats.get(agent_id))
        await eventually(lambda: all(one.connected for one in running.runner.connections))
        await node.client.publish("a.b", b"x")
        await running.agent.sink.count(1)
        assert await node.listed() == ["w1"]


# --- a nexlet that dies ---------------------------------------------------------------------------------------------


async def test_with_a_state_folder_a_killed_nexlet_is_who_it_was(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with start(nats_server.url, state_folder=state) as running:
        agent_id = await node.registered()
        await node.start("kept", start_request(node.url, run=TRIGGERS))
        await node.start("stopped", start_request(node.url))
        await node.stop("stopped")
        assert running.agent.services.state_folder == state / "agent"
        await running.kill()
    del node.beats[agent_id]
    async with start(nats_server.url, state_folder=state) as running:
        await eventually(lambda: node.beats.get(agent_id))
        await eventually(lambda: running.agent.existing == ["kept"])
        assert node.registrations == 1
        assert running.runner.agent_id == agent_id
        await node.client.publish("a.b", b"x")
        await running.agent.sink.count(1)
        assert await node.listed() == ["kept"]


async def test_a_resumed_nexlet_serves_without_its_node(
    nats_server: EmbeddedServer, start: Start, tmp_path: Path
) -> None:
    async with ScriptedNode.on(nats_server.url) as node, start(nats_server.url, state_folder=tmp_path) as running:
        agent_id = await node.registered()
        await node.start("w1", start_request(node.url, run=TRIGGERS))
        await running.kill()
    async with start(nats_server.url, state_folder=tmp_path) as running:
        await eventually(lambda: running.runner.agent_id == agent_id)
        await eventually(lambda: running.agent.existing == ["w1"])
        # The node comes back, and has forgotten us.
        async with ScriptedNode.on(nats_server.url) as node:
            await node.beat()
            await node.registered()
            assert node.agent == agent_id


async def test_a_nexlet_that_offers_something_else_registers_anew(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    class Newer(EchoAgent):
        def __init__(self, services: Any) -> None:
            super().__init__(services)
            self.name = "echo-two"

    async with start(nats_server.url, state_folder=tmp_path) as running:
        former = await node.registered()
        await node.start("w1", start_request(node.url))
        await running.kill()
    async with start(nats_server.url, agent=Newer, state_folder=tmp_path) as running:
        assert await node.registered(2) != former
        await eventually(lambda: node.states(former)[-1] == "stopping")
        await eventually(lambda: running.agent.existing == ["w1"])


async def test_a_stopped_nexlet_comes_back_too(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    async with start(nats_server.url, state_folder=tmp_path):
        agent_id = await node.registered()
        await node.start("w1", start_request(node.url))
    assert node.states(agent_id)[-1] == "stopping"
    async with start(nats_server.url, state_folder=tmp_path) as running:
        await eventually(lambda: node.states(agent_id)[-1] == "running")
        await eventually(lambda: running.agent.existing == ["w1"])
        assert node.registrations == 1


async def test_credentials_that_became_void_are_given_up(start: Start, tmp_path: Path) -> None:
    """The former id is taken out of the running, a new one is asked for, the workloads are started again."""
    users = "authorization {{ users = [ {{ user: node, password: pw }}, {{ user: {0}, password: pw }} ] }}"
    async with (
        EmbeddedServer(config=users.format("first")) as server,
        ScriptedNode.on(server.url, user="node", password="pw") as node,
    ):
        named = {"nats_user_password": SecretStr("pw")}
        node.registration_creds = lambda agent: connection_data(server.url, nats_user_name="node", **named)
        node.creds = lambda agent: connection_data(server.url, nats_user_name="first", **named)
        mine = Credentials((server.url,), user="node", password=SecretStr("pw"))
        async with start(credentials=mine, state_folder=tmp_path) as running:
            former = await node.registered()
            await node.start("w1", start_request(server.url))
            await running.kill()
        server.reconfigure(users.format("second"))
        await server.restart()
        node.creds = lambda agent: connection_data(server.url, nats_user_name="second", **named)
        await eventually(lambda: node.client.is_connected)
        async with start(credentials=mine, state_folder=tmp_path) as running:
            assert await node.registered(2) != former
            await eventually(lambda: node.states(former)[-1] == "stopping")
            await eventually(lambda: running.agent.existing == ["w1"])


async def test_state_is_for_its_owner_alone_and_for_one_nexlet(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with start(nats_server.url, state_folder=state):
        await node.registered()
        await node.start("w/1", start_request(node.url))
        files = [file for file in state.rglob("*") if file.is_file()]
        assert {file.name for file in files} >= {"registration.json", "lock"}
        assert len(list((state / "workloads").iterdir())) == 1
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        second = Runner(EchoAgent, credentials=Credentials((nats_server.url,)), state_folder=state, settings=QUICK)
        with pytest.raises(StateUnusable, match=rf"in use by another nexlet \(process {os.getpid()}\)"):
            await second.run()


@pytest.mark.parametrize("damage", ["{", "", '{"version": 99}', "\x00" * 10])
async def test_damaged_state_is_set_aside(
    nats_server: EmbeddedServer,
    node: ScriptedNode,
    start: Start,
    tmp_path: Path,
    damage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with start(nats_server.url, state_folder=tmp_path):
        await node.registered()
        await node.start("w1", start_request(node.url))
        await node.start("w2", start_request(node.url))
    registration = tmp_path / "registration.json"
    if "version" in damage:
        damage = json.dumps(json.loads(registration.read_text()) | {"version": 99})
    registration.write_text(damage)
    first = sorted((tmp_path / "workloads").glob("*.json"))[0]
    lost = json.loads(first.read_text())["id"]
    first.write_text("nothing")
    async with start(nats_server.url, state_folder=tmp_path) as running:
        await node.registered(2)
        await eventually(lambda: len(running.agent.existing) == 1)
        assert lost not in running.agent.existing
    assert registration.with_suffix(".set-aside").read_text() == damage
    assert capsys.readouterr().out.count("a state file is not used") == 2


async def test_a_state_folder_that_cannot_be_made(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner = Runner(
        EchoAgent, credentials=Credentials((nats_server.url,)), state_folder=tmp_path / "file" / "x", settings=QUICK
    )
    with pytest.raises(StateUnusable, match="cannot be used"):
        await runner.run()


def _creds(jwt: str, seed: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
