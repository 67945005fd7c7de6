"""What is announced on `$NEX.FEED.FROM.events.NAME`.

An event knows its own name. Nex's Go code has no name for `WorkloadTriggeredEvent` and never delivers it; it is
published here as `WORKLOADTRIGGERED`, with more fields than upstream's three.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from nexlet_models.base import Message, NullableTags, Text, Timestamp

__all__ = [
    "EVENTS",
    "INVOCATION_HEADER",
    "AgentLameduckSetEvent",
    "AgentStartedEvent",
    "AgentStoppedEvent",
    "Event",
    "EventName",
    "NodeLameduckSetEvent",
    "NodeStartedEvent",
    "NodeStoppedEvent",
    "WorkloadFailure",
    "WorkloadStartedEvent",
    "WorkloadStoppedEvent",
    "WorkloadTriggeredEvent",
]


class EventName(enum.StrEnum):
    """The last token of an event's subject."""

    NODE_STARTED = "NODESTARTED"
    NODE_STOPPED = "NODESTOPPED"
    NODE_LAMEDUCK_SET = "NODELAMEDUCKSET"
    AGENT_STARTED = "AGENTSTARTED"
    AGENT_STOPPED = "AGENTSTOPPED"
    AGENT_LAMEDUCK_SET = "AGENTLAMEDUCKSET"
    WORKLOAD_STARTED = "WORKLOADSTARTED"
    WORKLOAD_STOPPED = "WORKLOADSTOPPED"
    WORKLOAD_TRIGGERED = "WORKLOADTRIGGERED"


class Event(Message):
    """The base of all events.

    Attributes:
        event_name: under which name it is published.
    """

    event_name: ClassVar[EventName]


class NodeStartedEvent(Event):
    """A node is up. Published under its id.

    Attributes:
        type: `io.synadia.nex.event.nexnode_started`.
    """

    event_name = EventName.NODE_STARTED

    id: Text
    name: Text
    nexus: Text
    tags: NullableTags
    type: Text = "io.synadia.nex.event.nexnode_started"


class NodeStoppedEvent(Event):
    """A node ends. Published under its id."""

    event_name = EventName.NODE_STOPPED

    id: Text


class NodeLameduckSetEvent(Event):
    """A node will end. Published under its id.

    Attributes:
        time: when.
    """

    event_name = EventName.NODE_LAMEDUCK_SET

    id: Text
    time: Timestamp


class AgentStartedEvent(Event):
    """An agent is registered. Published under its id."""

    event_name = EventName.AGENT_STARTED

    id: Text
    name: Text
    register_type: Text


class AgentStoppedEvent(Event):
    """An agent ends. Published under its id."""

    event_name = EventName.AGENT_STOPPED

    id: Text
    name: Text
    reason: Text
    timestamp: Timestamp


class AgentLameduckSetEvent(Event):
    """An agent answered a lameduck. Published under the node's id."""

    event_name = EventName.AGENT_LAMEDUCK_SET

    success: bool


class WorkloadStartedEvent(Event):
    """A workload runs. Published under its namespace."""

    event_name = EventName.WORKLOAD_STARTED

    id: Text
    namespace: Text
    workload_type: Text
    metadata: dict[str, str] | None = None


class WorkloadFailure(Message):
    """Why a workload stopped that nobody stopped."""

    code: Text
    message: Text


class WorkloadStoppedEvent(Event):
    """A workload no longer runs. Published under its namespace.

    Attributes:
        error: absent when it was stopped on purpose.
    """

    event_name = EventName.WORKLOAD_STOPPED

    id: Text
    namespace: Text
    workload_type: Text
    metadata: dict[str, str] | None = None
    error: WorkloadFailure | None = None


INVOCATION_HEADER: Final = "Nex-Invocation-Id"
"""The header that says which invocation something comes from, as its event does: on log lines, metrics and errors, and
on any reply to a message that has the header itself, with whatever value."""


class WorkloadTriggeredEvent(Event):
    """One invocation, however it ended. Published under the workload's namespace.

    Attributes:
        id: the workload.
        duration: of the run, in milliseconds.
        invocation_id: also in the function's `event.invocation_id`.
        subject: the message's.
        outcome: a word of `nexlet_sandboxes.outcomes.Outcome`.
        error: one line; absent when it went well.
        queue_ms: how long the message waited for a worker.
        cpu_ms: processor time of the run.
        peak_memory_bytes: the worker's so far.
        attempt: 1, or which delivery it was where the trigger is durable.
        stream, sequence: where the message is from, if that is a stream.
        calls: what it asked for of what it was granted; absent where that is nothing.
    """

    event_name = EventName.WORKLOAD_TRIGGERED

    id: Text
    namespace: Text
    duration: float
    invocation_id: str | None = None
    subject: str | None = None
    outcome: str | None = None
    error: str | None = None
    queue_ms: float | None = None
    cpu_ms: float | None = None
    peak_memory_bytes: int | None = None
    attempt: int | None = None
    stream: str | None = None
    sequence: int | None = None
    calls: int | None = None


EVENTS: dict[EventName, type[Event]] = {
    kind.event_name: kind
    for kind in (
        NodeStartedEvent,
        NodeStoppedEvent,
        NodeLameduckSetEvent,
        AgentStartedEvent,
        AgentStoppedEvent,
        AgentLameduckSetEvent,
        WorkloadStartedEvent,
        WorkloadStoppedEvent,
        WorkloadTriggeredEvent,
    )
}
"""Which model reads an event of that name."""
