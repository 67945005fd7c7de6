"""A stand-in for the Nex node, for development and tests: the node's side of registration and the control API.

`DevNode` answers as a real node does, also where that is an oddity (it is silent where the real one is, forgets no
agent, keeps a workload whose start failed), so that what works beside it works beside the real one; recorded frames and
a suite that runs over both hold it to that. It registers remote agents only and starts none. `up` never starts it:
production uses a real node.

What real nodes do was read off Nex's `node.go`, `handlers.go` and `heartbeat.go`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import jsonschema_rs
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import Service
from nats.nuid import NUID
from nexlet_models import subjects
from nexlet_models.base import ListMessage, MapMessage, Message, timestamp
from nexlet_models.control import (
    AuctionRequest,
    AuctionResponse,
    CloneWorkloadRequest,
    ErrorBody,
    NodeHeartbeat,
    NodeInfoResponse,
    NodePingRequest,
    NodePingResponse,
    NodeState,
    PlacementTags,
)
from nexlet_models.durations import format_duration, parse_duration
from nexlet_models.errors import InvalidDuration, MalformedMessage
from nexlet_models.events import Event, NodeLameduckSetEvent, NodeStartedEvent, NodeStoppedEvent
from nexlet_models.registration import (
    AgentHeartbeat,
    LameduckRequest,
    LameduckResponse,
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterRemoteAgentRequest,
    RegisterRemoteAgentResponse,
)
from nexlet_models.workloads import (
    AgentListWorkloadsRequest,
    AgentListWorkloadsResponse,
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StopWorkloadRequest,
    StopWorkloadResponse,
    WorkloadSummary,
)

from nexlet_functions.control import CODE_HEADER, ERROR_HEADER, gather
from nexlet_functions.devnode import state as kept
from nexlet_functions.devnode.clock import Clock, SystemClock
from nexlet_functions.devnode.minter import FullAccess, Minter
from nexlet_functions.devnode.registrations import (
    CHECK_EVERY,
    AlreadyRegistered,
    Bids,
    Registration,
    Registrations,
)
from nexlet_functions.natsio.credentials import DEFAULT_URL, Credentials

__all__ = ["HEARTBEAT_EVERY", "DevNode"]

HEARTBEAT_EVERY = 10.0
"""Seconds between the node's heartbeats."""

_VERSION = "0.0.0-standin"
_GATHER = 2.0
"""Seconds a node waits for all its agents to answer: the timeout of a Go client's connection."""
_START = 60.0
_CLONE = 3.0
_RESERVED_TAGS = "nex."

_log = structlog.stdlib.get_logger("nexlet_functions.devnode")

_Answer = Message | MapMessage[Any] | ListMessage[Any] | bytes
_Handler = Callable[[Request], Awaitable["_Answer | _Relayed | None"]]
_M = TypeVar("_M", bound=Message)


class _Relayed:
    """An agent's answer, passed on as it is."""

    def __init__(self, message: Msg) -> None:
        self.data = message.data
        self.headers = dict(message.headers or {})


class _Refusal(Exception):
    """An answer that is an error: the header's text and code, and what the body says."""

    def __init__(self, code: int, headline: str, detail: str) -> None:
        self.code = code
        self.headline = headline
        self.detail = detail
        super().__init__(headline)


