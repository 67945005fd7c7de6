"""What an agent and a client may count on from a node, over the stand-in and over a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer, NoBid
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models import subjects
from nexlet_models.control import AgentHealth, AuctionResponse
from nexlet_models.registration import AgentHeartbeat, RegisterAgentRequest
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.nodes import Node
from tests.support.scripted_agent import Answer, Asked, ScriptedAgent
from tests.support.settle import settle

SCHEMA = json.dumps({"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}})


def request(
    run_request: str = '{"x":1}',
    *,
    namespace: str = "acme",
    name: str = "fn",
    workload_type: str = "inmem",
    tags: dict[str, str] | None = None,
) -> StartWorkloadRequest:
    return StartWorkloadRequest(
        name=name,
        namespace=namespace,
        description="a function",
        workload_type=workload_type,
        workload_lifecycle=WorkloadLifecycle.FUNCTION,
        run_request=run_request,
        tags=tags,
    )


@pytest.fixture
async def agent(node: Node, nats_server: EmbeddedServer) -> AsyncIterator[ScriptedAgent]:
    async with await ScriptedAgent.register(nats_server.url, schema=SCHEMA) as registered:
        yield registered


@pytest.fixture
def acme(client: Client) -> ControlClient:
    return ControlClient(client, "acme", nodes=1, stall=5)


@pytest.fixture
def system(client: Client) -> ControlClient:
    return ControlClient(client, nodes=1, stall=5)


async def ask(client: Client, subject: str, body: object) -> Msg:
    return await client.request(subject, json.dumps(body).encode(), timeout=10)


async def is_silent(client: Client, subject: str, body: object, *, seconds: float = 0.3) -> bool:
    """Nothing announces silence: a while of it has to do."""
    try:
        await client.request(subject, json.dumps(body).encode(), timeout=seconds)
    except nats.errors.TimeoutError:
        return True
    return False


def error_of(answer: Msg) -> tuple[str, str]:
    headers = answer.headers or {}
    assert json.loads(answer.data)["error_id"]
    return headers["Nats-Service-Error-Code"], headers["Nats-Service-Error"]


# --- the node itself -----------------------------------------------------------------------------------------------


async def test_a_node_is_found(node: Node, system: ControlClient) -> None:
    [found] = await system.nodes()
    assert found.node_id == node.node_id
    assert found.state == "running"
    assert found.agent_count == 0
    assert found.xkey.startswith("X")
    assert found.tags is not None
    assert found.tags["nex.nexus"] == "nexus"
    assert found.tags["nex.lameduck"] == "false"
    assert await system.placement_tags() == found.tags
    assert await system.ping(node.node_id) == found


async def test_a_node_is_found_by_its_tags(node: Node, client: Client) -> None:
    asked = ControlClient(client, stall=0.2, wait=0.5)
    assert [found.node_id for found in await asked.nodes({"nex.nexus": "nexus"})] == [node.node_id]
    assert await asked.nodes({"nex.nexus": "another"}) == []


async def test_a_node_without_agents(node: Node, acme: ControlClient, system: ControlClient) -> None:
    info = await system.info(node.node_id)
    assert info.node_agent_summaries is None
    stopped = await acme.stop("nosuch")
    assert (stopped.stopped, stopped.message, stopped.workload_type) == (False, "workload not found", "")
    with pytest.raises(ControlRefused, match="internal server error") as refused:
        await acme.workloads()
    assert refused.value.status == 500
    assert refused.value.headline == "failed to publish query workloads request"
    assert refused.value.error_id


async def test_nodes_that_are_not_there(node: Node, system: ControlClient) -> None:
    with pytest.raises(NoAnswer, match="nex node ls"):
        await system.info("N" + "A" * 55)


@pytest.mark.parametrize(
    ("subject", "headline"),
    [
        (subjects.auction("acme"), "failed to unmarshal auction request"),
        (subjects.undeploy("acme", "w"), "failed to unmarshal stop workload request"),
        (subjects.clone("acme", "w"), "failed to unmarshal clone workload request"),
        (subjects.list_workloads("acme"), "failed to unmarshal ping request"),
        (subjects.node_ping(), "failed to unmarshal ping request"),
    ],
)
async def test_malformed_requests(node: Node, client: Client, subject: str, headline: str) -> None:
    assert error_of(await ask(client, subject, {})) == ("400", headline)
    answer = await client.request(subject, b"{", timeout=10)
    assert error_of(answer) == ("400", headline)


async def test_malformed_requests_to_the_node_itself(node: Node, client: Client) -> None:
    answer = await client.request(subjects.remote_register("nexus"), b"[]", timeout=10)
    assert error_of(answer) == ("400", "failed to unmarshal register remote agent request")
    answer = await client.request(subjects.agent_id(node.node_id), b"", timeout=10)
    assert error_of(answer) == ("400", "agent name is required")
    answer = await client.request(subjects.node_lameduck(node.node_id), b"{}", timeout=10)
    assert error_of(answer) == ("400", "failed to unmarshal lameduck request")


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        (subjects.undeploy("acme", "w"), {"namespace": "other"}),
        (subjects.clone("acme", "w"), {"namespace": "other", "new_target_xkey": ""}),
        (subjects.list_workloads("acme"), {"namespace": "other", "filter": None}),
    ],
)
async def test_another_namespace_is_refused(node: Node, client: Client, subject: str, body: object) -> None:
    assert error_of(await ask(client, subject, body)) == ("403", "namespace mismatch: acme != other")


# --- agents --------------------------------------------------------------------------------------------------------


async def test_an_agent_registers(agent: ScriptedAgent, node: Node, system: ControlClient) -> None:
    assert agent.node == node.node_id
    assert agent.existing_state == {}
    seen = await agent.as_seen_by_node()
    assert seen.agent_health == AgentHealth.HEALTHY
    assert seen.agent_health_stoplight == "🟢"
    assert seen.agent_summary.name == "inmem"
    assert (await system.ping(node.node_id)).agent_count == 1
    assert await system.agent_id(node.node_id, "inmem") == agent.agent_id


async def test_an_agent_without_a_heartbeat_wins_nothing(
    node: Node, nats_server: EmbeddedServer, client: Client
) -> None:
    async with await ScriptedAgent.register(nats_server.url, healthy=False) as agent:
        assert (await agent.as_seen_by_node()).agent_health in (AgentHealth.UNKNOWN, AgentHealth.OFFLINE)
        assert await ControlClient(client, "acme", stall=0.3).auction("inmem") == []
        await agent.heartbeat()
        assert len(await ControlClient(client, "acme", nodes=1, stall=5).auction("inmem")) == 1


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("running", AgentHealth.HEALTHY), ("starting", AgentHealth.DEGRADED), ("error", AgentHealth.DEGRADED),
        ("lameduck", AgentHealth.SHUTTING_DOWN), ("stopping", AgentHealth.SHUTTING_DOWN), ("odd", AgentHealth.UNKNOWN),
    ],
)  # fmt: skip
async def test_health_is_what_the_heartbeat_says(
    agent: ScriptedAgent, client: Client, state: str, health: AgentHealth
) -> None:
    await agent.heartbeat(state)
    assert (await agent.as_seen_by_node()).agent_health == health
    healthy = health is AgentHealth.HEALTHY
    bids = await ControlClient(client, "acme", nodes=1, stall=5 if healthy else 0.3).auction("inmem")
    assert bool(bids) is healthy


async def test_a_malformed_heartbeat_changes_nothing(agent: ScriptedAgent) -> None:
    await agent.client.publish(subjects.heartbeat(agent.node, agent.agent_id), b'{"data": 1}')
    await settle(agent.client)
    assert (await agent.as_seen_by_node()).agent_health == AgentHealth.HEALTHY


async def test_heartbeats_of_agents_nobody_knows(agent: ScriptedAgent, system: ControlClient) -> None:
    beat = AgentHeartbeat(data="", summary=agent.summary())
    await agent.client.publish(subjects.heartbeat(agent.node, "nobody"), beat.to_json())
    await settle(agent.client)
    assert len((await system.info(agent.node)).node_agent_summaries or ()) == 1


async def test_the_same_id_twice_is_refused(agent: ScriptedAgent, client: Client) -> None:
    body = json.loads(agent.register_request.to_json())
    answer = await ask(client, subjects.register(agent.node, agent.agent_id), body)
    assert error_of(answer) == ("500", "failed to update registration")
    assert json.loads(answer.data)["error"] == "internal server error"


@pytest.mark.parametrize(
    ("change", "code", "headline"),
    [
        ({"register_type": ""}, "400", "register_type is required"),
        ({"start_request_schema": "{"}, "400", "failed to unmarshal start request schema"),
        ({"start_request_schema": '{"type": 5}'}, "500", "failed to compile schema"),
        ({"name": 5}, "400", "failed to unmarshal register local agent request"),
    ],
)
async def test_registrations_refused(
    node: Node, client: Client, change: dict[str, object], code: str, headline: str
) -> None:
    good = RegisterAgentRequest(
        name="a",
        register_type="a",
        version="0.0.0",
        description="",
        max_workloads=0,
        public_xkey="X",
        start_request_schema="{}",
    )
    body = json.loads(good.to_json()) | change
    assert error_of(await ask(client, subjects.register(node.node_id, "a1"), body)) == (code, headline)


# --- workloads -----------------------------------------------------------------------------------------------------


async def test_a_workload_from_start_to_stop(agent: ScriptedAgent, acme: ControlClient, system: ControlClient) -> None:
    started = await acme.start(request())
    assert started.name == "fn"
    asked = agent.workloads[started.id]
    assert asked.request == request(tags={})
    assert asked.workload_creds.nats_servers

    [listed] = await acme.workloads()
    assert (listed.id, listed.name, listed.namespace) == (started.id, "fn", "acme")
    for filtered in ([started.id], ["fn"], ["nosuch", "fn"]):
        assert [summary.id for summary in await acme.workloads(filtered)] == [started.id]
    assert await acme.workloads(["nosuch"]) == []
    assert [summary.id for summary in await system.workloads()] == [started.id]

    stopped = await acme.stop(started.id)
    assert (stopped.stopped, stopped.id, stopped.workload_type) == (True, started.id, "inmem")
    assert agent.workloads == {}
    assert not (await acme.stop(started.id)).stopped


async def test_a_workload_is_stopped_from_system(
    agent: ScriptedAgent, acme: ControlClient, system: ControlClient
) -> None:
    started = await acme.start(request())
    assert (await system.stop(started.id)).stopped


async def test_a_clone(agent: ScriptedAgent, acme: ControlClient, system: ControlClient) -> None:
    first = await acme.start(request())
    second = await acme.clone(first.id)
    third = await system.clone(first.id)
    assert len({first.id, second.id, third.id}) == 3
    assert agent.workloads[second.id].request == agent.workloads[first.id].request
    # What is sealed is sealed to who is going to run the clone.
    target = json.loads((await agent.wait_asked("GETWORKLOAD", count=2)).data)["new_target_xkey"]
    assert target == agent.register_request.public_xkey


async def test_a_clone_of_what_others_own_is_not_to_be_had(
    agent: ScriptedAgent, acme: ControlClient, client: Client
) -> None:
    started = await acme.start(request())
    body = {"namespace": "other", "new_target_xkey": ""}
    assert await is_silent(client, subjects.clone("other", started.id), body)


async def test_a_clone_of_nothing(agent: ScriptedAgent, client: Client) -> None:
    with pytest.raises(NoAnswer, match="nex workload ls"):
        await ControlClient(client, "acme", wait=0.3).clone("nosuch")


async def test_no_bid(agent: ScriptedAgent, client: Client) -> None:
    hasty = ControlClient(client, "acme", stall=0.3)
    with pytest.raises(NoBid, match="type 'nosuch'"):
        await hasty.start(request(workload_type="nosuch"))
    with pytest.raises(NoBid, match="tags"):
        await hasty.start(request(tags={"a": "b"}))


async def test_a_bid_of_another_lifecycle(node: Node, nats_server: EmbeddedServer, acme: ControlClient) -> None:
    async with await ScriptedAgent.register(nats_server.url, lifecycles=(WorkloadLifecycle.JOB,)):
        with pytest.raises(NoBid, match="lifecycle function"):
            await acme.start(request())


@pytest.mark.parametrize(
    ("run_request", "headline"),
    [
        ("{", "failed to unmarshal start request"),
        ('{"x":"secret"}', "failed to validate run request"),
        ("[]", "failed to validate run request"),
        pytest.param('{"x":' * 900 + "1" + "}" * 900, "failed to validate run request", id="nested"),
    ],
)
async def test_the_node_checks_the_schema(
    agent: ScriptedAgent, acme: ControlClient, run_request: str, headline: str
) -> None:
    with pytest.raises(ControlRefused) as refused:
        await acme.start(request(run_request))
    assert (refused.value.status, refused.value.headline) == (400, headline)
    assert "secret" not in str(refused.value)
    assert agent.asked == []


async def test_a_deployment_for_another_namespace(agent: ScriptedAgent, acme: ControlClient, client: Client) -> None:
    [bid] = await acme.auction("inmem")
    body = json.loads(request(tags={}).to_json())
    answer = await ask(client, subjects.deploy("other", bid.bidder_id), body)
    assert error_of(answer) == ("403", "namespace mismatch: other != acme")
    answer = await ask(client, subjects.deploy("system", bid.bidder_id), body)
    assert json.loads(answer.data)["name"] == "fn"


async def test_a_bid_nobody_made(agent: ScriptedAgent, client: Client) -> None:
    bid = AuctionResponse(bidder_id="nosuch", start_request_schema="{}", supported_lifecycles=(), xkey="")
    body = json.loads(request(tags={}).to_json())
    assert await is_silent(client, subjects.deploy("acme", bid.bidder_id), body)


async def test_a_bid_whose_agent_is_going(agent: ScriptedAgent, acme: ControlClient) -> None:
    [bid] = await acme.auction("inmem")
    await agent.heartbeat("stopping")
    with pytest.raises(ControlRefused, match="workload type not found") as refused:
        await acme.deploy(bid, request())
    assert refused.value.status == 404


async def test_a_clone_the_agent_says_it_does_not_know(agent: ScriptedAgent, client: Client) -> None:
    headers = {"Nats-Service-Error": "workload not found", "Nats-Service-Error-Code": "100"}
    agent.script("GETWORKLOAD", lambda asked: Answer(b"{}", headers))
    assert await is_silent(client, subjects.clone("acme", "w"), {"namespace": "acme", "new_target_xkey": ""})


async def test_an_agents_refusal_reaches_the_client_whole(agent: ScriptedAgent, acme: ControlClient) -> None:
    text = "fn refused: 1 problem\n  function.py:1:1  import of 'os' is not allowed here"

    def refuse(asked: Asked) -> Answer:
        body = {"id": asked.workload, "name": "fn", "error": text, "error_id": "e1"}
        headers = {"Nats-Service-Error": "fn refused: 1 problem", "Nats-Service-Error-Code": "400"}
        return Answer(json.dumps(body).encode(), headers)

    agent.script("STARTWORKLOAD", refuse)
    with pytest.raises(ControlRefused) as refused:
        await acme.start(request())
    assert str(refused.value) == text
    assert (refused.value.status, refused.value.headline) == (400, "fn refused: 1 problem")
    assert refused.value.error_id == "e1"


async def test_an_agent_that_is_gone_without_a_word(agent: ScriptedAgent, acme: ControlClient) -> None:
    await agent.close()
    with pytest.raises(ControlRefused, match="internal server error") as refused:
        await acme.start(request())
    assert refused.value.headline == "failed to publish start workload request"


async def test_a_dead_registration_delays_lists_and_loses_nothing(
    agent: ScriptedAgent, nats_server: EmbeddedServer, acme: ControlClient
) -> None:
    started = await acme.start(request())
    dead = await ScriptedAgent.register(nats_server.url, register_type="other")
    await dead.close()
    assert [summary.id for summary in await acme.workloads()] == [started.id]
    assert (await acme.stop(started.id)).stopped


async def test_each_agent_of_a_node_is_asked(
    agent: ScriptedAgent, nats_server: EmbeddedServer, acme: ControlClient
) -> None:
    async with await ScriptedAgent.register(nats_server.url, register_type="other") as other:
        here = await acme.start(request())
        there = await acme.start(request(workload_type="other", name="there"))
        assert set(other.workloads) == {there.id}
        assert {summary.id for summary in await acme.workloads()} == {here.id, there.id}
        assert (await acme.stop(there.id)).workload_type == "other"
        await agent.wait_asked("STOPWORKLOAD")


# --- over a restart ------------------------------------------------------------------------------------------------


async def test_workloads_are_kept_by_type(
    agent: ScriptedAgent, node: Node, nats_server: EmbeddedServer, acme: ControlClient
) -> None:
    kept = await acme.start(request(name="kept"))
    stopped = await acme.start(request(name="stopped"))
    assert (await acme.stop(stopped.id)).stopped
    node_id = node.node_id
    await node.stop()
    await node.start()
    assert node.node_id == node_id
    async with (
        await ScriptedAgent.register(nats_server.url) as successor,
        await ScriptedAgent.register(nats_server.url) as another,
        await ScriptedAgent.register(nats_server.url, register_type="other") as other,
    ):
        assert set(successor.existing_state) == set(another.existing_state) == {kept.id}
        assert successor.existing_state[kept.id].request == request(name="kept", tags={})
        assert other.existing_state == {}


async def test_a_start_that_failed_is_kept_all_the_same(
    agent: ScriptedAgent, nats_server: EmbeddedServer, acme: ControlClient
) -> None:
    headers = {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "100"}
    agent.script("STARTWORKLOAD", lambda asked: Answer(b'{"id":"w","name":"fn"}', headers))
    with pytest.raises(ControlRefused):
        await acme.start(request())
    failed = (await agent.wait_asked("STARTWORKLOAD")).workload
    async with await ScriptedAgent.register(nats_server.url) as successor:
        assert set(successor.existing_state) == {failed}


async def test_a_restarted_node_knows_no_agents(
    agent: ScriptedAgent, node: Node, client: Client, system: ControlClient
) -> None:
    await node.stop()
    await node.start()
    assert (await system.ping(node.node_id)).agent_count == 0
    # Registering with the old id is how a nexlet can tell.
    body = json.loads(agent.register_request.to_json())
    answer = await ask(client, subjects.register(node.node_id, agent.agent_id), body)
    assert json.loads(answer.data)["success"] is True


# --- the end -------------------------------------------------------------------------------------------------------


async def test_lameduck(agent: ScriptedAgent, node: Node, client: Client, system: ControlClient) -> None:
    events = await client.subscribe(subjects.all_events(node.node_id))
    await settle(client)
    answer = await system.lameduck(node.node_id, 1.5)
    assert answer.success
    assert answer.message.startswith("node entering lameduck mode, will shutdown at ")
    assert json.loads((await agent.wait_asked("SETLAMEDUCK")).data) == {"delay": "1.5s"}
    announced = await events.next_msg(timeout=5)
    assert announced.subject.endswith(".NODELAMEDUCKSET")
    assert json.loads(announced.data)["id"] == node.node_id
    info = await system.ping(node.node_id)
    assert info.state == "lameduck"
    assert info.tags is not None
    assert info.tags["nex.lameduck"] == "true"
    await node.wait_ended()
    with pytest.raises(NoAnswer):
        await system.ping(node.node_id)


async def test_lameduck_with_another_tag_or_no_delay(agent: ScriptedAgent, node: Node, client: Client) -> None:
    subject = subjects.node_lameduck(node.node_id)
    assert error_of(await ask(client, subject, {"delay": "soon"})) == ("400", "failed to parse lameduck delay")
    assert await is_silent(client, subject, {"delay": "1h", "tag": {"a": "b"}})
    assert agent.asked == []


async def test_a_node_announces_its_start(node: Node, client: Client) -> None:
    """Its end is not always told: a real node may exit before its last words are sent."""
    await node.stop()
    started = await client.subscribe(subjects.event(node.node_id, "NODESTARTED"))
    await settle(client)
    await node.start()
    body = json.loads((await started.next_msg(timeout=5)).data)
    assert body["id"] == node.node_id
    assert body["nexus"] == body["tags"]["nex.nexus"] == "nexus"
