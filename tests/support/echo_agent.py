"""An agent that keeps its workloads in a table, and does with a start what its request says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from nexlet_functions.runner.agent import Refused, WorkloadNotFound
from nexlet_functions.runner.services import Services, TriggerSpec
from nexlet_models.base import timestamp
from nexlet_models.registration import AgentHeartbeat, AgentSummary, RegisterAgentRequest
from nexlet_models.workloads import (
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StartWorkloadResponse,
    WorkloadLifecycle,
    WorkloadState,
    WorkloadSummary,
)
from tests.support.sinks import KeepingSink

__all__ = ["EchoAgent"]


class EchoAgent:
    """Implements `Agent` and `ClosingAgent`. A request's `run_request` is JSON:

    `triggers`: subjects to register; `refuse`: text to refuse with, and `status`; `bug`: raise something unforeseen;
    `wait`: a name in `gates` to wait for.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        self.name, self.version, self.type = "echo", "1.2.3", "echo"
        self.workloads: dict[str, AgentStartWorkloadRequest] = {}
        self.existing: list[str] = []
        self.attempts: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.sink = KeepingSink()
        self.lameduck_delay: float | None = None
        self.closed: float | None = None
        self.xkeys: list[str] = []
        self.started = timestamp()

    async def register(self) -> RegisterAgentRequest:
        return RegisterAgentRequest(
            name=self.name,
            register_type=self.type,
            version=self.version,
            description="for tests",
            max_workloads=0,
            public_xkey="XECHO",
            start_request_schema="{}",
            supported_lifecycles=(WorkloadLifecycle.FUNCTION,),
        )

    async def heartbeat(self) -> AgentHeartbeat:
        return AgentHeartbeat(data="echo", summary=await self.ping())

    async def ping(self) -> AgentSummary:
        return AgentSummary(
            name=self.name,
            type=self.type,
            start_time=self.started,
            state="running",
            supported_lifecycles="function",
            workload_count=len(self.workloads),
            version=self.version,
        )

    async def start_workload(
        self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool
    ) -> StartWorkloadResponse:
        self.attempts.append(workload_id)
        run = json.loads(request.request.run_request)
        if "wait" in run:
            await self.gates[run["wait"]].wait()
        if "bug" in run:
            raise KeyError("a secret detail")
        if "refuse" in run:
            raise Refused(run["refuse"], status=run.get("status", 400))
        if run.get("triggers"):
            await self.services.register_trigger(
                workload_id,
                request.request.namespace,
                request.workload_creds,
                [TriggerSpec(subject) for subject in run["triggers"]],
                self.sink,
            )
        self.workloads[workload_id] = request
        if existing:
            self.existing.append(workload_id)
        self.services.heartbeat_soon()
        return StartWorkloadResponse(id=workload_id, name=request.request.name)

    async def stop_workload(self, workload_id: str, namespace: str) -> None:
        found = self.workloads.get(workload_id)
        if found is None or namespace not in ("system", found.request.namespace):
            raise WorkloadNotFound
        if "bug" in json.loads(found.request.run_request).get("stop", ""):
            raise KeyError("a secret detail")
        await self.services.unregister_trigger(workload_id)
        del self.workloads[workload_id]

    async def get_workload(self, workload_id: str, target_xkey: str) -> StartWorkloadRequest:
        self.xkeys.append(target_xkey)
        if workload_id not in self.workloads:
            raise WorkloadNotFound
        return self.workloads[workload_id].request

    async def query_workloads(self, namespace: str, filter: Sequence[str]) -> list[WorkloadSummary]:
        return [
            WorkloadSummary(
                id=workload_id,
                namespace=one.request.namespace,
                name=one.request.name,
                start_time=self.started,
                runtime="0s",
                workload_type=self.type,
                workload_lifecycle="function",
                workload_state=WorkloadState.WARM,
                tags={},
            )
            for workload_id, one in self.workloads.items()
            if namespace in ("system", one.request.namespace)
            and (not filter or workload_id in filter or one.request.name in filter)
        ]

    async def set_lameduck(self, delay: float) -> None:
        self.lameduck_delay = delay

    async def close(self, grace: float) -> None:
        self.closed = grace
