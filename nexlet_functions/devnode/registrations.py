"""The agents a node knows, what it thinks of their health, and the bids it has made.

Health is what the latest heartbeat said, until it is ten seconds old: looked at every five, an agent is degraded then,
and offline after thirty. Nothing but a heartbeat makes it healthy again, and none is ever forgotten. These are the
rules of Nex's `internal/agent_registration.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jsonschema_rs

from nexlet_functions.devnode.clock import Clock
from nexlet_models.base import timestamp
from nexlet_models.control import BID_LIFETIME, AgentHealth, NodeAgentSummary
from nexlet_models.registration import AgentHeartbeat, AgentState, AgentSummary, RegisterAgentRequest

__all__ = ["CHECK_EVERY", "AlreadyRegistered", "Bids", "Registration", "Registrations"]

CHECK_EVERY = 5.0
"""Seconds between looks at the age of heartbeats."""
_FRESH = 10.0
_GONE = 30.0

_NEVER = "0001-01-01T00:00:00Z"  # how Go writes a time that was never set
_NO_SUMMARY = AgentSummary(
    name="", type="", start_time=_NEVER, state="", supported_lifecycles="", workload_count=0, version=""
)
_HEALTH = {
    AgentState.RUNNING: AgentHealth.HEALTHY,
    AgentState.ERROR: AgentHealth.DEGRADED,
    AgentState.STARTING: AgentHealth.DEGRADED,
    AgentState.LAMEDUCK: AgentHealth.SHUTTING_DOWN,
    AgentState.STOPPING: AgentHealth.SHUTTING_DOWN,
}


class AlreadyRegistered(Exception):
    """The id is taken."""


@dataclass(slots=True)
class Registration:
    """One agent.

    Attributes:
        schema: compiled from the request's `start_request_schema`.
        heard: `Clock.monotonic` at the latest heartbeat; None before the first.
        heard_at: the same moment as RFC 3339.
    """

    agent_id: str
    request: RegisterAgentRequest
    schema: jsonschema_rs.Validator
    health: AgentHealth = AgentHealth.UNKNOWN
    heard: float | None = None
    heard_at: str = _NEVER
    summary: AgentSummary = _NO_SUMMARY


class Registrations:
    """All of them, by id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: dict[str, Registration] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._by_id.values())

    def __str__(self) -> str:
        """As the node's heartbeat lists them."""
        return ", ".join(f"{entry.agent_id} [{entry.request.register_type}]" for entry in self)

    def add(self, registration: Registration) -> None:
        """Know one more.

        Raises:
            AlreadyRegistered: its id is known.
        """
        if registration.agent_id in self._by_id:
            raise AlreadyRegistered(registration.agent_id)
        self._by_id[registration.agent_id] = registration

    def healthy(self, register_type: str) -> list[Registration]:
        """The healthy ones of that type: any of them may be sent a start."""
        return [
            entry
            for entry in self
            if entry.request.register_type == register_type and entry.health is AgentHealth.HEALTHY
        ]

    def named(self, name: str) -> Registration | None:
        """The first of that name."""
        return next((entry for entry in self if entry.request.name == name), None)

    def heard_from(self, agent_id: str, heartbeat: AgentHeartbeat) -> None:
        """Take a heartbeat; one of an agent that is not known says nothing."""
        entry = self._by_id.get(agent_id)
        if entry is None:
            return
        state = heartbeat.summary.state
        entry.health = _HEALTH[AgentState(state)] if state in set(AgentState) else AgentHealth.UNKNOWN
        entry.heard = self._clock.monotonic()
        entry.heard_at = timestamp(self._clock.now())
        entry.summary = heartbeat.summary

    def check(self) -> None:
        """Look at the age of each agent's latest heartbeat."""
        now = self._clock.monotonic()
        for entry in self:
            age = _GONE + 1 if entry.heard is None else now - entry.heard
            if age > _GONE:
                entry.health = AgentHealth.OFFLINE
            elif age > _FRESH:
                entry.health = AgentHealth.DEGRADED

    def summaries(self) -> tuple[NodeAgentSummary, ...]:
        """What the node tells of them."""
        return tuple(
            NodeAgentSummary(
                agent_id=entry.agent_id,
                agent_health=entry.health,
                agent_health_stoplight=entry.health.stoplight,
                agent_last_heartbeat_time=entry.heard_at,
                agent_summary=entry.summary,
            )
            for entry in self
        )


class Bids:
    """The bids that are still good."""

    def __init__(self, clock: Clock, lifetime: float = BID_LIFETIME) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._made: dict[str, float] = {}

    def make(self, bid: str) -> None:
        """Remember one."""
        self._drop_old()
        self._made[bid] = self._clock.monotonic()

    def __contains__(self, bid: object) -> bool:
        self._drop_old()
        return bid in self._made

    def _drop_old(self) -> None:
        oldest = self._clock.monotonic() - self._lifetime
        self._made = {bid: made for bid, made in self._made.items() if made > oldest}
