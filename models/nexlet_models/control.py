"""What clients say to a node: the control API, and the node's own heartbeat.

A client starts a workload in two steps. It asks all nodes (`AuctionRequest`), and each that has a healthy agent of the
type and the tags makes a bid; then it deploys to one bid, which is good for `BID_LIFETIME` seconds, with a
`StartWorkloadRequest`. A clone is the same, with the request that a running workload was started with.
"""

from __future__ import annotations

import enum

from pydantic import Field

from nexlet_models.base import MapMessage, Message, NullableTags, Text, Timestamp
from nexlet_models.registration import AgentSummary
from nexlet_models.workloads import WorkloadLifecycle

__all__ = [
    "BID_LIFETIME",
    "AgentHealth",
    "AuctionRequest",
    "AuctionResponse",
    "CloneWorkloadRequest",
    "ErrorBody",
    "NodeAgentSummary",
    "NodeHeartbeat",
    "NodeInfoRequest",
    "NodeInfoResponse",
    "NodePingRequest",
    "NodePingResponse",
    "NodeState",
    "PlacementTags",
]

BID_LIFETIME = 10.0
"""Seconds for which a node honours its bid."""


class AuctionRequest(Message):
    """AUCTION: who can run this?

    Attributes:
        auction_id: made by the client, for logs.
        tags: a bidder has all of them; may be null.
    """

    agent_type: Text
    auction_id: Text
    tags: NullableTags


class AuctionResponse(Message):
    """A node's bid.

    Attributes:
        bidder_id: good for one deployment.
        start_request_schema: the agent's, for the client to check first.
        xkey: the agent's public curve key, to seal an environment to.
    """

    bidder_id: Text
    start_request_schema: Text = Field(repr=False)
    supported_lifecycles: tuple[WorkloadLifecycle, ...]
    xkey: Text


class CloneWorkloadRequest(Message):
    """CLONE, and GETWORKLOAD of it: the request of a running workload, sealed values sealed to another key.

    Both are answered with the bare `StartWorkloadRequest`.

    Attributes:
        new_target_xkey: the public curve key of who is going to run the clone; may be empty.
    """

    namespace: Text
    new_target_xkey: Text


class NodeState(enum.StrEnum):
    """What a node is doing."""

    STARTING = "starting"
    RUNNING = "running"
    LAMEDUCK = "lameduck"
    STOPPING = "stopping"
    ERROR = "error"


class NodePingRequest(Message):
    """PING: answered by the nodes that have all tags of the filter. The field is required, and may be null."""

    filter: NullableTags


class NodePingResponse(Message):
    """A node that is there.

    Attributes:
        state: a `NodeState`.
    """

    node_id: Text
    agent_count: int
    start_time: Timestamp
    state: Text
    tags: NullableTags
    version: Text
    xkey: Text


class NodeInfoRequest(MapMessage[object]):
    """INFO: any object, by custom an empty one."""

    root: dict[str, object] = {}  # noqa: RUF012  # pydantic copies a default


class AgentHealth(enum.StrEnum):
    """What a node thinks of an agent. Only a healthy one wins auctions."""

    HEALTHY = "healthy"
    SHUTTING_DOWN = "shutting down"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    UNKNOWN = "unknown"

    @property
    def stoplight(self) -> str:
        """The sign that the `nex` CLI shows for it."""
        return _STOPLIGHTS[self]


_STOPLIGHTS = {
    AgentHealth.HEALTHY: "🟢",
    AgentHealth.SHUTTING_DOWN: "🟠",
    AgentHealth.DEGRADED: "🟡",
    AgentHealth.OFFLINE: "🔴",
    AgentHealth.UNKNOWN: "⚪️",
}


class NodeAgentSummary(Message):
    """An agent as its node sees it."""

    agent_id: Text
    agent_health: Text
    agent_health_stoplight: Text
    agent_last_heartbeat_time: Timestamp
    agent_summary: AgentSummary


class NodeInfoResponse(Message):
    """A node and its agents.

    Attributes:
        uptime: a Go duration text.
        node_agent_summaries: absent when there are none.
    """

    node_id: Text
    version: Text
    uptime: Text
    xkey: Text
    tags: NullableTags
    node_agent_summaries: tuple[NodeAgentSummary, ...] | None = None


class PlacementTags(MapMessage[str]):
    """The answer to PTAGS."""


class NodeHeartbeat(Message):
    """Every ten seconds.

    Attributes:
        registrations: `AGENT [TYPE], AGENT [TYPE]`, in no order.
    """

    registrations: Text

    def agents(self) -> dict[str, str]:
        """Agent id to register type, of every agent that the node knows."""
        found = {}
        for entry in self.registrations.split(", "):
            agent, bracket, kind = entry.partition(" [")
            if bracket:
                found[agent] = kind.removesuffix("]")
        return found


class ErrorBody(Message):
    """The body of a node's error; the headers `Nats-Service-Error` and `-Code` come with it.

    Attributes:
        error: what went wrong; for 5xx only "internal server error".
        error_id: to be found again in the node's log.
    """

    error: Text
    error_id: Text
