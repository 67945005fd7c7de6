"""A stand-in for the Nex node, for development and tests: the node's side of registration and the control API.

`DevNode` answers as a real node does, also where that is an oddity (it is silent where the real one is, forgets no
agent, keeps a workload whose start failed), so that what works beside it works beside the real one; recorded frames and
a suite that runs over both hold it to that. It registers remote agents only and starts none. `up` never starts it:
production uses a real node.

What real nodes do was read off Nex's `node.go`, `handlers.go` and `heartbeat.go`.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import nats.errors
import structlog
from nats.aio.client import Client
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import Service

from nexlet_functions.control import CODE_HEADER, ERROR_HEADER
from nexlet_functions.devnode import state as stored
from nexlet_functions.devnode.agents_api import AgentsApi
from nexlet_functions.devnode.answers import Answer, Refusal, Relayed, read
from nexlet_functions.devnode.clock import Clock, SystemClock
from nexlet_functions.devnode.context import Context
from nexlet_functions.devnode.minter import FullAccess, Minter
from nexlet_functions.devnode.node_api import VERSION, NodeApi
from nexlet_functions.devnode.registrations import CHECK_EVERY, Bids, Registrations
from nexlet_functions.devnode.workloads_api import WorkloadsApi
from nexlet_functions.natsio.credentials import DEFAULT_URL, Credentials
from nexlet_functions.natsio.errors import ConnectFailed
from nexlet_models import subjects
from nexlet_models.base import timestamp
from nexlet_models.control import ErrorBody, NodeHeartbeat, NodeState
from nexlet_models.durations import format_duration, parse_duration
from nexlet_models.errors import InvalidDuration
from nexlet_models.events import Event, NodeLameduckSetEvent, NodeStartedEvent, NodeStoppedEvent
from nexlet_models.registration import LameduckRequest, LameduckResponse
from nexlet_sandboxes.processor import processors

__all__ = ["HEARTBEAT_EVERY", "DevNode"]

HEARTBEAT_EVERY = 10.0
"""Seconds between the node's heartbeats."""

_GATHER = 2.0
"""Seconds a node waits for all its agents to answer: the timeout of a Go client's connection."""
_CONNECT = 5.0
_RESERVED_TAGS = "nex."

_log = structlog.stdlib.get_logger("nexlet_functions.devnode")

_Handler = Callable[[Request], Awaitable[Answer]]


