"""A nexlet reduced to what it says: registers, sends heartbeats when told to, and answers as the script has it.

It keeps workloads in memory and runs nothing. What it was asked is in `asked`; an answer of its own for one kind of
request is set with `script`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_models import subjects
from nexlet_models.base import parse_timestamp, timestamp
from nexlet_models.control import CloneWorkloadRequest, NodeAgentSummary, NodeInfoResponse
from nexlet_models.registration import (
    AgentHeartbeat,
    AgentState,
    AgentSummary,
    LameduckResponse,
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterRemoteAgentResponse,
)
from nexlet_models.workloads import (
    AgentListWorkloadsRequest,
    AgentListWorkloadsResponse,
    AgentStartWorkloadRequest,
    StartWorkloadResponse,
    StopWorkloadRequest,
    StopWorkloadResponse,
    WorkloadLifecycle,
    WorkloadState,
    WorkloadSummary,
)
from tests.support.settle import settle

__all__ = ["Asked", "ScriptedAgent"]

XKEY = "XDTGFLFYZJPZMT5U7ONWUW4BHIESQPBRTMR7NIBFTCNBBFJRITXSUGB5"


@dataclass(frozen=True)
class Asked:
    """One request of the node."""

    verb: str
    workload: str
    data: bytes


@dataclass
class Answer:
    """What goes back; None instead of one is silence."""

    data: bytes
    headers: dict[str, str] | None = None


Script = Callable[[Asked], Answer | None]


class ScriptedAgent:
    """One registered agent.

    Attributes:
        asked: every request, in order.
        workloads: what was started and not stopped.
        existing_state: what the node gave it.
    """

    def __init__(self, client: Client, node: str, agent_id: str, register: RegisterAgentRequest) -> None:
        self.client = client
        self.node = node
        self.agent_id = agent_id
        self.register_request = register
        self.asked: list[Asked] = []
        self.workloads: dict[str, AgentStartWorkloadRequest] = {}
        self.existing_state: dict[str, AgentStartWorkloadRequest] = {}
        self._scripts: dict[str, Script] = {}
        self._came = asyncio.Condition()

    @classmethod
    async def register(
        cls,
        url: str,
        *,
        register_type: str = "inmem",
        name: str | None = None,
        schema: str = "{}",
        nexus: str = "nexus",
        healthy: bool = True,
        lifecycles: tuple[WorkloadLifecycle, ...] = tuple(WorkloadLifecycle),
    ) -> Self:
        """Connect, register and serve; with a first heartbeat unless told otherwise."""
        client = await nats.connect(url)
        answer = await client.request(subjects.remote_register(nexus), b"{}", timeout=5)
        assigned = RegisterRemoteAgentResponse.from_json(answer.data)
        request = _registration(name or register_type, register_type, schema, lifecycles)
        agent = cls(client, assigned.respond_to, assigned.assigned_agent_id, request)
        answer = await client.request(subjects.register(agent.node, agent.agent_id), request.to_json(), timeout=5)
        response = RegisterAgentResponse.from_json(answer.data)
        assert response.success, answer.headers
        agent.existing_state = response.existing_state or {}
        await agent._serve()
        if healthy:
            await agent.heartbeat()
        return agent

    @classmethod
    async def resume(cls, url: str, node: str, agent_id: str, *, register_type: str) -> Self:
        """Serve as an agent that is registered already."""
        client = await nats.connect(url)
        agent = cls(client, node, agent_id, _registration(register_type, register_type, "{}", tuple(WorkloadLifecycle)))
        await agent._serve()
        return agent

    async def close(self) -> None:
        """Gone without a word."""
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def script(self, verb: str, script: Script) -> None:
        """Answer requests of that kind (`STARTWORKLOAD`, ...) so from now on."""
        self._scripts[verb] = script

    async def heartbeat(self, state: str = AgentState.RUNNING) -> None:
        """Say how it goes; the node has it when this returns."""
        beat = AgentHeartbeat(data="scripted", summary=self.summary(state))
        await self.client.publish(subjects.heartbeat(self.node, self.agent_id), beat.to_json())
        sent = parse_timestamp(beat.summary.start_time)
        async with asyncio.timeout(10):
            while parse_timestamp((await self.as_seen_by_node()).agent_summary.start_time) != sent:
                pass  # a heartbeat has no answer: ask until it was heard

    async def as_seen_by_node(self) -> NodeAgentSummary:
        """What the node thinks of this agent."""
        answer = await self.client.request(subjects.node_info(self.node), b"{}", timeout=5)
        known = NodeInfoResponse.from_json(answer.data).node_agent_summaries or ()
        return next(entry for entry in known if entry.agent_id == self.agent_id)

    def summary(self, state: str = AgentState.RUNNING) -> AgentSummary:
        return AgentSummary(
            name=self.register_request.name,
            type=self.register_request.register_type,
            start_time=timestamp(),
            state=state,
            supported_lifecycles=",".join(self.register_request.supported_lifecycles or ()),
            workload_count=len(self.workloads),
            version="0.0.0",
        )

    async def wait_asked(self, verb: str, *, count: int = 1, within: float = 10.0) -> Asked:
        """The newest request of that kind, once there were `count`."""
        async with asyncio.timeout(within), self._came:
            await self._came.wait_for(lambda: sum(asked.verb == verb for asked in self.asked) >= count)
        return [asked for asked in self.asked if asked.verb == verb][count - 1]

    async def _serve(self) -> None:
        served: list[tuple[str, Callable[[Asked], Answer | None]]] = [
            (subjects.start_workload(self.node, self.agent_id), self._start),
            (subjects.stop_workload(self.node), self._stop),
            (subjects.get_workload(self.node), self._get),
            (subjects.query_workloads(self.node), self._query),
            (subjects.ping_agent(self.node, self.agent_id), self._ping),
            (subjects.ping_agents(self.node), self._ping),
            (subjects.set_lameduck(self.node), self._lameduck),
        ]
        for subject, answer in served:
            await self.client.subscribe(subject, queue=self.agent_id, cb=self._handler(answer))
        await settle(self.client)

    def _handler(self, default: Script) -> Callable[[Msg], Any]:
        async def handle(message: Msg) -> None:
            parts = message.subject.split(".")
            verb = next(part for part in parts[4:] if part in VERBS)
            workload = parts[-1] if parts[-1] not in VERBS else ""
            asked = Asked(verb, workload, message.data)
            answer = self._scripts.get(verb, default)(asked)
            if answer is not None:
                await self.client.publish(message.reply, answer.data, headers=answer.headers)
            async with self._came:
                self.asked.append(asked)
                self._came.notify_all()

        return handle

    def _start(self, asked: Asked) -> Answer:
        request = AgentStartWorkloadRequest.from_json(asked.data)
        self.workloads[asked.workload] = request
        return Answer(StartWorkloadResponse(id=asked.workload, name=request.request.name).to_json())

    def _stop(self, asked: Asked) -> Answer:
        request = StopWorkloadRequest.from_json(asked.data)
        known = self.workloads.get(asked.workload)
        stopped = known is not None and request.namespace in (known.request.namespace, subjects.SYSTEM)
        if stopped:
            del self.workloads[asked.workload]
        body = StopWorkloadResponse(
            id=asked.workload,
            workload_type=self.register_request.register_type,
            stopped=stopped,
            message="" if stopped else "workload not found",
        )
        return Answer(
            body.to_json(),
            None if stopped else {"Nats-Service-Error": "workload not found", "Nats-Service-Error-Code": "100"},
        )

    def _get(self, asked: Asked) -> Answer | None:
        CloneWorkloadRequest.from_json(asked.data)
        known = self.workloads.get(asked.workload)
        return Answer(known.request.to_json()) if known is not None else None

    def _query(self, asked: Asked) -> Answer:
        request = AgentListWorkloadsRequest.from_json(asked.data)
        found = tuple(
            WorkloadSummary(
                id=workload_id,
                namespace=workload.request.namespace,
                name=workload.request.name,
                start_time=timestamp(),
                runtime="1s",
                workload_type=self.register_request.register_type,
                workload_lifecycle=workload.request.workload_lifecycle,
                workload_state=WorkloadState.RUNNING,
                tags={},
            )
            for workload_id, workload in self.workloads.items()
            if request.namespace in (workload.request.namespace, subjects.SYSTEM)
            and (not request.filter or {workload_id, workload.request.name} & set(request.filter))
        )
        return Answer(AgentListWorkloadsResponse(found).to_json())

    def _ping(self, asked: Asked) -> Answer:
        return Answer(self.summary().to_json(), {"agentId": self.agent_id})

    def _lameduck(self, asked: Asked) -> Answer:
        return Answer(LameduckResponse(success=True, message="").to_json(), {"agentId": self.agent_id})


def _registration(
    name: str, register_type: str, schema: str, lifecycles: tuple[WorkloadLifecycle, ...]
) -> RegisterAgentRequest:
    return RegisterAgentRequest(
        name=name,
        register_type=register_type,
        version="0.0.0",
        description="scripted",
        max_workloads=0,
        public_xkey=XKEY,
        start_request_schema=schema,
        supported_lifecycles=lifecycles,
    )


VERBS = frozenset({"STARTWORKLOAD", "STOPWORKLOAD", "GETWORKLOAD", "QUERYWORKLOADS", "PING", "SETLAMEDUCK"})
