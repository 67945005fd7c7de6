"""Starting again what ran before: what a node replays, and what the state has kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping

import structlog

from nexlet_functions.runner.agent import Agent, AgentError
from nexlet_functions.runner.endpoints import Desk
from nexlet_models import subjects
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Restoring"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Restoring:
    """Starts workloads side by side and in the background; one that cannot start is reported, once.

    Attributes:
        failures: attempts that failed.
    """

    def __init__(self, desk: Desk, *, at_once: int) -> None:
        """Nothing is started yet.

        Args:
            desk: told of each that runs; asked whether any may be started still.
            at_once: how many are started side by side.
        """
        self.failures = 0
        self._desk = desk
        self._slots = asyncio.Semaphore(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reported: set[str] = set()

    def begin(self, agent: Agent, workloads: Mapping[str, AgentStartWorkloadRequest]) -> None:
        """Start those that do not run now."""
        for workload_id, request in workloads.items():
            if workload_id not in self._tasks:
                task = asyncio.create_task(self._one(agent, workload_id, request), name=f"restore-{workload_id}")
                self._tasks[workload_id] = task
                task.add_done_callback(functools.partial(self._done, workload_id))

    async def cancel(self) -> None:
        """Start no more, and let go of those that are just being started."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, workload_id: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(workload_id, None)

    async def _one(self, agent: Agent, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        async with self._slots:
            try:
                if await agent.query_workloads(subjects.SYSTEM, (workload_id,)):
                    return  # it runs
                if self._desk.refusing:
                    return
                await agent.start_workload(workload_id, request, existing=True)
            except Exception as error:  # noqa: BLE001  # one that cannot start must not hold up the others
                self.failures += 1
                self._report(workload_id, request, error)
                return
            self._reported.discard(workload_id)
            await self._desk.started(workload_id, request)

    def _report(self, workload_id: str, request: AgentStartWorkloadRequest, error: Exception) -> None:
        # Once: a node that keeps state replays it at every registration.
        if workload_id in self._reported:
            return
        self._reported.add(workload_id)
        known = isinstance(error, AgentError)
        _log.error(
            "a workload could not be restored",
            workload_id=workload_id,
            namespace=request.request.namespace,
            name=request.request.name,
            reason=error.text if isinstance(error, AgentError) else str(error),
            exc_info=None if known else error,
        )