class DevNode:
    """A running stand-in; an async context manager.

    Attributes:
        node_id: the node's public key (N...), the same again when started from the same state file.
        nexus: the group of nodes it belongs to.
        tags: placement tags, Nex's own (`nex.os`, ...) included.
        state: what it is doing.
        registrations: the agents it knows.
    """

    def __init__(
        self,
        client: Client,
        *,
        nexus: str,
        name: str,
        tags: Mapping[str, str],
        state: kept.NodeState,
        minter: Minter,
        clock: Clock,
        gather_timeout: float,
    ) -> None:
        """Use `start`."""
        self._client = client
        self._kept = state
        self._minter = minter
        self._clock = clock
        self._gather_timeout = gather_timeout
        self._service: Service | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = NUID()
        self._bids = Bids(clock)
        self._begun = clock.monotonic()
        self._begun_at = clock.now()
        self._ended = asyncio.Event()
        self.node_id = state.identity.node_id
        self.nexus = nexus
        self.name = name
        self.state = NodeState.STARTING
        self.registrations = Registrations(clock)
        self.tags = {
            **tags,
            "nex.arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "nex.cpucount": str(os.cpu_count() or 1),
            "nex.lameduck": "false",
            "nex.nexus": nexus,
            "nex.node": name,
            "nex.os": sys.platform,
        }

    @classmethod
    async def start(
        cls,
        connect: str | Credentials = DEFAULT_URL,
        *,
        nexus: str = "nexus",
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        state_file: Path | None = None,
        minter: Minter | None = None,
        clock: Clock | None = None,
        gather_timeout: float = _GATHER,
    ) -> Self:
        """Connect, take remote agents, answer clients. When this returns, every subscription is live.

        Args:
            connect: a server's URL, or credentials.
            nexus: the group of nodes.
            name: shown in lists; made up when absent.
            tags: further placement tags.
            state_file: who the node is and what was deployed, kept over a restart; None keeps nothing.
            minter: hands out what agents and workloads connect with; the servers alone by default.
            clock: the time that heartbeats, bids and health go by.
            gather_timeout: seconds to wait for all agents to answer.

        Raises:
            ValueError: a tag begins with `nex.`, which is the node's own.
            StateUnusable: the state file cannot be read or written.
            CredentialsInvalid: see `Credentials`.
            nats.errors.Error, OSError: no server, or it does not let us in.
        """
        for tag in tags or {}:
            if tag.startswith(_RESERVED_TAGS):
                raise ValueError(
                    f"the tag {tag!r} cannot be set: what begins with {_RESERVED_TAGS!r} is the node's own"
                )
        credentials = Credentials(servers=tuple(connect.split(","))) if isinstance(connect, str) else connect
        state = await asyncio.to_thread(kept.NodeState, state_file)
        client = await nats.connect(
            list(credentials.servers),
            name="devnode",
            max_reconnect_attempts=-1,
            error_cb=_connection_error,
            **credentials.connect_options(),
        )
        node = cls(
            client,
            nexus=nexus,
            name=name or f"dev-node-{secrets.randbelow(10_000)}",
            tags=tags or {},
            state=state,
            minter=minter or FullAccess(credentials.servers),
            clock=clock or SystemClock(),
            gather_timeout=gather_timeout,
        )
        try:
            await node._begin()
        except BaseException:
            await node.abort()
            raise
        return node

    @property
    def xkey(self) -> str:
        """The node's public curve key (X...)."""
        return self._kept.identity.xkey

    async def close(self) -> None:
        """Say goodbye and end. Agents are not told, and go on, as beside a real node."""
        if self.state is not NodeState.STOPPING:
            self.state = NodeState.STOPPING
            if self._client.is_connected:
                if self._service is not None:
                    await self._service.stop()
                await self._emit(NodeStoppedEvent(id=self.node_id))
                await self._client.flush()
            await self.abort()
        await self._ended.wait()

    async def abort(self) -> None:
        """End without a word, as if the process had been killed."""
        self.state = NodeState.STOPPING
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()
        self._ended.set()

    async def wait_closed(self) -> None:
        """Return once the node has ended, by `close`, `abort`, or because its lameduck delay is over."""
        await self._ended.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- running ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        _log.warning(
            "stand-in node starts",
            node_id=self.node_id,
            nexus=self.nexus,
            note="development equipment: run a real Nex node in production",
        )
        self._service = await add_service(
            self._client, name="nexnode", version=_VERSION, description="stand-in for development"
        )
        own: list[tuple[str, str, _Handler]] = [
            ("PingPlacementTags", subjects.placement_tags(), self._placement_tags),
            ("PingNexus", subjects.node_ping(), self._ping),
            ("PingNode", subjects.node_ping_one(self.node_id), self._ping),
            ("GetNodeInfo", subjects.node_info(self.node_id), self._info),
            ("SetLameduck", subjects.node_lameduck(self.node_id), self._lameduck),
            ("GetAgentIdByName", subjects.agent_id(self.node_id), self._agent_id),
            ("RegisterAgent", subjects.register(self.node_id), self._register),
            ("AuctionRequest", subjects.auction("*"), self._auction),
            ("StopWorkload", subjects.undeploy("*"), self._undeploy),
            ("AuctionDeployWorkload", subjects.deploy("*"), self._deploy),
            ("CloneWorkload", subjects.clone("*"), self._clone),
            ("NamespacePingRequest", subjects.list_workloads("*"), self._list),
        ]
        for name, subject, handler in own:
            await self._serve(name, subject, self.node_id, handler)
        # One node of the nexus takes each newcomer.
        await self._serve(
            "RegisterRemoteAgent", subjects.remote_register(self.nexus), self.nexus, self._remote_register
        )
        await self._client.subscribe(subjects.heartbeat(self.node_id), cb=self._agent_heartbeat)
        self._spawn(self._every(HEARTBEAT_EVERY, self._send_heartbeat))
        self._spawn(self._every(CHECK_EVERY, self._check_health))
        await self._client.flush()
        self.state = NodeState.RUNNING
        await self._emit(NodeStartedEvent(id=self.node_id, name=self.name, nexus=self.nexus, tags=self.tags))
        await self._client.flush()

    async def _serve(self, name: str, subject: str, queue_group: str, handler: _Handler) -> None:
        async def hand_off(request: Request) -> None:
            # nats-py takes the next request of an endpoint when this returns: a start may last a minute.
            self._spawn(self._answer(name, request, handler))

        assert self._service is not None, "endpoints belong to a service"
        await self._service.add_endpoint(name=name, subject=subject, queue_group=queue_group, handler=hand_off)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the stand-in node has a bug", exc_info=error)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            await work()

    async def _send_heartbeat(self) -> None:
        heartbeat = NodeHeartbeat(registrations=str(self.registrations))
        await self._client.publish(subjects.node_heartbeat(self.node_id), heartbeat.to_json())

    async def _check_health(self) -> None:
        self.registrations.check()

    async def _emit(self, event: Event) -> None:
        await self._client.publish(subjects.event(self.node_id, event.event_name), event.to_json())

    def _new_id(self) -> str:
        return self._ids.next().decode()

    async def _answer(self, endpoint: str, request: Request, handler: _Handler) -> None:
        """Run a handler and send what it returns; None is silence."""
        headers: dict[str, str] | None = None
        try:
            answer = await handler(request)
        except _Refusal as refusal:
            error_id = self._new_id()
            _log.error(refusal.headline, endpoint=endpoint, error=refusal.detail, error_id=error_id)
            shown = "internal server error" if refusal.code >= 500 else refusal.detail
            answer = ErrorBody(error=shown, error_id=error_id)
            headers = {ERROR_HEADER: refusal.headline, CODE_HEADER: str(refusal.code)}
        if answer is None:
            return
        if isinstance(answer, _Relayed):
            headers = answer.headers
            payload = answer.data
        else:
            payload = answer if isinstance(answer, bytes) else answer.to_json()
        try:
            await request.respond(payload, headers=headers)
        except ValueError:  # nats-py's word for a message that asks for no answer
            _log.debug("nobody waits for the answer", endpoint=endpoint)

    # --- agents ----------------------------------------------------------------------------------------------------

    async def _agent_heartbeat(self, message: Msg) -> None:
        try:
            heartbeat = AgentHeartbeat.from_json(message.data)
        except MalformedMessage as error:
            _log.error("an agent's heartbeat is malformed", subject=message.subject, error=str(error))
            return
        self.registrations.heard_from(message.subject.split(".")[5], heartbeat)

    async def _remote_register(self, request: Request) -> RegisterRemoteAgentResponse:
        try:
            RegisterRemoteAgentRequest.from_json(request.data)
        except MalformedMessage as error:
            raise _Refusal(400, "failed to unmarshal register remote agent request", str(error)) from None
        agent_id = self._new_id()
        return RegisterRemoteAgentResponse(
            assigned_agent_id=agent_id,
            registration_creds=self._minter.registration(agent_id),
            respond_to=self.node_id,
        )

    async def _register(self, request: Request) -> RegisterAgentResponse:
        agent_id = request.subject.split(".", 5)[5]
        asked = _read(RegisterAgentRequest, request, "failed to unmarshal register local agent request")
        if not asked.register_type:
            raise _Refusal(400, "register_type is required", "register_type is required")
        try:
            schema = json.loads(asked.start_request_schema)
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, "failed to unmarshal start request schema", str(error)) from None
        try:
            compiled = jsonschema_rs.validator_for(schema, retriever=_retrieve_nothing, mask="the value")
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise _Refusal(500, "failed to compile schema", str(error)) from None
        try:
            self.registrations.add(Registration(agent_id, asked, compiled))
        except AlreadyRegistered:
            detail = f"agent with ID {agent_id} is already registered"
            raise _Refusal(500, "failed to update registration", detail) from None
        existing = {
            workload_id: AgentStartWorkloadRequest(
                request=kept_request, workload_creds=self._minter.workload(kept_request.namespace, workload_id)
            )
            for workload_id, kept_request in self._kept.of_type(asked.register_type).items()
        }
        _log.info("agent registered", agent_id=agent_id, name=asked.name, type=asked.register_type)
        return RegisterAgentResponse(
            success=True,
            message="",
            node_id=self.node_id,
            connection_data=self._minter.agent(agent_id),
            existing_state=existing,
        )

    # --- clients, about the node -----------------------------------------------------------------------------------

    async def _placement_tags(self, request: Request) -> PlacementTags:
        return PlacementTags(dict(self.tags))

    async def _ping(self, request: Request) -> NodePingResponse | None:
        asked = _read(NodePingRequest, request, "failed to unmarshal ping request")
        if not self._has_tags(asked.filter):
            return None
        return NodePingResponse(
            node_id=self.node_id,
            agent_count=len(self.registrations),
            start_time=timestamp(self._begun_at),
            state=self.state,
            tags=dict(self.tags),
            version=_VERSION,
            xkey=self.xkey,
        )

    async def _info(self, request: Request) -> NodeInfoResponse:
        return NodeInfoResponse(
            node_id=self.node_id,
            version=_VERSION,
            uptime=format_duration(self._clock.monotonic() - self._begun),
            xkey=self.xkey,
            tags=dict(self.tags),
            node_agent_summaries=self.registrations.summaries() or None,
        )

    async def _agent_id(self, request: Request) -> bytes | None:
        name = request.data.decode("utf-8", "replace")
        if not name:
            raise _Refusal(400, "agent name is required", "agent name is required")
        found = self.registrations.named(name)
        return found.agent_id.encode() if found is not None else None

    async def _lameduck(self, request: Request) -> LameduckResponse | None:
        asked = _read(LameduckRequest, request, "failed to unmarshal lameduck request")
        if not self._has_tags(asked.tag):
            return None
        try:
            delay = parse_duration(asked.delay)
        except InvalidDuration as error:
            raise _Refusal(400, "failed to parse lameduck delay", str(error)) from None
        told = LameduckRequest(delay=format_duration(delay), tag=asked.tag)
        answers = await self._ask_agents(subjects.set_lameduck(self.node_id), told)
        if len(answers) < len(self.registrations):
            _log.error("agents did not answer a lameduck", answers=len(answers), agents=len(self.registrations))
        self.state = NodeState.LAMEDUCK
        self.tags["nex.lameduck"] = "true"
        ends = self._clock.now() + timedelta(seconds=delay)
        self._spawn(self._end_after(delay))
        await self._emit(NodeLameduckSetEvent(id=self.node_id, time=timestamp(ends)))
        return LameduckResponse(success=True, message=f"node entering lameduck mode, will shutdown at {_local(ends)}")

    async def _end_after(self, delay: float) -> None:
        await self._clock.sleep(max(delay, 0.0))
        await self.close()

    def _has_tags(self, wanted: Mapping[str, str] | None) -> bool:
        return all(self.tags.get(name) == value for name, value in (wanted or {}).items())

    # --- clients, about workloads ----------------------------------------------------------------------------------

    async def _auction(self, request: Request) -> AuctionResponse | None:
        asked = _read(AuctionRequest, request, "failed to unmarshal auction request")
        able = self.registrations.healthy(asked.agent_type)
        if not able or not self._has_tags(asked.tags):
            return None
        chosen = secrets.choice(able).request
        bid = self._new_id()
        self._bids.make(bid)
        return AuctionResponse(
            bidder_id=bid,
            start_request_schema=chosen.start_request_schema,
            supported_lifecycles=chosen.supported_lifecycles or (),
            xkey=chosen.public_xkey,
        )

    async def _deploy(self, request: Request) -> _Relayed | None:
        namespace, bid = _namespace_and_id(request)
        if bid not in self._bids:
            return None
        asked = _read(StartWorkloadRequest, request, "failed to unmarshal auction deploy workload request")
        _same_namespace(namespace, asked.namespace)
        able = self.registrations.healthy(asked.workload_type)
        if not able:
            raise _Refusal(404, "workload type not found", "workload type not found")
        chosen = secrets.choice(able)
        try:
            run_request = json.loads(asked.run_request)
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, "failed to unmarshal start request", str(error)) from None
        try:
            chosen.schema.validate(run_request)
        except jsonschema_rs.ValidationError as error:
            place = "/".join(str(step) for step in error.instance_path)
            raise _Refusal(400, "failed to validate run request", f"at '{place}': {error.message}") from None
        workload_id = self._new_id()
        start = AgentStartWorkloadRequest(
            request=asked, workload_creds=self._minter.workload(asked.namespace, workload_id)
        )
        subject = subjects.start_workload(self.node_id, chosen.agent_id, workload_id)
        try:
            answer = await self._client.request(subject, start.to_json(), timeout=_START)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError) as error:
            raise _Refusal(500, "failed to publish start workload request", repr(error)) from None
        # A real node keeps it whatever the agent answered, and replays also what never started.
        await self._keep(self._kept.store(workload_id, asked))
        return _Relayed(answer)

    async def _undeploy(self, request: Request) -> StopWorkloadResponse:
        namespace, workload_id = _namespace_and_id(request)
        asked = _read(StopWorkloadRequest, request, "failed to unmarshal stop workload request")
        _same_namespace(namespace, asked.namespace)
        stopped: list[StopWorkloadResponse] = []

        def is_the_one(message: Msg) -> bool:
            try:
                answer = StopWorkloadResponse.from_json(message.data)
            except MalformedMessage as error:
                _log.error("an agent's answer to a stop is malformed", error=str(error))
                return False
            if answer.stopped:
                stopped.append(answer)
            return answer.stopped

        await self._ask_agents(subjects.stop_workload(self.node_id, workload_id), asked, until=is_the_one)
        if not stopped:
            return StopWorkloadResponse(id=workload_id, workload_type="", stopped=False, message="workload not found")
        await self._keep(self._kept.remove(stopped[0].workload_type, workload_id))
        return stopped[0]

    async def _clone(self, request: Request) -> bytes | None:
        namespace, workload_id = _namespace_and_id(request)
        asked = _read(CloneWorkloadRequest, request, "failed to unmarshal clone workload request")
        _same_namespace(namespace, asked.namespace)
        subject = subjects.get_workload(self.node_id, workload_id)
        try:
            answer = await self._client.request(subject, request.data, timeout=_CLONE)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            return None
        if (answer.headers or {}).get(ERROR_HEADER) == "workload not found":
            return None
        try:
            found = StartWorkloadRequest.from_json(answer.data)
        except MalformedMessage as error:
            headline = "failed to unmarshal workload definition from agent"
            raise _Refusal(500, headline, str(error)) from None
        # Another namespace's workload is not even said to exist.
        return answer.data if namespace in (found.namespace, subjects.SYSTEM) else None

    async def _list(self, request: Request) -> AgentListWorkloadsResponse:
        namespace = request.subject.split(".")[2]
        asked = _read(AgentListWorkloadsRequest, request, "failed to unmarshal ping request")
        _same_namespace(namespace, asked.namespace)
        if not len(self.registrations):
            # A real node cannot wait for no answers, and says so.
            raise _Refusal(500, "failed to publish query workloads request", "no agents are registered")
        listed: list[WorkloadSummary] = []
        for answer in await self._ask_agents(subjects.query_workloads(self.node_id), asked):
            try:
                listed.extend(AgentListWorkloadsResponse.from_json(answer.data).items())
            except MalformedMessage as error:
                _log.error("an agent's list of workloads is malformed", error=str(error))
        return AgentListWorkloadsResponse(tuple(listed))

    async def _ask_agents(
        self, subject: str, asked: Message, *, until: Callable[[Msg], bool] | None = None
    ) -> list[Msg]:
        """As many answers as there are registrations, or what came in time."""
        if not len(self.registrations):
            return []
        return await gather(
            self._client,
            subject,
            asked.to_json(),
            wait=self._gather_timeout,
            count=len(self.registrations),
            until=until,
        )

    async def _keep(self, change: Awaitable[None]) -> None:
        try:
            await change
        except kept.StateUnusable as error:
            _log.warning("failed to store node state", error=str(error))


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # what Go calls them


def _read(kind: type[_M], request: Request, headline: str) -> _M:
    try:
        return kind.from_json(request.data)
    except MalformedMessage as error:
        raise _Refusal(400, headline, str(error)) from None


def _namespace_and_id(request: Request) -> tuple[str, str]:
    """`$NEX.SVC.NS.control.VERB.ID`."""
    parts = request.subject.split(".", 5)
    return parts[2], parts[5]


def _same_namespace(caller: str, wanted: str) -> None:
    if caller not in (wanted, subjects.SYSTEM):
        raise _Refusal(403, f"namespace mismatch: {caller} != {wanted}", "namespace mismatch")


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _retrieve_nothing(uri: str) -> NoReturn:
    raise ValueError(f"a schema may not refer to {uri}: nothing is fetched")


async def _connection_error(error: Exception) -> None:
    _log.warning("connection", error=str(error) or repr(error))
