"""An agent for whoever only wants to say what starting a workload means.

`SimpleAgent` keeps the table of workloads and answers everything about it; a function starts one and returns something
that can be stopped, such as what `serving.serve_triggers` returns. docs/runner.md builds a nexlet on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from nexlet_functions.runner.agent import AgentError, WorkloadNotFound
from nexlet_functions.runner.services import Services
from nexlet_models import subjects
from nexlet_models.base import timestamp
from nexlet_models.durations import format_duration
from nexlet_models.events import EventName, WorkloadStartedEvent, WorkloadStoppedEvent
from nexlet_models.registration import AgentHeartbeat, AgentState, AgentSummary, RegisterAgentRequest
from nexlet_models.workloads import (
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StartWorkloadResponse,
    WorkloadLifecycle,
    WorkloadState,
    WorkloadSummary,
)

__all__ = ["SimpleAgent", "Stoppable"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Stoppable(Protocol):
    """A workload that runs."""

    async def stop(self, grace: float) -> None:
        """End it within about `grace` seconds."""
        ...


StartWorkload = Callable[[Services, str, AgentStartWorkloadRequest], Awaitable[Stoppable]]
"""Starts a workload: services, its id, its request. Raises `Refused` where it cannot be started."""


@dataclass(eq=False, slots=True)
class _Workload:
    request: AgentStartWorkloadRequest
    began: float
    start_time: str
    running: Stoppable | None = None
    stopping: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class SimpleAgent:
    """Implements `Agent` and `ClosingAgent` around one function."""

    def __init__(
        self,
        services: Services,
        start: StartWorkload,
        *,
        register_type: str,
        version: str,
        name: str = "",
        description: str = "",
        start_request_schema: str = "{}",
        lifecycles: Sequence[WorkloadLifecycle] = (WorkloadLifecycle.FUNCTION,),
        stop_grace: float = 5.0,
    ) -> None:
        """Nothing runs yet.

        Args:
            register_type: what is asked for with `nex workload start --type`.
            version: semantic.
            name: of the micro service; the register type where there is none.
            start_request_schema: JSON Schema that client and node check start requests against.
            stop_grace: seconds for a workload that is stopped.
        """
        self._services = services
        self._start = start
        self._offer = RegisterAgentRequest(
            name=name or register_type,
            register_type=register_type,
            version=version,
            description=description,
            max_workloads=0,
            public_xkey="",
            start_request_schema=start_request_schema,
            supported_lifecycles=tuple(lifecycles),
        )
        self._stop_grace = stop_grace
        self._started = timestamp()
        self._workloads: dict[str, _Workload] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def register(self) -> RegisterAgentRequest:
        return self._offer

    async def heartbeat(self) -> AgentHeartbeat:
        return AgentHeartbeat(data=self._offer.description, summary=await self.ping())

    async def ping(self) -> AgentSummary:
        return AgentSummary(
            name=self._offer.name,
            type=self._offer.register_type,
            start_time=self._started,
            state=AgentState.RUNNING.value,
            supported_lifecycles=",".join(one.value for one in self._offer.supported_lifecycles or ()),
            workload_count=len(self._workloads),
            version=self._offer.version,
        )

    async def start_workload(
        self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool
    ) -> StartWorkloadResponse:
        """The same request again gets the same answer; another one for the same id is refused."""
        workload = self._workloads.get(workload_id)
        if workload is not None:
            if workload.request.request != request.request:
                raise AgentError(f"workload {workload_id} runs already, started by another request", status=409)
            await workload.settled.wait()
            if workload.running is None:
                raise AgentError(f"workload {workload_id} could not be started", status=409)
            return StartWorkloadResponse(id=workload_id, name=request.request.name)
        workload = self._workloads[workload_id] = _Workload(request, time.monotonic(), timestamp())
        try:
            running = await self._start(self._services, workload_id, request)
            if workload.stopping:
                await running.stop(0)
                raise AgentError(f"workload {workload_id} was stopped while it started", status=409)
            workload.running = running
        except BaseException:
            self._workloads.pop(workload_id, None)
            raise
        finally:
            workload.settled.set()
        asked = request.request
        started = WorkloadStartedEvent(id=workload_id, namespace=asked.namespace, workload_type=asked.workload_type)
        self._services.emit_event(asked.namespace, EventName.WORKLOAD_STARTED, started)
        self._services.heartbeat_soon()
        return StartWorkloadResponse(id=workload_id, name=asked.name)

    async def stop_workload(self, workload_id: str, namespace: str) -> None:
        """Its triggers go first, then it ends in the background, within the grace."""
        workload = self._find(workload_id, namespace)
        workload.stopping = True
        if workload.running is None:
            return  # its start sees it
        del self._workloads[workload_id]
        await self._services.unregister_trigger(workload_id)
        task = asyncio.create_task(self._end(workload_id, workload, self._stop_grace), name=f"end-{workload_id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def get_workload(self, workload_id: str, target_xkey: str) -> StartWorkloadRequest:
        return self._find(workload_id, subjects.SYSTEM).request.request

    async def query_workloads(self, namespace: str, filter: Sequence[str]) -> list[WorkloadSummary]:  # noqa: A002
        return [
            WorkloadSummary(
                id=workload_id,
                namespace=one.request.request.namespace,
                name=one.request.request.name,
                start_time=one.start_time,
                runtime=format_duration(time.monotonic() - one.began),
                workload_type=one.request.request.workload_type,
                workload_lifecycle=one.request.request.workload_lifecycle.value,
                workload_state=WorkloadState.RUNNING if one.running is not None else WorkloadState.STARTING,
                tags=one.request.request.tags or {},
            )
            for workload_id, one in self._workloads.items()
            if namespace in (subjects.SYSTEM, one.request.request.namespace)
            and (not filter or workload_id in filter or one.request.request.name in filter)
        ]

    async def set_lameduck(self, delay: float) -> None:
        """Nothing to do: the runner refuses starts, and `close` ends what runs."""

    async def close(self, grace: float) -> None:
        workloads, self._workloads = self._workloads, {}
        for one in workloads.values():
            one.stopping = True
        await asyncio.gather(*(self._end(key, one, grace) for key, one in workloads.items()), *self._ending)

    def _find(self, workload_id: str, namespace: str) -> _Workload:
        workload = self._workloads.get(workload_id)
        if workload is None or namespace not in (subjects.SYSTEM, workload.request.request.namespace):
            raise WorkloadNotFound
        return workload

    async def _end(self, workload_id: str, workload: _Workload, grace: float) -> None:
        asked = workload.request.request
        if workload.running is None:
            return
        try:
            await workload.running.stop(grace)
        except Exception as error:  # noqa: BLE001  # one that cannot end must not keep the others
            _log.error(
                "a workload did not end in order", workload_id=workload_id, namespace=asked.namespace, exc_info=error
            )
        stopped = WorkloadStoppedEvent(id=workload_id, namespace=asked.namespace, workload_type=asked.workload_type)
        self._services.emit_event(asked.namespace, EventName.WORKLOAD_STOPPED, stopped)
        self._services.heartbeat_soon()
