"""Is it alive, is it ready: what orchestrators and load balancers ask.

*Alive* means that restarting it would not help: its loop turns (it answers) and workers can be made. *Ready* means that
a node can reach it and it takes functions: a node has taken it in, the connections by which nodes reach it are up, and
it is not on its way out. A workload whose own connection is down makes nobody unready: with credentials of its own it
could, else, take everybody's nexlet out of service.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexlet_functions.runner.runner import Phase, Runner
from nexlet_sandboxes.zygote import Zygote

__all__ = ["Health", "liveness", "readiness"]


@dataclass(frozen=True, slots=True)
class Health:
    """An answer.

    Attributes:
        reasons: what is not as it should be; none where all is well.
        facts: what whoever reads it may want to know, too.
    """

    reasons: tuple[str, ...]
    facts: dict[str, str]

    @property
    def well(self) -> bool:
        return not self.reasons


def liveness(zygote: Zygote) -> Health:
    """Whether it is alive."""
    if zygote.lives:
        return Health((), {})
    return Health(("the process that makes workers is gone; it is started again without end",), {})


def readiness(runner: Runner, zygote: Zygote) -> Health:
    """Whether it is ready."""
    reasons = list(liveness(zygote).reasons)
    if runner.phase in (Phase.LAMEDUCK, Phase.STOPPING, Phase.ENDED):
        reasons.append(f"it is on its way out: {runner.phase.value}")
    elif runner.phase is Phase.STARTING or not runner.agent_id:
        reasons.append("no node has taken it in yet")
    for use, connections in runner.connections_by_use.items():
        for connection in connections:
            if use != "workloads" and not connection.connected:
                failure = connection.last_failure
                why = f": {failure.reason}" if failure is not None else ""
                reasons.append(f"the connection of the {use} is {connection.state.value}{why}")
    facts = {"phase": runner.phase.value, "agent_id": runner.agent_id, "node_id": runner.node_id}
    return Health(tuple(reasons), facts)
