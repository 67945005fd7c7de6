"""Every endpoint of a nexlet, with every answer that the node may get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import nats.errors
import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.runner import RunnerSettings
from nexlet_models import subjects
from nexlet_models.registration import AgentSummary, LameduckResponse
from nexlet_models.workloads import StartWorkloadRequest, StartWorkloadResponse, StopWorkloadResponse, WorkloadSummary
from tests.support.echo_agent import EchoAgent
from tests.support.frames import FRAMES
from tests.support.polling import eventually
from tests.support.running import QUICK, Running, Start
from tests.support.scripted_node import NODE, ScriptedNode, start_request
from tests.support.settle import settle

# --- starting and stopping ------------------------------------------------------------------------------------------


async def test_start(running: Running, node: ScriptedNode) -> None:
    answer = await node.start("w1", start_request(node.url))
    assert answer.json == {"id": "w1", "name": "fn"}
    assert answer.headers == {}
    assert list(running.agent.workloads) == ["w1"]
    assert running.agent.existing == []
    assert await node.listed("acme") == ["w1"]


async def test_a_refusal_has_its_first_line_in_the_header_and_all_of_it_in_the_body(
    running: Running, node: ScriptedNode
) -> None:
    text = "greet refused: 2 problems\n  function.py:1:1  import of 'os' is not allowed here\n    1 | import os"
    run = json.dumps({"refuse": text, "status": 403})
    answer = await node.start("w1", start_request(node.url, run=run))
    assert answer.error == ("greet refused: 2 problems", "403")
    refusal = StartWorkloadResponse.from_json(json.dumps(answer.json))
    assert (refusal.id, refusal.name, refusal.error) == ("w1", "fn", text)
    assert refusal.error_id


async def test_what_a_header_cannot_hold_does_not_get_into_it(running: Running, node: ScriptedNode) -> None:
    run = json.dumps({"refuse": "bad\r\ttext\x00 here\r\nNats-Service-Error-Code: 200", "status": 409})
    answer = await node.start("w1", start_request(node.url, run=run))
    assert answer.error == ("bad text  here", "409")


@pytest.mark.parametrize("body", [b"", b"no json", b"{}", b'{"request": {}, "workload_creds": {}}', b"\xff", b"[]"])
async def test_a_malformed_start_is_answered_400(running: Running, node: ScriptedNode, body: bytes) -> None:
    answer = await node.ask(subjects.start_workload(NODE, node.agent, "w1"), body)
    assert answer.error is not None
    assert answer.error[0].startswith("malformed request: not a AgentStartWorkloadRequest")
    assert answer.error[1] == "400"
    assert answer.json["id"] == "w1"
    assert answer.json["name"] == ""
    assert running.agent.attempts == []


async def test_a_bug_of_the_agent_is_answered_500_and_tells_nothing(running: Running, node: ScriptedNode) -> None:
    answer = await node.start("w1", start_request(node.url, run='{"bug": true}'))
    assert answer.error is not None
    assert answer.error[1] == "500"
    assert "secret" not in json.dumps(answer.json) + answer.error[0]
    assert answer.json["error_id"] in answer.json["error"]


async def test_stop(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url, run='{"triggers": ["a.*"]}'))
    answer = await node.stop("w1")
    assert answer.json == {"id": "w1", "workload_type": "echo", "stopped": True, "message": ""}
    assert answer.headers == {}
    assert running.agent.workloads == {}


@pytest.mark.parametrize(("workload", "namespace"), [("nosuch", "acme"), ("w1", "other")])
async def test_stop_of_what_is_not_there(running: Running, node: ScriptedNode, workload: str, namespace: str) -> None:
    await node.start("w1", start_request(node.url))
    answer = await node.stop(workload, namespace)
    assert answer.error == ("workload not found", "404")
    assert answer.json == {
        "id": workload,
        "workload_type": "echo",
        "stopped": False,
        "message": "workload not found",
    }
    assert "w1" in running.agent.workloads


async def test_a_malformed_stop_is_answered_400(running: Running, node: ScriptedNode) -> None:
    answer = await node.ask(subjects.stop_workload(NODE, "w1"), b"nothing")
    assert answer.error is not None
    assert answer.error[1] == "400"
    stopped = StopWorkloadResponse.from_json(json.dumps(answer.json))
    assert (stopped.id, stopped.stopped, stopped.workload_type) == ("w1", False, "echo")


async def test_a_bug_while_stopping_is_answered(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url, run='{"stop": "bug"}'))
    answer = await node.stop("w1")
    assert answer.error is not None
    assert answer.error[1] == "500"
    assert answer.json["stopped"] is False
    assert "secret" not in answer.json["message"]


async def test_triggers_that_the_agent_forgot_are_ended_with_the_workload(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    class Forgetful(EchoAgent):
        async def stop_workload(self, workload_id: str, namespace: str) -> None:
            del self.workloads[workload_id]

    async with start(nats_server.url, agent=Forgetful) as running:
        await node.registered()
        await node.start("w1", start_request(node.url, run='{"triggers": ["a.b"]}'))
        await node.stop("w1")
        with pytest.raises(nats.errors.NoRespondersError):
            await node.client.request("a.b", timeout=5)
        assert running.agent.sink.messages == []


# --- asking ---------------------------------------------------------------------------------------------------------


async def test_get(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url))
    answer = await node.ask(subjects.get_workload(NODE, "w1"), {"namespace": "acme", "new_target_xkey": "XTARGET"})
    assert StartWorkloadRequest.from_json(json.dumps(answer.json)) == start_request(node.url).request
    assert running.agent.xkeys == ["XTARGET"]
    # The contract lets a node send anything.
    assert (await node.ask(subjects.get_workload(NODE, "w1"), b"anything")).json == answer.json
    assert (await node.ask(subjects.get_workload(NODE, "w1"), {"namespace": "system", "new_target_xkey": ""})).json


async def test_get_of_what_is_not_there_is_silence(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url))
    assert await node.ask_many(subjects.get_workload(NODE, "nosuch")) == []
    assert await node.ask_many(subjects.get_workload(NODE, "w1"), {"namespace": "other", "new_target_xkey": ""}) == []


async def test_query(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url, name="one"))
    await node.start("w2", start_request(node.url, name="two", namespace="other"))
    query = subjects.query_workloads(NODE)
    assert (await node.ask(query, {"namespace": "nobody", "filter": None})).json == []
    answer = await node.ask(query, {"namespace": "acme", "filter": None})
    assert [WorkloadSummary.from_json(json.dumps(one)).id for one in answer.json] == ["w1"]
    assert len((await node.ask(query, {"namespace": "system", "filter": []})).json) == 2
    assert [one["id"] for one in (await node.ask(query, {"namespace": "system", "filter": ["two"]})).json] == ["w2"]


async def test_a_malformed_query_is_answered_once(running: Running, node: ScriptedNode) -> None:
    answers = await node.ask_many(subjects.query_workloads(NODE), {"namespace": 1})
    assert len(answers) == 1
    assert answers[0].error is not None
    assert answers[0].error[1] == "400"
    assert answers[0].json["error_id"]


@pytest.mark.parametrize("all_agents", [False, True])
async def test_ping(running: Running, node: ScriptedNode, all_agents: bool) -> None:
    subject = subjects.ping_agents(NODE) if all_agents else subjects.ping_agent(NODE, node.agent)
    answer = await node.ask(subject)
    assert answer.headers == {"agentId": node.agent}
    summary = AgentSummary.from_json(json.dumps(answer.json))
    assert (summary.name, summary.type, summary.state, summary.workload_count) == ("echo", "echo", "running", 0)


# --- lameduck -------------------------------------------------------------------------------------------------------


async def test_lameduck(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url, run='{"triggers": ["a"]}'))
    answer = await node.ask(subjects.set_lameduck(NODE), {"delay": "1m0s"})
    assert LameduckResponse.from_json(json.dumps(answer.json)) == LameduckResponse(success=True, message="")
    assert answer.headers == {"agentId": node.agent}
    assert running.agent.lameduck_delay == 60
    await eventually(lambda: node.states()[-1] == "lameduck")
    refused = await node.start("w2", start_request(node.url))
    assert refused.error == ("this nexlet is lameduck and takes no new workloads", "503")
    assert refused.json["id"] == "w2"
    # What runs is served until the delay is over.
    await node.client.publish("a", b"still")
    await running.agent.sink.count(1)
    assert (await node.ask(subjects.ping_agents(NODE))).json["state"] == "lameduck"


async def test_the_end_of_lameduck_ends_the_runner(running: Running, node: ScriptedNode) -> None:
    await node.ask(subjects.set_lameduck(NODE), {"delay": "50ms"})
    await asyncio.wait_for(running.task, 10)
    assert running.agent.closed == QUICK.grace
    assert node.states()[-1] == "lameduck"


@pytest.mark.parametrize("delay", ["", "soon", "-1s", "10"])
async def test_a_lameduck_delay_that_is_none(running: Running, node: ScriptedNode, delay: str) -> None:
    answers = await node.ask_many(subjects.set_lameduck(NODE), {"delay": delay})
    assert len(answers) == 1
    assert answers[0].error is not None
    assert answers[0].error[1] == "400"
    assert answers[0].json["success"] is False
    assert answers[0].headers["agentId"] == node.agent
    assert running.agent.lameduck_delay is None


# --- capabilities ---------------------------------------------------------------------------------------------------


class Ports(EchoAgent):
    """Its workloads listen on ports; it hears events."""

    heard: list[bytes]

    async def ping_workload(self, workload_id: str) -> bool:
        return workload_id in self.workloads

    async def exposed_ports(self, workload_id: str) -> list[int]:
        return [8080, 8081]

    async def on_event(self, data: bytes) -> None:
        self.__dict__.setdefault("heard", []).append(data)

    def service_metadata(self) -> dict[str, str]:
        return {"locks": "seccomp"}


async def test_ingress_and_events(nats_server: EmbeddedServer, node: ScriptedNode, start: Start) -> None:
    settings = RunnerSettings(heartbeat_interval=0.2, ingress_host="10.0.0.7")
    async with start(nats_server.url, agent=Ports, settings=settings) as running:
        agent_id = await node.registered()
        told = await node.client.subscribe(subjects.ingress(agent_id))
        await settle(node.client)
        await node.start("w1", start_request(node.url))
        assert json.loads((await told.next_msg(5)).data) == {
            "workload_id": "w1",
            "upstream": "10.0.0.7:8080",
            "command": "add",
        }
        assert (await node.ask(subjects.ping_workload("nexus", "w1"))).json == {"node_id": NODE}
        assert await node.ask_many(subjects.ping_workload("nexus", "nosuch")) == []
        await node.client.publish(subjects.agent_events(agent_id), b"anything")
        agent = running.agent
        assert isinstance(agent, Ports)
        await eventually(lambda: getattr(agent, "heard", None) == [b"anything"])
        await node.stop("w1")
        assert json.loads((await told.next_msg(5)).data)["command"] == "remove"
        info = (await node.ask("$SRV.INFO.echo")).json
        assert info["metadata"] == {"locks": "seccomp"}
        assert [one["name"] for one in info["endpoints"]][-2:] == ["WorkloadDiscovery", "EventListener"]


# --- the micro service ----------------------------------------------------------------------------------------------


async def test_info_looks_like_that_of_nexs_own_nexlets(running: Running, node: ScriptedNode) -> None:
    scenarios = json.loads(FRAMES.read_text())["scenarios"]
    recorded = next(one for one in scenarios if one["name"] == "micro_info")["frames"][1]["json"]
    subject = recorded["endpoints"][0]["subject"].split(".")
    node_id, agent_id = subject[2], subject[4]

    info = (await node.ask("$SRV.INFO.echo")).json
    expected = json.dumps(recorded).replace(node_id, NODE).replace(agent_id, node.agent)
    assert info == json.loads(expected) | {"name": "echo", "version": "1.2.3", "id": info["id"]}
    assert (await node.ask(f"$SRV.INFO.echo.{info['id']}")).json == info
    ping = (await node.ask("$SRV.PING")).json
    assert ping == {
        "type": "io.nats.micro.v1.ping_response", "name": "echo", "id": info["id"], "version": "1.2.3", "metadata": {},
    }  # fmt: skip


async def test_stats_count_requests_and_errors(running: Running, node: ScriptedNode) -> None:
    await node.start("w1", start_request(node.url))
    await node.start("w2", start_request(node.url, run='{"refuse": "no"}'))
    stats = (await node.ask("$SRV.STATS.echo")).json
    endpoint = stats["endpoints"][0]
    assert (endpoint["name"], endpoint["num_requests"], endpoint["num_errors"]) == ("StartWorkload", 2, 1)
    assert endpoint["last_error"] == "400:no"
    assert endpoint["average_processing_time"] == endpoint["processing_time"] // 2


async def test_requests_do_not_wait_for_each_other(running: Running, node: ScriptedNode) -> None:
    gate = running.agent.gates["later"] = asyncio.Event()
    slow = asyncio.create_task(node.start("slow", start_request(node.url, run='{"wait": "later"}')))
    await eventually(lambda: running.agent.attempts == ["slow"])
    assert (await node.start("quick", start_request(node.url))).json["id"] == "quick"
    assert (await node.ask(subjects.ping_agents(NODE))).json["name"] == "echo"
    gate.set()
    assert (await slow).json == {"id": "slow", "name": "fn"}


async def test_one_request_too_many_is_answered_503(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    settings = RunnerSettings(heartbeat_interval=0.2, max_requests=2)
    async with start(nats_server.url, settings=settings) as running:
        await node.registered()
        gate = running.agent.gates["g"] = asyncio.Event()
        held = [
            asyncio.create_task(node.start(f"w{number}", start_request(node.url, run='{"wait": "g"}')))
            for number in range(2)
        ]
        await eventually(lambda: len(running.agent.attempts) == 2)
        answer = await node.ask(subjects.ping_agents(NODE))
        assert answer.error == ("busy: 2 requests are being served", "429")
        gate.set()
        assert [one.json["id"] for one in await asyncio.gather(*held)] == ["w0", "w1"]


async def test_an_answer_that_is_too_large_says_so(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start
) -> None:
    class Crowded(EchoAgent):
        async def query_workloads(self, namespace: str, filter: Sequence[str]) -> list[WorkloadSummary]:
            one = (await super().query_workloads(namespace, filter))[0]
            return [one.model_copy(update={"name": "n" * 1000})] * 1100

    async with start(nats_server.url, agent=Crowded):
        await node.registered()
        await node.start("w1", start_request(node.url))
        answer = await node.ask(subjects.query_workloads(NODE), {"namespace": "acme", "filter": None})
        assert answer.error is not None
        assert "the server takes 1048576" in answer.error[0]


async def test_a_request_that_is_cut_off_by_the_end_is_answered(running: Running, node: ScriptedNode) -> None:
    running.agent.gates["never"] = asyncio.Event()
    cut = asyncio.create_task(node.start("w1", start_request(node.url, run='{"wait": "never"}')))
    await eventually(lambda: running.agent.attempts == ["w1"])
    running.runner.stop_soon(0)
    assert (await cut).error == ("stopping", "503")
    await running.task
