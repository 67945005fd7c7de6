"""Starting again what ran before: what a node replays, and what the state has kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Container, Mapping

import structlog

from nexlet_functions.runner.agent import Agent, AgentError
from nexlet_functions.runner.endpoints import Desk
from nexlet_functions.runner.neighbours import Standing
from nexlet_models import subjects
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Restoring"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")

_AS_IT_IS = frozenset({400, 409, 413})
"""Statuses of a start that failed by what the request says: to try the same again is of no use."""

_AGAIN = (1.0, 60.0)
"""Seconds until a workload that could not be restored for another reason is tried again: doubling, up to the second."""


class Restoring:
    """Starts workloads side by side and in the background.

    One that cannot start is reported, once, and tried again where the reason may go away by itself: the node takes it
    for running all the while.

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
        self._requests: dict[str, AgentStartWorkloadRequest] = {}  # of those that have a task
        self._asking: dict[asyncio.Task[None], dict[str, AgentStartWorkloadRequest]] = {}
        self._reported: set[str] = set()
        self._untried: set[str] = set()
        self._tried = asyncio.Event()

    @property
    def standing(self) -> Standing:
        """What we are about, for other nexlets."""
        if self._untried:
            return Standing.STARTING
        return Standing.ASKING if self._asking else Standing.SETTLED

    def replay(
        self,
        agent: Agent,
        workloads: Mapping[str, AgentStartWorkloadRequest],
        elsewhere: Callable[[], Awaitable[Container[str]]],
    ) -> None:
        """Start those that run neither here nor at another nexlet, once that is known.

        Args:
            elsewhere: finds out what runs at others.
        """
        # What waits for its next try has it by the credentials that the node has minted last.
        self._requests |= {key: one for key, one in workloads.items() if key in self._tasks}
        left = {key: one for key, one in workloads.items() if key not in self._tasks}
        if left:
            task = asyncio.create_task(self._replay(agent, left, elsewhere), name="restore-replayed")
            self._asking[task] = left
            task.add_done_callback(self._asked)

    def begin(self, agent: Agent, workloads: Mapping[str, AgentStartWorkloadRequest]) -> None:
        """Start those that do not run now."""
        for workload_id, request in workloads.items():
            if workload_id not in self._tasks:
                self._requests[workload_id] = request
                task = asyncio.create_task(self._one(agent, workload_id), name=f"restore-{workload_id}")
                self._tasks[workload_id] = task
                self._untried.add(workload_id)
                task.add_done_callback(functools.partial(self._done, workload_id))

    def give_up(self, workload_id: str) -> None:
        """It was stopped: what waits for its next try does not get one."""
        for left in self._asking.values():
            left.pop(workload_id, None)
        task = self._tasks.get(workload_id)
        if task is not None:
            task.cancel()

    async def settled(self) -> None:
        """Return when each has been tried; some may be waiting for their next try."""
        while self._untried or self._asking:
            self._tried.clear()
            await self._tried.wait()

    async def cancel(self) -> None:
        """Start no more, and let go of those that are just being started."""
        tasks = [*self._asking, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _replay(
        self,
        agent: Agent,
        left: dict[str, AgentStartWorkloadRequest],
        elsewhere: Callable[[], Awaitable[Container[str]]],
    ) -> None:
        for summary in await agent.query_workloads(subjects.SYSTEM, ()):
            left.pop(summary.id, None)
        if not left:
            return  # as after a restart of the node alone
        others = await elsewhere()
        here = {key: one for key, one in left.items() if key not in others}
        if len(here) < len(left):
            _log.info(
                "other nexlets of this node run some of what it replays", here=len(here), there=len(left) - len(here)
            )
        self.begin(agent, here)

    def _asked(self, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        self._tried.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("what the node replays could not be restored", exc_info=error)

    def _done(self, workload_id: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(workload_id, None)
        self._requests.pop(workload_id, None)
        self._was_tried(workload_id)

    def _was_tried(self, workload_id: str) -> None:
        self._untried.discard(workload_id)
        self._tried.set()

    async def _one(self, agent: Agent, workload_id: str) -> None:
        pause = _AGAIN[0]
        while not await self._try(agent, workload_id, self._requests[workload_id]):
            self._was_tried(workload_id)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _AGAIN[1])

    async def _try(self, agent: Agent, workload_id: str, request: AgentStartWorkloadRequest) -> bool:
        """Start it, once. Whether there is nothing left to try."""
        async with self._slots:
            try:
                if await agent.query_workloads(subjects.SYSTEM, (workload_id,)):
                    return True  # it runs
                if self._desk.refusing:
                    return True
                await agent.start_workload(workload_id, request, existing=True)
            except Exception as error:  # noqa: BLE001  # one that cannot start must not hold up the others
                self.failures += 1
                final = isinstance(error, AgentError) and error.status in _AS_IT_IS
                self._report(workload_id, request, error, final=final)
                return final
            if workload_id in self._reported:
                self._reported.discard(workload_id)
                _log.info(
                    "a workload could be restored after all",
                    workload_id=workload_id,
                    namespace=request.request.namespace,
                    name=request.request.name,
                )
            await self._desk.started(workload_id, request)
            return True

    def _report(self, workload_id: str, request: AgentStartWorkloadRequest, error: Exception, *, final: bool) -> None:
        # Once: it may be tried again and again, and a node that keeps state replays it at every registration.
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
            next="it stays so until it is deployed again" if final else "it is tried again and again",
            exc_info=None if known else error,
        )
