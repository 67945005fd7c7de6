"""The smallest workload there is, on the real runner: answers every message on its subject in capitals.

For faults around a nexlet, which are the same whatever its workloads are: no process has to be started for it.
"""

from __future__ import annotations

from nexlet_functions.control import ControlClient
from nexlet_functions.runner import Services
from nexlet_functions.runner.serving import ServedTriggers, TriggerMessage, serve_triggers
from nexlet_functions.runner.simple import SimpleAgent
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, WorkloadLifecycle
from tests.support.scripted_node import ScriptedNode, connection_data

__all__ = ["Shouting", "scripted_start", "shout"]

TYPE = "shout"


async def _shout(message: TriggerMessage) -> bytes:
    return message.data.upper()


async def _start(services: Services, workload_id: str, request: AgentStartWorkloadRequest) -> ServedTriggers:
    asked = request.request
    return await serve_triggers(services, workload_id, asked.namespace, request.workload_creds, [asked.name], _shout)


class Shouting(SimpleAgent):
    """The agent. A workload's name is the subject that it serves."""

    def __init__(self, services: Services) -> None:
        super().__init__(services, _start, register_type=TYPE, version="1.0.0")

    @property
    def running(self) -> list[str]:
        """Ids of what has been started and not stopped."""
        return sorted(key for key, one in self._workloads.items() if one.running is not None)


def shouting_request(subject: str, namespace: str = "acme") -> StartWorkloadRequest:
    """What whoever starts one asks for."""
    return StartWorkloadRequest(
        name=subject, namespace=namespace, description="", workload_type=TYPE,
        workload_lifecycle=WorkloadLifecycle.FUNCTION, run_request="{}", tags={},
    )  # fmt: skip


def scripted_start(node: ScriptedNode, subject: str) -> AgentStartWorkloadRequest:
    """The same as a scripted node passes it on."""
    return AgentStartWorkloadRequest(request=shouting_request(subject), workload_creds=connection_data(node.url))


async def shout(control: ControlClient, subject: str) -> str:
    """Start one by the control API; its id."""
    return (await control.start(shouting_request(subject, control.namespace))).id
