"""The endpoints of a nexlet: what the node asks, turned into calls of the agent, and each answer as the node wants it.

One method a subject. A refusal's body is still the response of its kind, with `error` and `error_id` where the start
has them; the header has the first line and the code says what HTTP would. What nobody foresaw is answered 500 with an
id, and the log has the cause under it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import orjson
import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.protocol import clean_header_value
from nexlet_functions.runner.agent import Agent, AgentError, EventListener, IngressAgent, WorkloadNotFound
from nexlet_functions.runner.micro import Answer, Endpoint, Failure, Request, new_id
from nexlet_functions.runner.neighbours import AGENT_ID, STANDING, Standing
from nexlet_models import subjects
from nexlet_models.control import CloneWorkloadRequest
from nexlet_models.durations import parse_duration
from nexlet_models.errors import InvalidDuration, MalformedMessage
from nexlet_models.registration import AgentSummary, LameduckRequest, LameduckResponse
from nexlet_models.workloads import (
    AgentIngressMsg,
    AgentListWorkloadsRequest,
    AgentListWorkloadsResponse,
    AgentStartWorkloadRequest,
    IngressCommand,
    PingWorkloadResponse,
    StartWorkloadResponse,
    StopWorkloadRequest,
    StopWorkloadResponse,
)

__all__ = ["Desk", "Endpoints"]

_MAX_ERROR = 64 * 1024
"""Characters of an error that go into a body; a refusal that lists every problem of a source fits many times."""

_Wanted = TypeVar("_Wanted")

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Desk(Protocol):
    """What the endpoints need of the runner beside the agent."""

    @property
    def refusing(self) -> str:
        """Why no new workload is taken; "" while they are."""
        ...

    @property
    def standing(self) -> Standing:
        """What we are about, for the other nexlets of the node."""
        ...

    def summarised(self, summary: AgentSummary) -> AgentSummary:
        """The agent's summary with the state that the runner knows better (lameduck, stopping)."""
        ...

    async def started(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        """A workload was started: keep it."""
        ...

    async def stopped(self, workload_id: str) -> None:
        """A workload was stopped: forget it, and end its triggers where the agent has not."""
        ...

    async def lameduck(self, delay: float) -> None:
        """Refuse new work, and end after `delay` seconds."""
        ...


class Endpoints:
    """The endpoints of one registration."""

    def __init__(
        self,
        agent: Agent,
        desk: Desk,
        connection: Connection,
        *,
        node_id: str,
        agent_id: str,
        nexus: str,
        register_type: str,
        ingress_host: str = "",
    ) -> None:
        """Nothing is served yet: `all` is for a `MicroService`.

        Args:
            ingress_host: address of this machine, told to the ingress for workloads with ports; "" tells it nothing.
        """
        self._agent = agent
        self._desk = desk
        self._connection = connection
        self._node_id = node_id
        self._agent_id = agent_id
        self._nexus = nexus
        self._type = register_type
        self._ingress_host = ingress_host

    def all(self) -> list[Endpoint]:
        """The endpoints, with the names that Nex's own nexlets give them."""
        node, agent = self._node_id, self._agent_id
        served: list[tuple[str, str, Callable[[Request], Awaitable[Answer | None]]]] = [
            ("StartWorkload", subjects.start_workload(node, agent), self.start),
            ("StopWorkload", subjects.stop_workload(node), self.stop),
            ("GetWorkload", subjects.get_workload(node), self.get),
            ("QueryWorkloads", subjects.query_workloads(node), self.query),
            ("PingAgent", subjects.ping_agent(node, agent), self.ping),
            ("PingAllAgents", subjects.ping_agents(node), self.ping),
            ("SetLameduck", subjects.set_lameduck(node), self.set_lameduck),
        ]
        if isinstance(self._agent, IngressAgent):
            served.append(("WorkloadDiscovery", subjects.ping_workload(self._nexus), self.ping_workload))
        if isinstance(self._agent, EventListener):
            served.append(("EventListener", subjects.agent_events(agent), self.event))
        return [Endpoint(name, subject, agent, handler) for name, subject, handler in served]

    # --- workloads -----------------------------------------------------------------------------------------------

    async def start(self, request: Request) -> Answer:
        """STARTWORKLOAD."""
        workload_id = request.token(6)
        name = namespace = ""
        try:
            if self._desk.refusing:
                raise AgentError(self._desk.refusing, status=503)
            wanted = _parsed(AgentStartWorkloadRequest.from_json, request)
            name, namespace = wanted.request.name, wanted.request.namespace
            response = await self._agent.start_workload(workload_id, wanted, existing=False)
        except AgentError as error:
            error_id = new_id()
            _log.info(
                "start refused", workload_id=workload_id, namespace=namespace, name=name, status=error.status,
                error_id=error_id, reason=clean_header_value(error.text.partition("\n")[0]),
            )  # fmt: skip
            refusal = StartWorkloadResponse(id=workload_id, name=name, error=error.text[:_MAX_ERROR], error_id=error_id)
            raise Failure(error.status, error.text, refusal.to_json()) from None
        except Exception as error:  # noqa: BLE001  # a bug of the agent: the person at the command line gets an id
            error_id = new_id()
            _log.error(
                "a start failed", workload_id=workload_id, namespace=namespace, error_id=error_id, exc_info=error
            )
            text = f"internal error; the log of the nexlet has it under {error_id}"
            refusal = StartWorkloadResponse(id=workload_id, name=name, error=text, error_id=error_id)
            raise Failure(500, text, refusal.to_json()) from None
        await self._desk.started(workload_id, wanted)
        await self._ingress(workload_id, IngressCommand.ADD)
        return Answer(response.to_json())

    async def stop(self, request: Request) -> Answer:
        """STOPWORKLOAD. Every agent of the node is asked, so that "not found" is the common answer."""
        workload_id = request.token(5)
        namespace = ""
        try:
            wanted = _parsed(StopWorkloadRequest.from_json, request)
            namespace = wanted.namespace
            await self._agent.stop_workload(workload_id, wanted.namespace)
        except AgentError as error:
            raise Failure(error.status, error.text, self._not_stopped(workload_id, error.text)) from None
        except Exception as error:  # noqa: BLE001  # a bug of the agent: answered all the same
            error_id = new_id()
            _log.error("a stop failed", workload_id=workload_id, namespace=namespace, error_id=error_id, exc_info=error)
            text = f"internal error; the log of the nexlet has it under {error_id}"
            raise Failure(500, text, self._not_stopped(workload_id, text)) from None
        await self._desk.stopped(workload_id)
        await self._ingress(workload_id, IngressCommand.REMOVE)
        return Answer(
            StopWorkloadResponse(id=workload_id, workload_type=self._type, stopped=True, message="").to_json()
        )

    def _not_stopped(self, workload_id: str, text: str) -> bytes:
        message = text.partition("\n")[0]
        return StopWorkloadResponse(id=workload_id, workload_type=self._type, stopped=False, message=message).to_json()

    async def get(self, request: Request) -> Answer | None:
        """GETWORKLOAD; silence where the workload is unknown, or another namespace's than the one that asks."""
        namespace = target = ""
        try:
            asked = CloneWorkloadRequest.from_json(request.payload)
            namespace, target = asked.namespace, asked.new_target_xkey
        except MalformedMessage:
            pass  # the contract lets a node send anything here
        try:
            found = await self._agent.get_workload(request.token(5), target)
        except WorkloadNotFound:
            return None
        except AgentError as error:
            raise _failure(error) from None
        if namespace not in ("", subjects.SYSTEM, found.namespace):
            return None
        return Answer(found.to_json())

    async def query(self, request: Request) -> Answer:
        """QUERYWORKLOADS, of the node, and of other nexlets: see `neighbours`."""
        try:
            asked = _parsed(AgentListWorkloadsRequest.from_json, request)
            found = await self._agent.query_workloads(asked.namespace, asked.filter or ())
        except AgentError as error:
            raise _failure(error) from None
        headers = {**self._ours, STANDING: self._desk.standing.value}
        return Answer(AgentListWorkloadsResponse(tuple(found)).to_json(), headers)

    # --- the agent -------------------------------------------------------------------------------------------------

    async def ping(self, request: Request) -> Answer:
        """PING, to us alone or to all agents of the node."""
        try:
            summary = await self._agent.ping()
        except AgentError as error:
            raise _failure(error, headers=self._ours) from None
        return Answer(self._desk.summarised(summary).to_json(), self._ours)

    async def set_lameduck(self, request: Request) -> Answer:
        """SETLAMEDUCK."""
        try:
            asked = _parsed(LameduckRequest.from_json, request)
            try:
                delay = parse_duration(asked.delay)
            except InvalidDuration as error:
                raise AgentError(f"delay: {error}", status=400) from None
            if delay < 0:
                raise AgentError("delay: a delay cannot be negative", status=400)
            await self._desk.lameduck(delay)
        except AgentError as error:
            body = LameduckResponse(success=False, message=error.text.partition("\n")[0]).to_json()
            raise Failure(error.status, error.text, body, self._ours) from None
        return Answer(LameduckResponse(success=True, message="").to_json(), self._ours)

    @property
    def _ours(self) -> dict[str, str]:
        return {AGENT_ID: self._agent_id}

    # --- capabilities ----------------------------------------------------------------------------------------------

    async def ping_workload(self, request: Request) -> Answer | None:
        """PINGWORKLOAD; silence where it does not run here."""
        assert isinstance(self._agent, IngressAgent)
        if not await self._agent.ping_workload(request.token(5)):
            return None
        return Answer(PingWorkloadResponse(node_id=self._node_id).to_json())

    async def event(self, request: Request) -> None:
        """What is published on the agent's own event subject."""
        assert isinstance(self._agent, EventListener)
        await self._agent.on_event(request.payload)

    async def _ingress(self, workload_id: str, command: IngressCommand) -> None:
        """Tell the ingress of a workload's first port, as Nex does."""
        if not self._ingress_host or not isinstance(self._agent, IngressAgent):
            return
        upstream = ""
        if command is IngressCommand.ADD:
            try:
                ports = await self._agent.exposed_ports(workload_id)
            except AgentError as error:
                _log.error("the ports of a workload could not be had", workload_id=workload_id, reason=str(error))
                return
            if not ports:
                return
            upstream = f"{self._ingress_host}:{ports[0]}"
        told = AgentIngressMsg(workload_id=workload_id, upstream=upstream, command=command)
        if not self._connection.publish(subjects.ingress(self._agent_id), told.to_json()):
            _log.error("the ingress could not be told", workload_id=workload_id, command=command.value)


def _parsed(parse: Callable[[bytes], _Wanted], request: Request) -> _Wanted:
    try:
        return parse(request.payload)
    except MalformedMessage as error:
        raise AgentError(f"malformed request: {error}", status=400) from None


def _failure(error: AgentError, headers: dict[str, str] | None = None) -> Failure:
    body = orjson.dumps({"error": error.text[:_MAX_ERROR], "error_id": new_id()})
    return Failure(error.status, error.text, body, headers)
