"""What clients ask the stand-in node about workloads: bids, starts, stops, clones and lists."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable

import jsonschema_rs
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.micro.request import Request

from nexlet_functions.control import ERROR_HEADER
from nexlet_functions.devnode.answers import Refusal, Relayed, namespace_and_id, read, same_namespace
from nexlet_functions.devnode.context import Context
from nexlet_functions.devnode.state import StateUnusable
from nexlet_models import subjects
from nexlet_models.control import AuctionRequest, AuctionResponse, CloneWorkloadRequest
from nexlet_models.errors import MalformedMessage
from nexlet_models.workloads import (
    AgentListWorkloadsRequest,
    AgentListWorkloadsResponse,
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StopWorkloadRequest,
    StopWorkloadResponse,
    WorkloadSummary,
)

__all__ = ["WorkloadsApi"]

_START = 60.0
"""Seconds an agent has for a start."""
_CLONE = 3.0
"""Seconds the agents have to hand over a workload's request."""

_log = structlog.stdlib.get_logger("nexlet_functions.devnode")


class WorkloadsApi:
    """The handlers; each answers one request, stays silent (None), or raises `Refusal`."""

    def __init__(self, on: Context) -> None:
        self._on = on

    async def auction(self, request: Request) -> AuctionResponse | None:
        asked = read(AuctionRequest, request, "failed to unmarshal auction request")
        able = self._on.registrations.healthy(asked.agent_type)
        if not able or not self._on.has_tags(asked.tags):
            return None
        chosen = secrets.choice(able).request
        bid = self._on.new_id()
        self._on.bids.make(bid)
        return AuctionResponse(
            bidder_id=bid,
            start_request_schema=chosen.start_request_schema,
            supported_lifecycles=chosen.supported_lifecycles or (),
            xkey=chosen.public_xkey,
        )

    async def deploy(self, request: Request) -> Relayed | None:
        namespace, bid = namespace_and_id(request)
        if bid not in self._on.bids:
            return None
        asked = read(StartWorkloadRequest, request, "failed to unmarshal auction deploy workload request")
        same_namespace(namespace, asked.namespace)
        able = self._on.registrations.healthy(asked.workload_type)
        if not able:
            raise Refusal(404, "workload type not found", "workload type not found")
        chosen = secrets.choice(able)
        try:
            run_request = json.loads(asked.run_request)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "failed to unmarshal start request", str(error)) from None
        try:
            chosen.schema.validate(run_request)
        except jsonschema_rs.ValidationError as error:
            place = "/".join(str(step) for step in error.instance_path)
            raise Refusal(400, "failed to validate run request", f"at '{place}': {error.message}") from None
        except ValueError as error:  # nested deeper than the validator goes
            raise Refusal(400, "failed to validate run request", str(error)) from None
        workload_id = self._on.new_id()
        start = AgentStartWorkloadRequest(
            request=asked, workload_creds=self._on.minter.workload(asked.namespace, workload_id)
        )
        subject = subjects.start_workload(self._on.node_id, chosen.agent_id, workload_id)
        try:
            answer = await self._on.client.request(subject, start.to_json(), timeout=_START)
        except nats.errors.Error as error:  # nobody there, nobody in time, or larger with what is added than it may be
            raise Refusal(500, "failed to publish start workload request", repr(error)) from None
        # A real node keeps it whatever the agent answered, and replays also what never started.
        await self._keep(self._on.kept.store(workload_id, asked))
        return Relayed(answer)

    async def undeploy(self, request: Request) -> StopWorkloadResponse:
        namespace, workload_id = namespace_and_id(request)
        asked = read(StopWorkloadRequest, request, "failed to unmarshal stop workload request")
        same_namespace(namespace, asked.namespace)
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

        await self._on.ask_agents(subjects.stop_workload(self._on.node_id, workload_id), asked, until=is_the_one)
        if not stopped:
            return StopWorkloadResponse(id=workload_id, workload_type="", stopped=False, message="workload not found")
        await self._keep(self._on.kept.remove(stopped[0].workload_type, workload_id))
        return stopped[0]

    async def clone(self, request: Request) -> bytes | None:
        namespace, workload_id = namespace_and_id(request)
        asked = read(CloneWorkloadRequest, request, "failed to unmarshal clone workload request")
        same_namespace(namespace, asked.namespace)
        subject = subjects.get_workload(self._on.node_id, workload_id)
        try:
            answer = await self._on.client.request(subject, request.data, timeout=_CLONE)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            return None
        if (answer.headers or {}).get(ERROR_HEADER) == "workload not found":
            return None
        try:
            found = StartWorkloadRequest.from_json(answer.data)
        except MalformedMessage as error:
            headline = "failed to unmarshal workload definition from agent"
            raise Refusal(500, headline, str(error)) from None
        # Another namespace's workload is not even said to exist.
        return answer.data if namespace in (found.namespace, subjects.SYSTEM) else None

    async def list(self, request: Request) -> AgentListWorkloadsResponse:
        namespace = request.subject.split(".")[2]
        asked = read(AgentListWorkloadsRequest, request, "failed to unmarshal ping request")
        same_namespace(namespace, asked.namespace)
        if not len(self._on.registrations):
            # A real node cannot wait for no answers, and says so.
            raise Refusal(500, "failed to publish query workloads request", "no agents are registered")
        listed: list[WorkloadSummary] = []
        for answer in await self._on.ask_agents(subjects.query_workloads(self._on.node_id), asked):
            try:
                listed.extend(AgentListWorkloadsResponse.from_json(answer.data).items())
            except MalformedMessage as error:
                _log.error("an agent's list of workloads is malformed", error=str(error))
        return AgentListWorkloadsResponse(tuple(listed))

    async def _keep(self, change: Awaitable[None]) -> None:
        try:
            await change
        except StateUnusable as error:
            _log.warning("failed to store node state", error=str(error))
