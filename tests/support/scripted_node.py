"""The node's side of a registration, in plain nats-py: it says what the test tells it to, and keeps what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.registration import (
    AgentHeartbeat,
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterRemoteAgentResponse,
)
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, WorkloadLifecycle
from tests.support.polling import eventually
from tests.support.settle import settle

__all__ = ["NODE", "Answer", "ScriptedNode", "connection_data", "start_request"]

NODE = "NSCRIPTEDNODE"


@dataclass(frozen=True)
class Answer:
    """What came back for a request."""

    json: Any
    headers: dict[str, str]

    @property
    def error(self) -> tuple[str, str] | None:
        """The micro error's text and code."""
        text = self.headers.get("Nats-Service-Error")
        return None if text is None else (text, self.headers["Nats-Service-Error-Code"])


def connection_data(url: str, **more: Any) -> NatsConnectionData:
    return NatsConnectionData(nats_servers=(url,), **more)


def start_request(url: str, *, name: str = "fn", namespace: str = "acme", run: str = "{}") -> AgentStartWorkloadRequest:
    """STARTWORKLOAD's body, for a workload that connects to `url` without credentials."""
    return AgentStartWorkloadRequest(
        request=StartWorkloadRequest(
            name=name,
            namespace=namespace,
            description="",
            workload_type="echo",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=run,
            tags={},
        ),
        workload_creds=connection_data(url),
    )


@dataclass
class ScriptedNode:
    """One node.

    Attributes:
        existing: what registrations are told ran before.
        creds, registration_creds: what they are given to connect with.
        known: agent ids, with what they registered.
        ids: given out, oldest first.
        refuse: text and code with which registrations are turned down.
        mute: whether it hears registrations and says nothing.
        ids_asked, asked: how often an id and a registration were asked for, whatever came of it.
        beats: heartbeats by agent id.
    """

    client: Client
    url: str
    node_id: str = NODE
    nexus: str = "nexus"
    existing: dict[str, AgentStartWorkloadRequest] = field(default_factory=dict)
    creds: Callable[[str], NatsConnectionData] = field(default=lambda agent: NatsConnectionData())
    registration_creds: Callable[[str], NatsConnectionData] = field(default=lambda agent: NatsConnectionData())
    known: dict[str, RegisterAgentRequest] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    refuse: tuple[str, str] | None = None
    remote: bool = True
    mute: bool = False
    ids_asked: int = 0
    asked: int = 0
    beats: dict[str, list[AgentHeartbeat]] = field(default_factory=dict)
    registrations: int = 0

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str, *, node_id: str = NODE, **connect: Any) -> AsyncIterator[ScriptedNode]:
        """A node that runs."""
        client = await nats.connect(url, **connect)
        node = cls(client, url, node_id=node_id)
        node.creds = node.registration_creds = lambda agent: connection_data(url)
        await client.subscribe(subjects.remote_register(node.nexus), cb=node._give_id)
        await client.subscribe(subjects.register(node_id), cb=node._register)
        await client.subscribe(subjects.heartbeat(node_id), cb=node._beat)
        await settle(client)
        try:
            yield node
        finally:
            await client.close()

    # --- what a test asks ----------------------------------------------------------------------------------------

    async def ask(self, subject: str, body: Any = None, *, timeout: float = 5) -> Answer:
        """A request as the node would make it; `body` is JSON, or bytes as they are."""
        payload = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return _answer(await self.client.request(subject, payload, timeout=timeout))

    async def ask_many(self, subject: str, body: Any = None, *, wait: float = 0.3) -> list[Answer]:
        """All answers that come within `wait` seconds."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        await self.client.publish(subject, json.dumps({} if body is None else body).encode(), reply=inbox)
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(wait):
                async for message in subscription.messages:
                    answers.append(_answer(message))
        except TimeoutError:
            pass
        await subscription.unsubscribe()
        return answers

    @property
    def agent(self) -> str:
        """The id of the newest registration."""
        return list(self.known)[-1]

    async def start(self, workload: str, request: AgentStartWorkloadRequest, *, agent: str = "") -> Answer:
        return await self.ask(subjects.start_workload(self.node_id, agent or self.agent, workload), request.to_json())

    async def stop(self, workload: str, namespace: str = "acme") -> Answer:
        return await self.ask(subjects.stop_workload(self.node_id, workload), {"namespace": namespace})

    async def listed(self, namespace: str = "system") -> list[str]:
        answer = await self.ask(subjects.query_workloads(self.node_id), {"namespace": namespace, "filter": None})
        return [one["id"] for one in answer.json]

    def forget(self) -> None:
        """Restart, as far as a nexlet can tell."""
        self.known.clear()

    async def beat(self) -> None:
        """The node's own heartbeat."""
        listed = ", ".join(f"{agent} [{offer.register_type}]" for agent, offer in self.known.items())
        await self.client.publish(subjects.node_heartbeat(self.node_id), json.dumps({"registrations": listed}).encode())

    async def registered(self, count: int = 1) -> str:
        """The newest agent's id, once there were `count` registrations and it has sent a heartbeat."""
        await eventually(lambda: self.registrations >= count and self.beats.get(self.agent), what="registered")
        return self.agent

    def states(self, agent: str = "") -> list[str]:
        """What an agent said of itself, without repetitions."""
        said: list[str] = []
        for beat in self.beats.get(agent or self.agent, []):
            if not said or said[-1] != beat.summary.state:
                said.append(beat.summary.state)
        return said

    # --- what a nexlet asks --------------------------------------------------------------------------------------

    async def _give_id(self, message: Msg) -> None:
        self.ids_asked += 1
        if not self.remote:
            return
        if self.refuse is not None:
            await _refuse(message, *self.refuse)
            return
        self.ids.append(f"AGENT{len(self.ids) + 1}{self.node_id[-4:]}")
        response = RegisterRemoteAgentResponse(
            assigned_agent_id=self.ids[-1],
            registration_creds=self.registration_creds(self.ids[-1]),
            respond_to=self.node_id,
        )
        await message.respond(response.to_json())

    async def _register(self, message: Msg) -> None:
        agent = message.subject.split(".")[5]
        self.asked += 1
        if self.mute:
            return
        if self.refuse is not None:
            await _refuse(message, *self.refuse)
            return
        if agent in self.known:
            await _refuse(message, "failed to update registration", "500", "internal server error")
            return
        self.known[agent] = RegisterAgentRequest.from_json(message.data)
        self.registrations += 1
        response = RegisterAgentResponse(
            success=True,
            message="",
            node_id=self.node_id,
            connection_data=self.creds(agent),
            existing_state=self.existing,
        )
        await message.respond(response.to_json())

    async def _beat(self, message: Msg) -> None:
        self.beats.setdefault(message.subject.split(".")[5], []).append(AgentHeartbeat.from_json(message.data))


async def _refuse(message: Msg, text: str, code: str, error: str = "") -> None:
    assert message._client is not None
    await message._client.publish(
        message.reply,
        json.dumps({"error": error or text, "error_id": "E1"}).encode(),
        headers={"Nats-Service-Error": text, "Nats-Service-Error-Code": code},
    )


def _answer(message: Msg) -> Answer:
    return Answer(json.loads(message.data) if message.data else None, dict(message.headers or {}))
