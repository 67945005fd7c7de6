"""The contract of a nexlet: what an agent of any kind must answer, and what it may offer beyond that.

`Agent` is the Python twin of the interface in Nex's Go SDK (`sdk/go/agent/agent.go`). A runner owns the wire: it
registers, serves the endpoints, sends heartbeats, and calls the agent's methods. Capabilities beyond the contract are
protocols of their own; the runner looks for them with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from nexlet_models.registration import AgentHeartbeat, AgentSummary, RegisterAgentRequest
from nexlet_models.workloads import (
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StartWorkloadResponse,
    WorkloadSummary,
)

__all__ = [
    "Agent",
    "AgentError",
    "ClosingAgent",
    "DescribedAgent",
    "EventListener",
    "IngressAgent",
    "Refused",
    "WorkloadNotFound",
]


class Agent(Protocol):
    """Runs workloads of one type. Methods may be called side by side; none may block the event loop."""

    async def register(self) -> RegisterAgentRequest:
        """What the node is told of this agent. Asked again at every registration."""
        ...

    async def heartbeat(self) -> AgentHeartbeat:
        """State and counts, every few seconds and at every change of state."""
        ...

    async def ping(self) -> AgentSummary:
        """The summary alone."""
        ...

    async def start_workload(
        self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool
    ) -> StartWorkloadResponse:
        """Start a workload; `existing` says that the node replays what ran before.

        Raises:
            Refused: it cannot be started; the text reaches the person at the command line.
        """
        ...

    async def stop_workload(self, workload_id: str, namespace: str) -> None:
        """Stop a workload of that namespace (`system` may stop any).

        Raises:
            WorkloadNotFound: nothing of that id runs there.
        """
        ...

    async def get_workload(self, workload_id: str, target_xkey: str) -> StartWorkloadRequest:
        """The request a clone is started from.

        Sealed values are the agent's to seal anew to `target_xkey` or to leave: it is whoever asks that names the key.

        Raises:
            WorkloadNotFound: the runner then stays silent, as the contract has it.
        """
        ...

    async def query_workloads(self, namespace: str, filter: Sequence[str]) -> list[WorkloadSummary]:  # noqa: A002
        """What runs for a namespace (`system`: for all), by ids or names where `filter` has any."""
        ...

    async def set_lameduck(self, delay: float) -> None:
        """Refuse new work from now on; serve what runs for `delay` seconds more. Returns at once."""
        ...


@runtime_checkable
class ClosingAgent(Protocol):
    """An agent that has something to end in order."""

    async def close(self, grace: float) -> None:
        """End everything: take no new work, give what runs `grace` seconds, end the rest, leave no process behind.

        Called once, last of all; the triggers, feeds and connections are still there.
        """
        ...


@runtime_checkable
class DescribedAgent(Protocol):
    """An agent that has something to show to whoever asks its micro service for information."""

    def service_metadata(self) -> Mapping[str, str]:
        """Shown by `$SRV.INFO`. Asked once a registration."""
        ...


@runtime_checkable
class IngressAgent(Protocol):
    """An agent whose workloads listen on ports."""

    async def ping_workload(self, workload_id: str) -> bool:
        """Whether it runs here."""
        ...

    async def exposed_ports(self, workload_id: str) -> list[int]:
        """The ports it listens on."""
        ...


@runtime_checkable
class EventListener(Protocol):
    """An agent that wants to hear what is published on `$NEX.FEED.AGENT.events`."""

    async def on_event(self, data: bytes) -> None:
        """One event, as it came."""
        ...


class AgentError(Exception):
    """The root of what an agent may raise at its runner.

    Attributes:
        status: what HTTP would say: 400 the author's fault, 403, 404, 409, 413, 429, 500 ours, 503 draining.
        text: all of it, several lines allowed; the first line is the header `Nats-Service-Error`.
    """

    status = 500

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if status is not None:
            self.status = status


class Refused(AgentError):
    """A workload that is not started."""

    status = 400


class WorkloadNotFound(AgentError):
    """No such workload in that namespace."""

    status = 404

    def __init__(self) -> None:
        super().__init__("workload not found")
