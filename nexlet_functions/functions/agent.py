"""The function agent: what a runner asks of it, answered for all functions of this nexlet.

`FunctionAgent` keeps the register of what is deployed and the rules between functions: one id runs once, who may stop
what. What may be started at all is said by `admission.Admission`, and each function sees to itself
(`function.Function`). Work that outlives the request that began it (starting, draining) is in tasks that the agent owns
and `close` ends.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from nexlet_functions.functions.admission import Admission
from nexlet_functions.functions.environment import open_environment, seal_environment
from nexlet_functions.functions.function import Function
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.means import DispatcherFactory, Means
from nexlet_functions.functions.refusals import Refusal, refused
from nexlet_functions.functions.register import Register
from nexlet_functions.functions.requests import made_name
from nexlet_functions.functions.rotation import watch_secrets
from nexlet_functions.functions.tally import Tally
from nexlet_functions.observing.feed import MetricsFeed
from nexlet_functions.runner.agent import Refused, WorkloadNotFound
from nexlet_functions.runner.services import Services
from nexlet_functions.sandboxing import Sandboxing, permitted_profiles
from nexlet_functions.schedules.scheduler import Scheduler
from nexlet_functions.settings import SettingsHolder
from nexlet_models.base import timestamp
from nexlet_models.events import WorkloadFailure
from nexlet_models.problems import Problem
from nexlet_models.registration import AgentHeartbeat, AgentState, AgentSummary, RegisterAgentRequest
from nexlet_models.start_request import open_schema
from nexlet_models.subjects import SYSTEM
from nexlet_models.workloads import (
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StartWorkloadResponse,
    WorkloadLifecycle,
    WorkloadSummary,
)
from nexlet_sandboxes.reserve import Reserve
from nexlet_sandboxes.zygote import Zygote

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["FunctionAgent"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")

_START_DEADLINE = 55.0
"""Seconds for a start in all. The node waits a minute, and would then take for failed what came to run after all."""

_OURS = frozenset({"internal", "unreachable"})
"""Codes of problems that are not in what was asked for, but in what it was to be done with."""

_ONCE_FINE = frozenset({"load-timeout", "compiled-form"})
"""Codes of problems that what ran before need not have the next time: with all the others that start at the same time
the machine was slow, or what had been compiled was damaged and is made anew."""

_TIDY_AFTER = 600.0
"""Seconds until sources that nobody uses are forgotten: by then, what ran before runs again and has its own."""

_STOPPED = (Problem("it was stopped while it was starting", advice="deploy it again", code="stopped"),)

DESCRIPTION = "Runs Python functions on NATS subjects, each in locked processes of its own"


class FunctionAgent:
    """Implements `Agent`, `ClosingAgent` and `DescribedAgent` of `nexlet_functions.runner.agent`.

    Attributes:
        starts: how starts of functions ended: `started`, `restored` (it ran before), `refused` (its author can
            mend it), `failed` (only we or the operator can), `stopped` (while it was starting).
        on_gone: called with a function that is gone, when nothing is counted in it any more.
    """

    def __init__(
        self,
        *,
        services: Services,
        zygote: Zygote,
        settings: SettingsHolder,
        key: CurveKey,
        sandboxing: Sandboxing | None = None,
        tracer: Tracer | None = None,
        dispatchers: DispatcherFactory | None = None,
        scheduler: Scheduler | None = None,
        version: str | None = None,
    ) -> None:
        """An agent without functions.

        Args:
            services: the runner's.
            zygote: makes the workers; the caller closes it, after the agent.
            settings: with the rules, which may change.
            key: what environments are sealed to.
            sandboxing: what was proved of the sandbox; None assumes that it holds.
            tracer: makes spans of invocations; None makes none.
            dispatchers: makes those of functions; None makes plain ones.
            scheduler: waits for what is due; None makes one by this machine's clock.
            version: semantic; None takes the installed one.
        """
        self._services = services
        self._settings = settings
        self._key = key
        self._version = version or importlib.metadata.version("nexlet-functions")
        self._since = timestamp()
        self._state = AgentState.RUNNING
        self._sandboxing = sandboxing or Sandboxing.assumed()
        self._means = Means.of(
            settings,
            services=services,
            zygote=zygote,
            key=key,
            sandboxing=self._sandboxing,
            tracer=tracer,
            dispatchers=dispatchers,
            scheduler=scheduler,
        )
        self._room = asyncio.Semaphore(settings.current.max_starting)
        self._functions = Register()
        self._admission = Admission(self._means, self._functions)
        self._tally = Tally()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[Function] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidied = False
        self._tidying: asyncio.TimerHandle | None = None
        self._failed_replays: dict[str, str] = {}  # workload id to namespace
        self._feed: MetricsFeed | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._rotating: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        interval = settings.current.metrics_interval
        if interval:
            self._feed = MetricsFeed(services, lambda: self.functions, interval=interval)
        self._gone = 0
        self.starts: Counter[str] = Counter()
        self.on_gone: Callable[[Function], None] = lambda function: None

    # --- who we are ------------------------------------------------------------------------------------------------

    async def register(self) -> RegisterAgentRequest:
        """See `Agent.register`."""
        if not self._tidied:
            self._tidied = True
            self._tidying = asyncio.get_running_loop().call_later(
                _TIDY_AFTER, lambda: self._own(self._tidy(), "tidy pinned sources")
            )
            if self._feed is not None:
                self._feeding = self._own(self._feed.run(), "metrics feed")
            if interval := self._settings.current.rotation_interval:
                watching = watch_secrets(lambda: self.functions, self._services, interval=interval)
                self._rotating = self._own(watching, "rotation of secrets")
            if self._settings.current.max_own_connections:
                self._watching = self._own(self._means.floods.run(), "floods")
        settings = self._settings.current
        return RegisterAgentRequest(
            name=settings.name,
            register_type=settings.register_type,
            version=self._version,
            description=DESCRIPTION,
            max_workloads=settings.max_workloads,
            public_xkey=self._key.public,
            start_request_schema=open_schema(),
            supported_lifecycles=(WorkloadLifecycle.FUNCTION,),
        )

    async def _tidy(self) -> None:
        forgotten = await self._means.pins.forget_old((*self._functions, *self._failed_replays))
        if forgotten:
            _log.info("pinned sources forgotten that no workload used for long", count=forgotten)

    async def heartbeat(self) -> AgentHeartbeat:
        """See `Agent.heartbeat`. The data is a JSON object with counts over all functions."""
        tally = self._tally
        await tally.look(self._functions.values())
        cgroup = self._sandboxing.cgroup
        data = {
            "register_type": self._settings.current.register_type,
            "namespace_count": len(tally.namespaces),
            "functions": dict(tally.states),
            "workers": tally.workers,
            "pending": tally.pending,
            "invocations": dict(tally.outcomes),
            "sandboxes": {
                profile: {"engaged": list(standing.engaged), "missing": list(standing.missing_names)}
                for profile, standing in self._sandboxing.standings.items()
                if profile in permitted_profiles(self._settings.current)
            },
            "cgroup_controllers": list(cgroup.controllers) if cgroup is not None else None,
        }
        return AgentHeartbeat(data=json.dumps(data), summary=await self.ping())

    async def ping(self) -> AgentSummary:
        """See `Agent.ping`."""
        settings = self._settings.current
        return AgentSummary(
            name=settings.name,
            type=settings.register_type,
            start_time=self._since,
            state=self._state.value,
            supported_lifecycles=WorkloadLifecycle.FUNCTION.value,
            workload_count=len(self._functions),
            version=self._version,
        )

    def service_metadata(self) -> dict[str, str]:
        """See `DescribedAgent.service_metadata`."""
        settings = self._settings.current
        return {
            "register_type": settings.register_type,
            "default_profile": settings.default_profile,
            **self._sandboxing.facts(settings.default_profile),
            "xkey": self._key.public,
        }

    # --- starting --------------------------------------------------------------------------------------------------

    async def start_workload(
        self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool
    ) -> StartWorkloadResponse:
        """See `Agent.start_workload`. The same id with the same request is the same start."""
        function = self._functions.get(workload_id)
        if function is None:
            try:
                function = self._admit(workload_id, request, existing=existing)
            except Refusal as refusal:
                asked = request.request
                problems = [*refusal.problems]
                if self._state is AgentState.RUNNING:
                    problems += await self._admission.further_problems(asked, refusal.problems, self._room)
                self._tell_refusal(workload_id, asked, problems, existing=existing)
                raise refused(asked.name or made_name(workload_id), problems) from None
        elif function.asked != request.request:
            raise refused(
                request.request.name,
                [
                    Problem(
                        f"workload {workload_id} runs already, from another request",
                        advice="stop it first, or deploy under a new id",
                        code="conflict",
                    )
                ],
            )
        starting = self._starting.get(workload_id)
        if starting is not None:
            try:
                await asyncio.shield(starting)  # whoever asked may go away; the start does not
            except asyncio.CancelledError:
                if not starting.cancelled():
                    raise
                raise refused(function.name, _STOPPED) from None  # before it took its first step
        return StartWorkloadResponse(id=workload_id, name=function.name)

    def _admit(self, workload_id: str, request: AgentStartWorkloadRequest, *, existing: bool) -> Function:
        """Put a function into the register and begin to start it. Nothing waits here: what is granted is counted.

        Raises:
            Refusal: with everything that is wrong with the request.
        """
        if self._state is not AgentState.RUNNING:
            raise Refusal(
                Problem(
                    "this nexlet is going away and takes no new functions",
                    advice="deploy again: another nexlet takes it",
                    code="draining",
                )
            )
        function = self._admission.function(workload_id, request)
        self._functions[workload_id] = function
        starting = self._own(self._start(function, existing=existing), f"start {function.namespace}.{function.name}")
        self._starting[workload_id] = starting
        starting.add_done_callback(lambda task: self._started(function, task))
        return function

    def _started(self, function: Function, task: asyncio.Task[None]) -> None:
        """Before anyone who waits for the start goes on: it is in the register only if it runs."""
        del self._starting[function.workload_id]
        if task.cancelled() or task.exception() is not None:
            del self._functions[function.workload_id]
        self._services.heartbeat_soon()

    async def _start(self, function: Function, *, existing: bool) -> None:
        """Start a function that was admitted.

        Raises:
            Refused: with the text for the person who asked.
        """
        workload_id = function.workload_id
        try:
            async with asyncio.timeout(_START_DEADLINE), self._room:
                await function.start(existing=existing)
        except Refusal as refusal:
            problems: Sequence[Problem] = refusal.problems
        except TimeoutError:
            problems = [
                Problem(
                    f"it did not start within {_START_DEADLINE:g} s",
                    advice="try again; if it stays so, ask the operator of the nexlet",
                    code="unreachable",
                )
            ]
        except asyncio.CancelledError:
            problems = _STOPPED  # nobody but `_stop_starting` cancels it
        except Exception as error:  # noqa: BLE001  # ours, whatever it is, and one function's: the nexlet goes on
            error_id = secrets.token_hex(8)
            _log.exception(
                "starting a function failed",
                workload_id=workload_id,
                namespace=function.namespace,
                name=function.name,
                error_id=error_id,
                error=str(error),
            )
            problems = [
                Problem(
                    f"the nexlet failed to start it (error id {error_id})",
                    advice="ask the operator of the nexlet, whose log has the reason under this id",
                    code="internal",
                )
            ]
        else:
            self._failed_replays.pop(workload_id, None)
            self.starts["restored" if existing else "started"] += 1
            if not existing:
                self._tell_namesakes(function)
            return
        self._tell_refusal(workload_id, function.asked, problems, existing=existing)
        refusing = refused(function.name, problems)
        if existing and any(problem.code in _ONCE_FINE for problem in problems):
            refusing.status = 503
        raise refusing

    def _tell_namesakes(self, function: Function) -> None:
        """The operator's line about a function that shares its name, and with it its messages, with others."""
        replaced, beside = function.namesakes()
        told = {
            "workload_id": function.workload_id,
            "namespace": function.namespace,
            "name": function.name,
            "digest": function.digest,
        }
        if replaced:
            _log.info("function replaces another", **told, replaced=[_identity(one) for one in replaced])
        if any(one.digest != function.digest for one in beside):
            _log.warning(
                "function shares its name and its messages with another that is not the same",
                **told,
                beside=[_identity(one) for one in beside],
                advice="stop the one that is not wanted; `nexfn deploy` puts one in the place of the other",
            )
        elif beside:
            _log.info("function runs more than once", **told, beside=[_identity(one) for one in beside])

    def _tell_refusal(
        self, workload_id: str, asked: StartWorkloadRequest, problems: Sequence[Problem], *, existing: bool
    ) -> None:
        """The operator's line about a function that is not started. About replayed ones the runner has a line."""
        ours = any(problem.code in _OURS for problem in problems)
        self.starts["stopped" if problems is _STOPPED else "failed" if ours else "refused"] += 1
        if existing:
            if problems is not _STOPPED:
                self._failed_replays[workload_id] = asked.namespace
            return
        _log.warning(
            "function refused",
            workload_id=workload_id,
            namespace=asked.namespace,
            name=asked.name,
            # What is wrong with a source is its author's business: it may quote values that only they should see.
            problems=[f"{p.location()} {p.code}" if p.line else f"{p.place} {p.message}".strip() for p in problems],
        )

    # --- stopping --------------------------------------------------------------------------------------------------

    async def stop_workload(self, workload_id: str, namespace: str) -> None:
        """See `Agent.stop_workload`. Returns when no message reaches it any more; what runs ends in the background."""
        function = self._functions.get(workload_id)
        failed_in = self._failed_replays.get(workload_id)
        if function is None and failed_in is not None and namespace in (failed_in, SYSTEM):
            # It does not run, but the node keeps it until somebody says that it is stopped.
            del self._failed_replays[workload_id]
            await self._means.pins.drop(workload_id)
            return
        if function is None or namespace not in (function.namespace, SYSTEM):
            raise WorkloadNotFound
        starting = self._starting.get(workload_id)
        if starting is not None:
            await self._stop_starting([starting])
        if self._functions.get(workload_id) is not function:
            await self._means.pins.drop(workload_id)
            return  # stopped twice at the same time: it is stopped
        del self._functions[workload_id]
        self._leaving.add(function)
        try:
            await function.stop_listening()
        finally:
            self._own(self._leave(function), f"stop {function.namespace}.{function.name}")
            self._services.heartbeat_soon()
        await self._means.pins.drop(workload_id)

    async def _stop_starting(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """End starts that are under way, and wait until they have cleaned up after themselves."""
        for task in tasks:
            if not task.cancelling():  # a second time would interrupt the cleaning up
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _leave(
        self, function: Function, *, failure: WorkloadFailure | None = None, grace: float | None = None
    ) -> None:
        """Let a function go that is in the register no more. Its id may be that of another one by then."""
        grace = self._settings.current.grace if grace is None else grace
        try:
            await function.leave(grace, failure=failure)
        finally:
            self._leaving.discard(function)
            self._gone += 1
            if self._feed is not None:
                self._feed.gone(function)
            self.on_gone(function)

    async def set_lameduck(self, delay: float) -> None:
        """See `Agent.set_lameduck`. What runs is served on; when the delay is over the runner calls `close`."""
        if self._state is AgentState.RUNNING:
            self._state = AgentState.LAMEDUCK
            self._services.heartbeat_soon()
        _log.info("lameduck: no new functions from now on", delay=delay)

    async def close(self, grace: float | None = None) -> None:
        """End everything: no new functions, subscriptions first, then what runs, then the workers.

        Workloads stay deployed as far as the node is concerned: a restarted nexlet is given them again.

        Args:
            grace: seconds for what runs; None means the settings'.
        """
        if self._state is AgentState.RUNNING:
            self._state = AgentState.STOPPING
            self._services.heartbeat_soon()
        lameduck = self._state is AgentState.LAMEDUCK
        reason = "its nexlet went into lameduck" if lameduck else "its nexlet was shut down"
        await self._drain(WorkloadFailure(code="503", message=reason), grace)
        for task in (self._feeding, self._rotating, self._watching):
            if task is not None:
                task.cancel()
        if self._tidying is not None:
            self._tidying.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._means.scheduler.close()
        await self._means.reserve.close()

    async def _drain(self, failure: WorkloadFailure, grace: float | None) -> None:
        await self._stop_starting(list(self._starting.values()))
        functions = list(self._functions.values())
        self._functions.clear()
        self._leaving.update(functions)
        stopped = await asyncio.gather(*(function.stop_listening() for function in functions), return_exceptions=True)
        left = await asyncio.gather(
            *(self._leave(function, failure=failure, grace=grace) for function in functions),
            return_exceptions=True,
        )
        for function, outcomes in zip(functions, zip(stopped, left, strict=True), strict=True):
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    _log.error(
                        "stopping a function failed",
                        workload_id=function.workload_id,
                        namespace=function.namespace,
                        name=function.name,
                        exc_info=outcome,
                    )

    # --- telling ---------------------------------------------------------------------------------------------------

    async def get_workload(self, workload_id: str, target_xkey: str) -> StartWorkloadRequest:
        """See `Agent.get_workload`.

        What was pinned is told with its checksum, so that a clone runs the same source or none. A sealed environment
        stays sealed to the nexlet's key, which nexlets may share; it is sealed anew only to a key that the operator has
        named (`xkey_peers`). Anything else would open it to whoever asks: the `nex` command line, for one, sends a key
        that it throws away.
        """
        function = self._functions.get(workload_id)
        if function is None or function.artifact is None:
            raise WorkloadNotFound
        changes: dict[str, Any] = {}
        start = function.start_request
        if start.uri is not None:
            changes["sha256"] = function.artifact.sha256
        if start.encrypted_environment is not None and target_xkey in self._settings.current.xkey_peers:
            sealed_only = start.model_copy(update={"environment": {}})
            values = await open_environment(sealed_only, function.namespace, secrets=self._services, key=self._key)
            changes["encrypted_environment"] = seal_environment(values, self._key, target_xkey).model_dump()
        if not changes:
            return function.request
        run_request = json.dumps(json.loads(function.request.run_request) | changes, ensure_ascii=False)
        return function.request.model_copy(update={"run_request": run_request})

    async def query_workloads(self, namespace: str, filter: Sequence[str]) -> list[WorkloadSummary]:  # noqa: A002
        """See `Agent.query_workloads`. What is still finishing its work is told as `stopping`."""
        return [
            function.summary()
            for function in (*self._functions.values(), *self._leaving)
            if namespace in (SYSTEM, function.namespace)
            and (not filter or function.workload_id in filter or function.name in filter)
        ]

    @property
    def functions(self) -> list[Function]:
        """Those that are here, from their first step to the end of their last worker."""
        return [*self._functions.values(), *self._leaving]

    @property
    def reserve(self) -> Reserve:
        """The workers that wait for a function that needs one."""
        return self._means.reserve

    @property
    def changes(self) -> tuple[int, int]:
        """How many starts have ended so far, however they did, and how many functions are gone."""
        return self.starts.total(), self._gone

    @property
    def quiet(self) -> bool:
        """Whether no function starts or leaves, and none has anything to do."""
        return not (self._starting or self._leaving or any(function.busy for function in self._functions.values()))

    # --- tasks -----------------------------------------------------------------------------------------------------

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        # A refusal was told where it arose, and whoever asked is told as well.
        if error is not None and not isinstance(error, Refused):
            _log.error("a task of the function agent failed", task=task.get_name(), exc_info=error)


def _identity(function: Function) -> dict[str, str]:
    return {"workload_id": function.workload_id, "digest": function.digest}