class DevNode:
    """A running stand-in; an async context manager."""

    def __init__(self, on: Context) -> None:
        """Use `start`."""
        self._on = on
        self._service: Service | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

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
        connect_timeout: float = _CONNECT,
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
            connect_timeout: seconds to wait for a server.

        Raises:
            ValueError: a tag begins with `nex.`, which is the node's own.
            StateUnusable: the state file cannot be read or written.
            CredentialsInvalid: see `Credentials`.
            ConnectFailed: no server, or it does not let us in.
        """
        for tag in tags or {}:
            if tag.startswith(_RESERVED_TAGS):
                raise ValueError(
                    f"the tag {tag!r} cannot be set: what begins with {_RESERVED_TAGS!r} is the node's own"
                )
        credentials = Credentials(servers=tuple(connect.split(","))) if isinstance(connect, str) else connect
        kept = await asyncio.to_thread(stored.NodeState, state_file)
        client = await _connect(credentials, connect_timeout)
        clock = clock or SystemClock()
        name = name or f"dev-node-{secrets.randbelow(10_000)}"
        node = cls(
            Context(
                client=client,
                nexus=nexus,
                tags={**(tags or {}), **_own_tags(nexus, name)},
                kept=kept,
                minter=minter or FullAccess(credentials.servers),
                clock=clock,
                gather_timeout=gather_timeout,
                registrations=Registrations(clock),
                bids=Bids(clock),
                begun=clock.monotonic(),
                begun_at=clock.now(),
            )
        )
        try:
            await node._begin()
        except BaseException:
            await node.abort()
            raise
        return node

    @property
    def node_id(self) -> str:
        """The node's public key (N...), the same again when started from the same state file."""
        return self._on.node_id

    @property
    def xkey(self) -> str:
        """The node's public curve key (X...)."""
        return self._on.xkey

    @property
    def nexus(self) -> str:
        """The group of nodes it belongs to."""
        return self._on.nexus

    @property
    def name(self) -> str:
        """What lists show."""
        return self._on.tags["nex.node"]

    @property
    def tags(self) -> Mapping[str, str]:
        """Placement tags, Nex's own (`nex.os`, ...) included."""
        return self._on.tags

    @property
    def state(self) -> NodeState:
        """What it is doing."""
        return self._on.state

    @property
    def registrations(self) -> Registrations:
        """The agents it knows."""
        return self._on.registrations

    async def close(self) -> None:
        """Say goodbye and end. Agents are not told, and go on, as beside a real node."""
        if self.state is not NodeState.STOPPING:
            self._on.state = NodeState.STOPPING
            if self._on.client.is_connected:
                if self._service is not None:
                    await self._service.stop()
                await self._emit(NodeStoppedEvent(id=self.node_id))
                await self._flush()
            await self.abort()
        await self._ended.wait()

    async def abort(self) -> None:
        """End without a word, as if the process had been killed."""
        self._on.state = NodeState.STOPPING
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._on.client.close()
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
            self._on.client, name="nexnode", version=VERSION, description="stand-in for development"
        )
        about, agents, workloads = NodeApi(self._on), AgentsApi(self._on), WorkloadsApi(self._on)
        own: list[tuple[str, str, _Handler]] = [
            ("PingPlacementTags", subjects.placement_tags(), about.placement_tags),
            ("PingNexus", subjects.node_ping(), about.ping),
            ("PingNode", subjects.node_ping_one(self.node_id), about.ping),
            ("GetNodeInfo", subjects.node_info(self.node_id), about.info),
            ("SetLameduck", subjects.node_lameduck(self.node_id), self._lameduck),
            ("GetAgentIdByName", subjects.agent_id(self.node_id), about.agent_id),
            ("RegisterAgent", subjects.register(self.node_id), agents.register),
            ("AuctionRequest", subjects.auction("*"), workloads.auction),
            ("StopWorkload", subjects.undeploy("*"), workloads.undeploy),
            ("AuctionDeployWorkload", subjects.deploy("*"), workloads.deploy),
            ("CloneWorkload", subjects.clone("*"), workloads.clone),
            ("NamespacePingRequest", subjects.list_workloads("*"), workloads.list),
        ]
        for name, subject, handler in own:
            await self._serve(name, subject, self.node_id, handler)
        # One node of the nexus takes each newcomer.
        await self._serve(
            "RegisterRemoteAgent", subjects.remote_register(self.nexus), self.nexus, agents.remote_register
        )
        await self._on.client.subscribe(subjects.heartbeat(self.node_id), cb=agents.agent_heartbeat)
        self._spawn(self._every(HEARTBEAT_EVERY, self._send_heartbeat))
        self._spawn(self._every(CHECK_EVERY, self._check_health))
        await self._flush()
        self._on.state = NodeState.RUNNING
        await self._emit(NodeStartedEvent(id=self.node_id, name=self.name, nexus=self.nexus, tags=dict(self.tags)))
        await self._flush()

    async def _flush(self) -> None:
        # nats-py sends the PING of a flush before what still waits to be sent; a second one comes after it.
        await self._on.client.flush()
        await self._on.client.flush()

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
            await self._on.clock.sleep(seconds)
            await work()

    async def _send_heartbeat(self) -> None:
        heartbeat = NodeHeartbeat(registrations=str(self.registrations))
        try:
            await self._on.client.publish(subjects.node_heartbeat(self.node_id), heartbeat.to_json())
        except nats.errors.Error as error:  # too much waits for a server that is away; the next one may do
            _log.warning("heartbeat not sent", error=str(error))

    async def _check_health(self) -> None:
        self.registrations.check()

    async def _emit(self, event: Event) -> None:
        await self._on.client.publish(subjects.event(self.node_id, event.event_name), event.to_json())

    async def _answer(self, endpoint: str, request: Request, handler: _Handler) -> None:
        """Run a handler and send what it returns; None is silence."""
        headers: dict[str, str] | None = None
        try:
            answer = await handler(request)
        except Refusal as refusal:
            error_id = self._on.new_id()
            _log.error(refusal.headline, endpoint=endpoint, error=refusal.detail, error_id=error_id)
            shown = "internal server error" if refusal.code >= 500 else refusal.detail
            answer = ErrorBody(error=shown, error_id=error_id)
            headers = {ERROR_HEADER: refusal.headline, CODE_HEADER: str(refusal.code)}
        if answer is None:
            return
        if isinstance(answer, Relayed):
            headers = answer.headers
            payload = answer.data
        else:
            payload = answer if isinstance(answer, bytes) else answer.to_json()
        try:
            await request.respond(payload, headers=headers)
        except ValueError:  # nats-py's word for a message that asks for no answer
            _log.debug("nobody waits for the answer", endpoint=endpoint)
        except nats.errors.Error as error:
            _log.warning("answer not sent", endpoint=endpoint, error=str(error))

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _lameduck(self, request: Request) -> LameduckResponse | None:
        asked = read(LameduckRequest, request, "failed to unmarshal lameduck request")
        if not self._on.has_tags(asked.tag):
            return None
        try:
            delay = parse_duration(asked.delay)
        except InvalidDuration as error:
            raise Refusal(400, "failed to parse lameduck delay", str(error)) from None
        told = LameduckRequest(delay=format_duration(delay), tag=asked.tag)
        answers = await self._on.ask_agents(subjects.set_lameduck(self._on.node_id), told)
        if len(answers) < len(self._on.registrations):
            _log.error("agents did not answer a lameduck", answers=len(answers), agents=len(self._on.registrations))
        self._on.state = NodeState.LAMEDUCK
        self._on.tags["nex.lameduck"] = "true"
        ends = self._on.clock.now() + timedelta(seconds=delay)
        self._spawn(self._end_after(delay))
        await self._emit(NodeLameduckSetEvent(id=self._on.node_id, time=timestamp(ends)))
        return LameduckResponse(success=True, message=f"node entering lameduck mode, will shutdown at {_local(ends)}")

    async def _end_after(self, delay: float) -> None:
        await self._on.clock.sleep(max(delay, 0.0))
        await self.close()


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # what Go calls them


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _own_tags(nexus: str, name: str) -> dict[str, str]:
    return {
        "nex.arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "nex.cpucount": str(processors()),
        "nex.lameduck": "false",
        "nex.nexus": nexus,
        "nex.node": name,
        "nex.os": sys.platform,
    }


async def _connect(credentials: Credentials, timeout: float) -> Client:
    """A client that, once connected, reconnects without end.

    Raises:
        ConnectFailed: not within `timeout` seconds.
    """
    reasons = ["no answer in time"]

    async def went_wrong(error: Exception) -> None:
        reasons.append(str(error) or type(error).__name__)
        _log.warning("connection", error=reasons[-1])

    client = Client()
    try:
        async with asyncio.timeout(timeout):
            await client.connect(
                list(credentials.servers),
                name="devnode",
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                error_cb=went_wrong,
                **credentials.connect_options(),
            )
    except (TimeoutError, OSError, nats.errors.Error):
        # With endless reconnection, nats-py does not give up on the first server either.
        await client.close()
        raise ConnectFailed(credentials.addresses, reasons[-1]) from None
    return client
