"""What agents say to the stand-in node: for an id, to register, and how they are."""

from __future__ import annotations

import json
from typing import NoReturn

import jsonschema_rs
import structlog
from nats.aio.msg import Msg
from nats.micro.request import Request

from nexlet_functions.devnode.answers import Refusal, read
from nexlet_functions.devnode.context import Context
from nexlet_functions.devnode.registrations import AlreadyRegistered, Registration
from nexlet_models.errors import MalformedMessage
from nexlet_models.registration import (
    AgentHeartbeat,
    RegisterAgentRequest,
    RegisterAgentResponse,
    RegisterRemoteAgentRequest,
    RegisterRemoteAgentResponse,
)
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["AgentsApi"]

_log = structlog.stdlib.get_logger("nexlet_functions.devnode")


class AgentsApi:
    """The handlers; each answers one request, or raises `Refusal`."""

    def __init__(self, on: Context) -> None:
        self._on = on

    async def agent_heartbeat(self, message: Msg) -> None:
        try:
            heartbeat = AgentHeartbeat.from_json(message.data)
        except MalformedMessage as error:
            _log.error("an agent's heartbeat is malformed", subject=message.subject, error=str(error))
            return
        self._on.registrations.heard_from(message.subject.split(".")[5], heartbeat)

    async def remote_register(self, request: Request) -> RegisterRemoteAgentResponse:
        try:
            RegisterRemoteAgentRequest.from_json(request.data)
        except MalformedMessage as error:
            raise Refusal(400, "failed to unmarshal register remote agent request", str(error)) from None
        agent_id = self._on.new_id()
        return RegisterRemoteAgentResponse(
            assigned_agent_id=agent_id,
            registration_creds=self._on.minter.registration(agent_id),
            respond_to=self._on.node_id,
        )

    async def register(self, request: Request) -> RegisterAgentResponse:
        agent_id = request.subject.split(".", 5)[5]
        asked = read(RegisterAgentRequest, request, "failed to unmarshal register local agent request")
        if not asked.register_type:
            raise Refusal(400, "register_type is required", "register_type is required")
        try:
            schema = json.loads(asked.start_request_schema)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "failed to unmarshal start request schema", str(error)) from None
        try:
            compiled = jsonschema_rs.validator_for(schema, retriever=_retrieve_nothing, mask="the value")
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise Refusal(500, "failed to compile schema", str(error)) from None
        try:
            self._on.registrations.add(Registration(agent_id, asked, compiled))
        except AlreadyRegistered:
            detail = f"agent with ID {agent_id} is already registered"
            raise Refusal(500, "failed to update registration", detail) from None
        existing = {
            workload_id: AgentStartWorkloadRequest(
                request=kept_request, workload_creds=self._on.minter.workload(kept_request.namespace, workload_id)
            )
            for workload_id, kept_request in self._on.kept.of_type(asked.register_type).items()
        }
        _log.info("agent registered", agent_id=agent_id, name=asked.name, type=asked.register_type)
        return RegisterAgentResponse(
            success=True,
            message="",
            node_id=self._on.node_id,
            connection_data=self._on.minter.agent(agent_id),
            existing_state=existing,
        )


def _retrieve_nothing(uri: str) -> NoReturn:
    raise ValueError(f"a schema may not refer to {uri}: nothing is fetched")
