"""What is the stand-in's own: time, its state file, credentials it hands out, how it ends."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer
from nexlet_functions.devnode import state
from nexlet_functions.devnode.node import HEARTBEAT_EVERY, DevNode
from nexlet_functions.devnode.registrations import CHECK_EVERY
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import ConnectFailed
from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.control import BID_LIFETIME, NodeHeartbeat
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.clock import ManualClock
from tests.support.scripted_agent import Answer, ScriptedAgent
from tests.support.settle import settle


def request(run_request: str = "{}") -> StartWorkloadRequest:
    return StartWorkloadRequest(
        name="fn",
        namespace="acme",
        description="",
        workload_type="inmem",
        workload_lifecycle=WorkloadLifecycle.FUNCTION,
        run_request=run_request,
        tags=None,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def node(nats_server: EmbeddedServer, clock: ManualClock) -> AsyncIterator[DevNode]:
    async with await DevNode.start(nats_server.url, clock=clock, gather_timeout=0.3) as started:
        yield started


@pytest.fixture
async def agent(node: DevNode, nats_server: EmbeddedServer) -> AsyncIterator[ScriptedAgent]:
    async with await ScriptedAgent.register(nats_server.url) as registered:
        yield registered


@pytest.fixture
def acme(client: Client) -> ControlClient:
    return ControlClient(client, "acme", nodes=1, stall=5, wait=5)


# --- time ----------------------------------------------------------------------------------------------------------


async def test_health_fades_with_the_age_of_the_heartbeat(agent: ScriptedAgent, clock: ManualClock) -> None:
    seen = []
    for _ in range(7):
        await clock.advance(CHECK_EVERY)
        seen.append((await agent.as_seen_by_node()).agent_health)
    # Ten seconds old is still fresh, thirty is still there.
    assert seen == ["healthy", "healthy", "degraded", "degraded", "degraded", "degraded", "offline"]
    await agent.heartbeat()
    assert (await agent.as_seen_by_node()).agent_health == "healthy"


async def test_an_agent_that_is_going_is_looked_at_like_any_other(agent: ScriptedAgent, clock: ManualClock) -> None:
    await agent.heartbeat("stopping")
    await clock.advance(3 * CHECK_EVERY)
    assert (await agent.as_seen_by_node()).agent_health == "degraded"


async def test_who_was_never_heard_of_is_offline(
    node: DevNode, nats_server: EmbeddedServer, clock: ManualClock
) -> None:
    async with await ScriptedAgent.register(nats_server.url, healthy=False) as agent:
        seen = await agent.as_seen_by_node()
        assert seen.agent_health == "unknown"
        assert seen.agent_last_heartbeat_time == "0001-01-01T00:00:00Z"
        await clock.advance(CHECK_EVERY)
        assert (await agent.as_seen_by_node()).agent_health == "offline"


async def test_a_bid_is_good_for_ten_seconds(agent: ScriptedAgent, acme: ControlClient, clock: ManualClock) -> None:
    [late], [early] = await acme.auction("inmem"), await acme.auction("inmem")
    await clock.advance(BID_LIFETIME - 0.1)
    assert (await acme.deploy(early, request())).name == "fn"
    await clock.advance(0.2)
    with pytest.raises(nats.errors.TimeoutError):
        await agent.client.request(subjects.deploy("acme", late.bidder_id), request().to_json(), timeout=0.3)


async def test_the_nodes_heartbeat_lists_its_agents(
    agent: ScriptedAgent, nats_server: EmbeddedServer, client: Client, clock: ManualClock
) -> None:
    beats = await client.subscribe(subjects.node_heartbeat())
    await settle(client)
    async with await ScriptedAgent.register(nats_server.url, register_type="other") as other:
        await clock.advance(HEARTBEAT_EVERY)
        beat = await beats.next_msg(timeout=5)
        assert beat.subject == subjects.node_heartbeat(agent.node)
        assert NodeHeartbeat.from_json(beat.data).agents() == {agent.agent_id: "inmem", other.agent_id: "other"}


async def test_lameduck_ends_the_node_when_its_delay_is_over(
    agent: ScriptedAgent, node: DevNode, client: Client, clock: ManualClock
) -> None:
    stopped = await client.subscribe(subjects.event(node.node_id, "NODESTOPPED"))
    await settle(client)
    await ControlClient(client, nodes=1, stall=5).lameduck(node.node_id, 60)
    await clock.advance(59)
    assert (await ControlClient(client, nodes=1, stall=5).ping(node.node_id)).state == "lameduck"
    await clock.advance(1)
    await asyncio.wait_for(node.wait_closed(), 10)
    assert json.loads((await stopped.next_msg(timeout=5)).data) == {"id": node.node_id}


# --- the end -------------------------------------------------------------------------------------------------------


async def test_closing_says_goodbye_and_aborting_does_not(nats_server: EmbeddedServer, client: Client) -> None:
    stopped = await client.subscribe(subjects.event("x", "NODESTOPPED").replace(".x.", ".*."))
    await settle(client)
    aborted = await DevNode.start(nats_server.url)
    await aborted.abort()
    closed = await DevNode.start(nats_server.url)
    await asyncio.gather(closed.close(), closed.close())
    assert json.loads((await stopped.next_msg(timeout=5)).data)["id"] == closed.node_id
    await asyncio.wait_for(aborted.wait_closed(), 1)


async def test_closing_without_a_server(nats_server: EmbeddedServer) -> None:
    node = await DevNode.start(nats_server.url)
    await nats_server.kill()
    await asyncio.wait_for(node.close(), 10)


async def test_closing_while_a_start_is_under_way(agent: ScriptedAgent, node: DevNode, acme: ControlClient) -> None:
    agent.script("STARTWORKLOAD", lambda asked: None)
    starting = asyncio.create_task(acme.start(request()))
    await agent.wait_asked("STARTWORKLOAD")
    await asyncio.wait_for(node.close(), 10)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


async def test_a_slow_start_holds_up_nobody(agent: ScriptedAgent, acme: ControlClient) -> None:
    """An endpoint takes the next request while an earlier one is under way."""
    answers = iter([None, Answer(b'{"id":"w","name":"second"}')])
    agent.script("STARTWORKLOAD", lambda asked: next(answers))
    slow = asyncio.create_task(acme.start(request()))
    await agent.wait_asked("STARTWORKLOAD")
    assert (await acme.start(request())).name == "second"
    assert not slow.done()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_a_start_that_is_too_large_for_its_agent_is_refused(
    agent: ScriptedAgent, acme: ControlClient, client: Client
) -> None:
    """What reaches the node goes on to the agent with credentials beside it, and so is larger."""
    room = client.max_payload - len(request().model_copy(update={"tags": {}}).to_json())
    escaped = len(json.dumps(json.dumps({"pad": ""}, separators=(",", ":")))) - len(json.dumps("{}"))
    largest = request(json.dumps({"pad": "x" * (room - escaped)}, separators=(",", ":")))
    assert len(largest.model_copy(update={"tags": {}}).to_json()) == client.max_payload
    with pytest.raises(ControlRefused, match="failed to publish start workload request"):
        await acme.start(largest)


async def test_a_node_outlives_its_server(nats_server: EmbeddedServer, node: DevNode, client: Client) -> None:
    await nats_server.restart()
    async with asyncio.timeout(20):
        while True:
            try:
                found = await ControlClient(client, nodes=1, wait=0.5).ping(node.node_id)
            except (NoAnswer, nats.errors.Error):
                continue
            break
    assert found.node_id == node.node_id


# --- state ---------------------------------------------------------------------------------------------------------


async def test_the_state_file_is_private(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    file = tmp_path / "within" / "node.json"
    async with await DevNode.start(nats_server.url, state_file=file) as first:
        pass
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with await DevNode.start(nats_server.url, state_file=file) as second:
        assert (second.node_id, second.xkey) == (first.node_id, first.xkey)
    async with await DevNode.start(nats_server.url) as other:
        assert other.node_id != first.node_id
    assert json.loads(file.read_text())["node_seed"] not in repr(state.NodeState(file).identity)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 2}', '{"version":1,"node_seed":"SN","curve_seed":"SX","workloads":{}}'],
)
async def test_a_damaged_state_file_is_not_written_over(
    nats_server: EmbeddedServer, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "node.json"
    file.write_text(content)
    with pytest.raises(state.StateUnusable, match="move it away"):
        await DevNode.start(nats_server.url, state_file=file)
    assert file.read_text() == content


@pytest.mark.parametrize("seed", ["SUAAVWRZG6M5FA5VRRGWSCIHKTOJC7EWNIT4JV3FTOIPO4OBFR5WA7X5TE", "SN", "", "sn"])
async def test_another_seed_is_no_identity(tmp_path: Path, seed: str) -> None:
    file = tmp_path / "node.json"
    state.NodeState(file)
    stored = json.loads(file.read_text())
    stored["node_seed"] = seed
    file.write_text(json.dumps(stored))
    with pytest.raises(state.StateUnusable):
        state.NodeState(file)


async def test_a_state_file_that_cannot_be_read(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    with pytest.raises(state.StateUnusable, match="directory"):
        await DevNode.start(nats_server.url, state_file=tmp_path)


async def test_a_state_file_that_cannot_be_written(nats_server: EmbeddedServer, tmp_path: Path, client: Client) -> None:
    """The deployment goes on, as it does in a real node."""
    folder = tmp_path / "gone"
    async with await DevNode.start(nats_server.url, state_file=folder / "node.json"):
        (folder / "node.json").unlink()
        folder.rmdir()
        folder.write_text("a file in its place")
        async with await ScriptedAgent.register(nats_server.url) as agent:
            started = await ControlClient(client, "acme", nodes=1, stall=5).start(request())
            assert set(agent.workloads) == {started.id}
            async with await ScriptedAgent.register(nats_server.url) as successor:
                assert set(successor.existing_state) == {started.id}


# --- what it is started with ---------------------------------------------------------------------------------------


async def test_tags_and_name(nats_server: EmbeddedServer, client: Client) -> None:
    async with (
        await DevNode.start(nats_server.url, name="mine", tags={"zone": "a"}, nexus="other") as node,
        await ScriptedAgent.register(nats_server.url, nexus="other"),
    ):
        found = await ControlClient(client, nodes=1, stall=5).ping(node.node_id)
        assert found.tags is not None
        assert {name: found.tags[name] for name in ("zone", "nex.node", "nex.nexus")} == {
            "zone": "a",
            "nex.node": "mine",
            "nex.nexus": "other",
        }
        bids = await ControlClient(client, "acme", nodes=1, stall=5).auction(
            "inmem", tags={"zone": "a", "nex.os": "linux"}
        )
        assert len(bids) == 1
    with pytest.raises(ValueError, match="node's own"):
        await DevNode.start(nats_server.url, tags={"nex.os": "plan9"})


async def test_a_node_that_cannot_begin_leaves_no_connection(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Client] = []

    async def refuse(client: Client, **_: object) -> None:
        clients.append(client)
        raise RuntimeError("no service")

    monkeypatch.setattr("nexlet_functions.devnode.node.add_service", refuse)
    with pytest.raises(RuntimeError, match="no service"):
        await DevNode.start(nats_server.url)
    assert clients[0].is_closed


async def test_a_question_that_wants_no_answer(node: DevNode, client: Client) -> None:
    await client.publish(subjects.placement_tags(), b"{}")
    assert (await ControlClient(client, nodes=1, stall=5).ping(node.node_id)).state == "running"


async def test_no_server() -> None:
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:1:"):
        await DevNode.start("nats://user:hidden@127.0.0.1:1", connect_timeout=0.2)


class _Scoped:
    """Credentials of their own for each."""

    def registration(self, agent_id: str) -> NatsConnectionData:
        return NatsConnectionData(nats_user_name="reg", nats_user_password=SecretStr(agent_id))

    def agent(self, agent_id: str) -> NatsConnectionData:
        return NatsConnectionData(nats_user_name="agent", nats_user_password=SecretStr(agent_id))

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        return NatsConnectionData(nats_user_name=namespace, nats_user_password=SecretStr(workload_id))


async def test_credentials_are_minted_for_each(nats_server: EmbeddedServer, client: Client) -> None:
    async with await DevNode.start(nats_server.url, minter=_Scoped()):
        answer = json.loads((await client.request(subjects.remote_register("nexus"), b"{}")).data)
        assert answer["registration_creds"]["nats_user_name"] == "reg"
        assert answer["registration_creds"]["nats_user_password"] == answer["assigned_agent_id"]
        async with await ScriptedAgent.register(nats_server.url) as agent:
            started = await ControlClient(client, "acme", nodes=1, stall=5).start(request())
            minted = agent.workloads[started.id].workload_creds
            assert (minted.nats_user_name, minted.nats_user_password.get_secret_value()) == ("acme", started.id)


async def test_a_server_that_asks_who_we_are(tmp_path: Path) -> None:
    async with EmbeddedServer(config='authorization { user: "node", password: "s3cret" }') as server:
        credentials = Credentials(servers=(server.url,), user="node", password=SecretStr("s3cret"))
        async with await DevNode.start(credentials) as node:
            connected = await nats.connect(server.url, user="node", password="s3cret")
            assert (await ControlClient(connected, nodes=1).ping(node.node_id)).state == "running"
            await connected.close()


# --- what it makes of odd agents -----------------------------------------------------------------------------------


async def test_a_schema_that_refers_elsewhere_fetches_nothing(agent: ScriptedAgent, client: Client) -> None:
    body = json.loads(agent.register_request.to_json())
    body["start_request_schema"] = '{"$ref": "http://127.0.0.1:1/schema.json"}'
    answer = await client.request(subjects.register(agent.node, "a2"), json.dumps(body).encode(), timeout=5)
    assert (answer.headers or {})["Nats-Service-Error"] == "failed to compile schema"


async def test_agents_that_answer_nonsense(agent: ScriptedAgent, acme: ControlClient) -> None:
    started = await acme.start(request())
    for verb in ("QUERYWORKLOADS", "STOPWORKLOAD", "GETWORKLOAD"):
        agent.script(verb, lambda asked: Answer(b"nonsense"))
    assert await acme.workloads() == []
    assert not (await acme.stop(started.id)).stopped
    with pytest.raises(ControlRefused, match="internal server error"):
        await acme.clone(started.id)


async def test_agents_that_do_not_answer(agent: ScriptedAgent, node: DevNode, acme: ControlClient) -> None:
    for verb in ("QUERYWORKLOADS", "STOPWORKLOAD", "SETLAMEDUCK"):
        agent.script(verb, lambda asked: None)
    assert await acme.workloads() == []
    assert not (await acme.stop("w")).stopped
    assert (await ControlClient(agent.client, nodes=1).lameduck(node.node_id, 60)).success
