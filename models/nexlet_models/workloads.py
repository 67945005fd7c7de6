"""Workloads on the wire: started, stopped, fetched, listed.

A workload is one deployment of something that an agent can run. The node asks its agents with these messages, and what
they answer goes back to the client unchanged.
"""

from __future__ import annotations

import enum
from typing import Any

from pydantic import Field

from nexlet_models.base import ListMessage, Message, NullableTags, Text
from nexlet_models.connection import NatsConnectionData

__all__ = [
    "REPLACES",
    "AgentIngressMsg",
    "AgentListWorkloadsRequest",
    "AgentListWorkloadsResponse",
    "AgentStartWorkloadRequest",
    "EncEnv",
    "IngressCommand",
    "PingWorkloadResponse",
    "StartWorkloadRequest",
    "StartWorkloadResponse",
    "StopWorkloadRequest",
    "StopWorkloadResponse",
    "WorkloadLifecycle",
    "WorkloadState",
    "WorkloadSummary",
]


REPLACES = "nexfn.replaces"
"""Key of a start's metadata, ours: ids of workloads, joined by commas, that its client stops once it runs."""


class WorkloadLifecycle(enum.StrEnum):
    """How long a workload lives: until stopped, until done, or an invocation at a time."""

    SERVICE = "service"
    JOB = "job"
    FUNCTION = "function"


class WorkloadState(enum.StrEnum):
    """What a workload is doing."""

    STARTING = "starting"
    RUNNING = "running"
    WARM = "warm"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


class StartWorkloadRequest(Message):
    """What is to run: what a client deploys, what the node keeps, what a clone is made from.

    Attributes:
        run_request: JSON as a string, valid under the agent's start request schema. Not in `repr`: it holds the
            environment.
        name: may be empty: then the agent picks one.
        tags: placement tags the node was found by.
        reference, metadata: passed through; see `REPLACES`.
    """

    name: Text
    namespace: Text
    description: Text
    workload_type: Text
    workload_lifecycle: WorkloadLifecycle
    run_request: Text = Field(repr=False)
    tags: NullableTags
    reference: str | None = None
    metadata: dict[str, Any] | None = None


class AgentStartWorkloadRequest(Message):
    """STARTWORKLOAD, and an entry of a registration's existing state: the request and the workload's credentials."""

    request: StartWorkloadRequest
    workload_creds: NatsConnectionData


class StartWorkloadResponse(Message):
    """The answer to a start. When it was refused, `error` is the text a person reads, several lines allowed.

    Attributes:
        id: the workload.
        name: its name, the one it was given where it had none.
        error, error_id: of a refusal.
    """

    id: Text
    name: Text
    error: str | None = None
    error_id: str | None = None


class StopWorkloadRequest(Message):
    """STOPWORKLOAD and UNDEPLOY: on behalf of a namespace."""

    namespace: Text


class StopWorkloadResponse(Message):
    """Every agent of a node answers a stop, also one that does not know the workload: `stopped` says which did it.

    Attributes:
        workload_type: the agent's register type; the node drops the state it keeps under it.
        message: why not, "workload not found" from most.
    """

    id: Text
    workload_type: Text
    stopped: bool
    message: Text


class AgentListWorkloadsRequest(Message):
    """QUERYWORKLOADS and WPING. Namespace `system` means all.

    Attributes:
        filter: ids or names; none given means everything.
    """

    namespace: Text
    filter: tuple[str, ...] | None


class WorkloadSummary(Message):
    """A line of a list.

    Attributes:
        start_time: RFC 3339.
        runtime: a Go duration; for functions the client shows it as "Execution Time".
        metadata: shown when asked for.
        tags: required by Go, may be null.
    """

    id: Text
    namespace: str | None = None
    name: Text
    start_time: Text
    runtime: Text
    workload_type: Text
    workload_lifecycle: Text
    workload_state: WorkloadState
    metadata: dict[str, str] | None = None
    tags: NullableTags


class AgentListWorkloadsResponse(ListMessage[WorkloadSummary]):
    """The answer to QUERYWORKLOADS and WPING: a bare array."""


class PingWorkloadResponse(Message):
    """Where a workload with ports runs."""

    node_id: Text


class EncEnv(Message):
    """An environment sealed to the agent's curve key.

    Attributes:
        encrypted_by: the sender's public curve key.
        base64_encrypted_env: a JSON object of strings, sealed as nkeys does it (`xkv1`, nonce, box), in base64.
    """

    encrypted_by: Text
    base64_encrypted_env: Text = Field(repr=False)


class IngressCommand(enum.StrEnum):
    """What an ingress is to do with an upstream."""

    ADD = "add"
    REMOVE = "remove"


class AgentIngressMsg(Message):
    """A port that a workload listens on came or went.

    Attributes:
        upstream: `ip:port`.
    """

    workload_id: Text
    upstream: Text
    command: IngressCommand
