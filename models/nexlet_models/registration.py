"""An agent and its node: registering, heartbeats, lameduck."""

from __future__ import annotations

import enum

from nexlet_models.base import MapMessage, Message, Text, Timestamp
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest, WorkloadLifecycle

__all__ = [
    "AgentHeartbeat",
    "AgentState",
    "AgentSummary",
    "LameduckRequest",
    "LameduckResponse",
    "RegisterAgentRequest",
    "RegisterAgentResponse",
    "RegisterRemoteAgentRequest",
    "RegisterRemoteAgentResponse",
]


class AgentState(enum.StrEnum):
    """What an agent says of itself. The node sends starts only to one that runs."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    LAMEDUCK = "lameduck"
    ERROR = "error"


class RegisterRemoteAgentRequest(MapMessage[object]):
    """RREGISTER: an agent that the node did not start asks for an id. Any object, by custom an empty one."""

    root: dict[str, object] = {}  # noqa: RUF012  # pydantic copies a default


class RegisterRemoteAgentResponse(Message):
    """The id, what to register with, and at whom.

    Attributes:
        registration_creds: may be absent: then the agent's own.
        respond_to: the node's public key.
    """

    assigned_agent_id: Text
    registration_creds: NatsConnectionData | None = None
    respond_to: Text


class RegisterAgentRequest(Message):
    """REGISTER: what an agent is and takes.

    Attributes:
        register_type: what a client asks for with `--type`.
        version: semantic.
        max_workloads: 0 is no limit.
        public_xkey: a public curve key (X...), to which environments are sealed.
        start_request_schema: a JSON Schema as a string; client and node check start requests against it.
        supported_lifecycles: what kinds of workload it takes.
    """

    name: Text
    register_type: Text
    version: Text
    description: Text
    max_workloads: int | float
    public_xkey: Text
    start_request_schema: Text
    supported_lifecycles: tuple[WorkloadLifecycle, ...] | None = None


class RegisterAgentResponse(Message):
    """The node's answer.

    Attributes:
        connection_data: what to connect with from now on.
        existing_state: workload id to what ran before, for every agent of this type; may be null.
    """

    success: bool
    message: Text
    node_id: Text
    connection_data: NatsConnectionData
    existing_state: dict[str, AgentStartWorkloadRequest] | None


class AgentSummary(Message):
    """What an agent says of itself.

    Attributes:
        state: an `AgentState`; a plain text on the wire, so that one nobody knows yet can be read.
        start_time: RFC 3339.
        supported_lifecycles: joined by commas.
    """

    name: Text
    type: Text
    start_time: Timestamp
    state: Text
    supported_lifecycles: Text
    workload_count: int
    version: Text


class AgentHeartbeat(Message):
    """HEARTBEAT, every ten seconds and at every change of state.

    Attributes:
        data: anything; Nex passes it on as it is.
    """

    data: Text
    summary: AgentSummary


class LameduckRequest(Message):
    """SETLAMEDUCK and LAMEDUCK: no new work, gone after the delay.

    Attributes:
        delay: a Go duration text, `1m0s`.
        tag: label of one node or agent.
    """

    delay: Text
    tag: dict[str, str] | None = None


class LameduckResponse(Message):
    """Whether it was taken."""

    success: bool
    message: Text
