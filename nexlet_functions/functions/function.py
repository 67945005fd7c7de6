"""One deployed function: from an accepted request to live triggers, and back to nothing.

`Function` owns everything that exists because of one workload: a hold on its connection, the pool of workers, the
dispatcher between them, and its subscriptions. `start` makes them in an order in which each step may fail, and takes
back what was made before; `leave` is the way out: subscriptions first, then what runs is finished, then the rest goes.
What has steps of its own on this way is a part with a module: `listening`, `schedules`, `rotation`, `granted`, and
`nexlet_functions.streams`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from nexlet_functions.functions.apart import Apart
from nexlet_functions.functions.artifacts import Artifact
from nexlet_functions.functions.dispatch import DispatchCounts, Dispatcher
from nexlet_functions.functions.environment import Secrets, open_environment, secret_values
from nexlet_functions.functions.granted import open_calls
from nexlet_functions.functions.listening import Listening
from nexlet_functions.functions.means import Means
from nexlet_functions.functions.permissions import ReplyRule
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.functions.requests import fit_reply
from nexlet_functions.functions.rotation import Rotation
from nexlet_functions.functions.schedules import FunctionSchedules
from nexlet_functions.functions.triggers import Trigger
from nexlet_functions.grants.calls import Calls
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.streams.letters import Sender
from nexlet_functions.streams.streams import Streams
from nexlet_models.base import timestamp
from nexlet_models.connection import NatsConnectionData
from nexlet_models.durations import format_duration
from nexlet_models.events import WorkloadFailure, WorkloadStartedEvent, WorkloadStoppedEvent
from nexlet_models.problems import Problem
from nexlet_models.sizes import format_size
from nexlet_models.start_request import StartRequest
from nexlet_models.workloads import REPLACES, StartWorkloadRequest, WorkloadState, WorkloadSummary
from nexlet_sandboxes.calls import Result
from nexlet_sandboxes.checking import check
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.pool import Pool, PoolStats
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import ZygoteError

__all__ = ["Function"]

_log = structlog.stdlib.get_logger("nexlet_functions.functions")

_COMES_AND_GOES = {WorkloadState.RUNNING, WorkloadState.WARM}
"""What a function is in turn as messages come. Of a thousand functions some always change so, and the next heartbeat,
which has the counts, is soon enough for that."""

_TELL_DEATHS = 1.0  # seconds between two log lines about workers of one function that died


class Function:
    """One workload.

    Attributes:
        workload_id, namespace, name: who it is.
        asked: the request as it came.
        request: the same with the name that it goes by.
        start_request: what it says.
        limits, profile, triggers: what it was granted.
        artifact: its source; None before that is fetched.
        streams: its triggers that are streams.
        schedules: its triggers that are times.
        rotation: how it comes by secrets that are changed.
    """

    def __init__(
        self,
        workload_id: str,
        asked: StartWorkloadRequest,
        *,
        name: str,
        start_request: StartRequest,
        creds: NatsConnectionData,
        limits: Limits,
        profile: str,
        triggers: tuple[Trigger, ...],
        means: Means,
        on_change: Callable[[], None],
        namesakes: Callable[[Function], Sequence[Function]],
    ) -> None:
        """Nothing is made yet.

        Args:
            on_change: called when `state` is another one that others should know of at once.
            namesakes: the others of its name.
        """
        self.workload_id = workload_id
        self.namespace = asked.namespace
        self.name = name
        self.asked = asked
        self.request = asked.model_copy(update={"name": name})
        self.start_request = start_request
        self.limits = limits
        self.profile = profile
        self.triggers = triggers
        self.artifact: Artifact | None = None
        self.streams = Streams(start_request, Sender(self.namespace, name, workload_id))
        self.schedules = FunctionSchedules(means.scheduler, start_request)
        self._creds = creds
        self._means = means
        self._on_change = on_change
        self._namesakes = namesakes
        self._replaces = frozenset(str((asked.metadata or {}).get(REPLACES, "")).split(","))
        self._hold = AsyncExitStack()
        self._connection: Connection | None = None
        self._pool: Pool | None = None
        self._dispatcher: Dispatcher | None = None
        self._calls: Calls | None = None
        self._phase = WorkloadState.STARTING
        self._told = WorkloadState.STARTING
        self._since = timestamp()
        self._deaths_untold = 0
        self._deaths_told_at = 0.0
        self._log = _log.bind(workload_id=workload_id, namespace=self.namespace, name=name)
        self.rotation = Rotation(start_request, self.namespace, key=means.key, log=self._log)
        self._listening = Listening(
            workload_id,
            self.namespace,
            creds,
            start_request,
            triggers,
            services=means.services,
            floods=means.floods,
            log=self._log,
        )

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> WorkloadState:
        """What it is doing.

        `running` with workers, `warm` when they have gone for want of work and the next message brings one back,
        `error` while workers die one after another.
        """
        if self._phase is not WorkloadState.RUNNING or self._pool is None:
            return self._phase
        if self._pool.unwell:
            return WorkloadState.ERROR
        return WorkloadState.WARM if self._pool.asleep else WorkloadState.RUNNING

    @property
    def stats(self) -> PoolStats | None:
        """Its workers; None before there are any."""
        return self._pool.stats() if self._pool is not None else None

    @property
    def stamp(self) -> tuple[object, ...]:
        """Another one whenever its state, its workers or anything that it counts is: see `Pool.stamp`."""
        pool = self._pool
        if pool is None:
            return (self._phase,)
        asked = self._calls.counts.total() if self._calls is not None else 0
        return (self._phase, pool.stamp, self.schedules.counted, self.streams.counted, asked)

    @property
    def busy(self) -> bool:
        """Whether it has invocations that have not ended."""
        return self._pool is not None and self._pool.busy

    @property
    def counts(self) -> DispatchCounts | None:
        """Its invocations; None before there can be any."""
        return self._dispatcher.counts if self._dispatcher is not None else None

    @property
    def calls(self) -> Counter[tuple[str, str]]:
        """Its calls to what it was granted, by kind and status (see `Calls.counts`); none where nothing was."""
        return self._calls.counts if self._calls is not None else Counter()

    @property
    def pool(self) -> Pool | None:
        """Its workers, for those who count them; None before there are any."""
        return self._pool

    @property
    def apart(self) -> Apart | None:
        """Where its messages come; None before any can."""
        return self._listening.apart

    @property
    def digest(self) -> str:
        """Of what it runs; "" before that is known."""
        return f"sha256:{self.artifact.sha256}" if self.artifact is not None else ""

    def namesakes(self) -> tuple[list[Function], list[Function]]:
        """The others of its name that are here: those that it takes the place of, and those that it runs beside."""
        others = self._namesakes(self)
        replaced = [one for one in others if one.workload_id in self._replaces]
        return replaced, [one for one in others if one not in replaced and self.workload_id not in one._replaces]

    def metadata(self) -> dict[str, str]:
        """What it runs, how it is locked in, and who shares its messages: in its events."""
        facts = {"sandbox": self.profile, **self._means.sandboxing.facts(self.profile)}
        if self.start_request.rotation == "live":
            facts["rotation"] = "live"
        if self.rotation.trouble:
            facts["rotation_trouble"] = self.rotation.trouble
        if self.start_request.grants:
            facts["grants"] = self.start_request.grants.summary()
        if self.artifact is not None:
            facts["digest"] = self.digest
            if self.artifact.place:
                facts["uri"] = self.artifact.place
        if self._phase in (WorkloadState.STARTING, WorkloadState.RUNNING):
            for fact, others in zip(("replaces", "beside"), self.namesakes(), strict=True):
                if others:
                    facts[fact] = ", ".join(f"{one.workload_id} {one.digest}".rstrip() for one in others)
        return facts

    def summary(self) -> WorkloadSummary:
        """Its line in a list."""
        facts = self.metadata() | {
            "triggers": ",".join(trigger.subject for trigger in self.triggers),
            "queue_groups": ",".join(dict.fromkeys(trigger.queue_group for trigger in self.triggers)),
            "timeout": format_duration(self.limits.timeout),
            "memory": format_size(self.limits.memory),
            **self.streams.facts(),
            **self.schedules.facts(),
        }
        if unanswered := [trigger.subject for trigger in self.triggers if not trigger.reply]:
            facts["unanswered"] = ",".join(unanswered)
        own = self.apart.connection if self.apart is not None else None
        if own is not None:
            facts["connection"] = "its own, while it is flooded"
        for connection in (self._connection, own):
            if connection is not None and not connection.connected:
                failure = connection.last_failure
                facts["disconnected"] = failure.reason if failure is not None else "its connection was lost"
        run = 0
        if self._pool is not None and self._dispatcher is not None:
            stats, counts = self._pool.stats(), self._dispatcher.counts
            run = counts.ran.sum_ns
            facts["workers"] = f"{stats.workers}/{self.limits.max_workers}"
            facts["in_flight"] = str(stats.in_flight)
            facts["pending"] = str(stats.pending)
            facts["invocations"] = str(sum(counts.outcomes.values()))
            facts |= {f"outcome_{outcome}": str(count) for outcome, count in counts.outcomes.items() if count}
            for fact in ("replies_withheld", "replies_dropped", "events_dropped"):
                if count := getattr(counts, fact):
                    facts[fact] = str(count)
            if stats.log_lines_dropped:
                facts["log_lines_dropped"] = str(stats.log_lines_dropped)
            if self._pool.budget is not None and self._pool.budget.held_ns:
                facts["namespace_cpu_held"] = format_duration(self._pool.budget.held_ns // 1_000_000 / 1e3)
            if self._pool.unwell:
                facts["error"] = self._pool.last_failure
        return WorkloadSummary(
            id=self.workload_id,
            namespace=self.namespace,
            name=self.name,
            start_time=self._since,
            runtime=format_duration(run / 1e9),
            workload_type=self.asked.workload_type,
            workload_lifecycle=self.asked.workload_lifecycle,
            workload_state=self.state,
            metadata=facts,
            tags=self.asked.tags or {},
        )

    # --- the way in ------------------------------------------------------------------------------------------------

    async def start(self, *, existing: bool) -> None:
        """Make everything, up to live subscriptions, and say so.

        Args:
            existing: it ran before, so what it ran is what it runs.

        Raises:
            Refusal: it cannot be started; nothing is left behind.
        """
        try:
            await self._start(existing=existing)
        except BaseException:
            self._phase = WorkloadState.STOPPED
            # What ran before and cannot start now may start another time, from the source it is pinned to.
            await self._unmake()
            if not existing:
                await self._means.pins.drop(self.workload_id)
            raise
        self._phase = WorkloadState.RUNNING
        self._look()
        event = WorkloadStartedEvent(
            id=self.workload_id,
            namespace=self.namespace,
            workload_type=self.asked.workload_type,
            metadata=self.metadata(),
        )
        self._means.services.emit_event(self.namespace, event.event_name, event)
        self._log.info(
            "function started", profile=self.profile, existing=existing, triggers=len(self.start_request.triggers)
        )

    async def _start(self, *, existing: bool) -> None:
        means = self._means
        try:
            connection = await self._hold.enter_async_context(means.services.connection(self.namespace, self._creds))
        except AgentError as error:
            raise Refusal(
                Problem(
                    f"no connection for this workload: {error.text}",
                    advice="the node's credentials do not reach the server from here: ask the operator of the node",
                    code="unreachable",
                )
            ) from None
        self._connection = connection
        problems: list[Problem] = []
        try:
            self.limits = fit_reply(self.limits, self.start_request, connection.max_payload)
        except Refusal as refusal:
            problems += refusal.problems
        artifact, environment = await self._collect(connection, problems, existing=existing)
        self.artifact = artifact
        settings = means.settings()
        program = Program(
            source=artifact.source,
            files=self.start_request.files,
            handler=self.start_request.handler,
            environment=environment,
            workload_id=self.workload_id,
            name=self.name,
            namespace=self.namespace,
            patterns=tuple(one.pattern for one in self.start_request.triggers) or (self.workload_id,),
            modules=settings.modules,
            batch=self.start_request.batch,
        )
        fingerprint = means.compiler.fingerprint(program)
        kept = await means.pins.find_form(self.workload_id, fingerprint) if existing and fingerprint else b""
        dispatcher = self._make_dispatcher(
            environment,
            workload_id=self.workload_id,
            namespace=self.namespace,
            triggers=self.triggers,
            services=means.services,
            rule=ReplyRule(
                (
                    *(trigger.subject for trigger in self.triggers),
                    *(one.trigger.filter for one in self.streams.consumers if one.trigger.filter),
                )
            ),
            events=settings.events,
            max_hops=settings.max_hops,
            on_change=self._look,
            on_death=self._died,
        )
        if self.start_request.grants:
            self._calls = await open_calls(
                self.start_request.grants,
                connection,
                self._hold,
                means=means,
                namespace=self.namespace,
                name=self.name,
                identity=dispatcher.identity,
            )
        try:
            pool = Pool(
                means.zygote,
                program,
                self.limits,
                self.schedules.sink(dispatcher),
                profile=self.profile,
                backlog=means.backlog,
                warm=means.warm,
                reserve=means.reserve,
                budget=means.budget(self.namespace),
                answerer=self._calls,
            )
            pool.compiled = kept
            dispatcher.bind(pool)
            self._pool, self._dispatcher = pool, dispatcher
            await pool.start()
        except LoadRefused as refused:
            if any(problem.code == "compiled-form" for problem in refused.problems):
                await means.pins.drop_form(self.workload_id)
            raise Refusal(*refused.problems) from None
        except ZygoteError as error:
            raise Refusal(
                Problem(
                    f"no worker could be made: {error}",
                    advice="that is for the operator of the nexlet to mend; deploy it again then",
                    code="no-worker",
                )
            ) from None
        except SandboxError as error:
            await means.pins.drop_form(self.workload_id)  # whatever it died of, another try is not to begin with it
            raise Refusal(
                Problem(f"no worker could be made: {error}", advice="ask the operator of the nexlet", code="internal")
            ) from error
        await self._keep(artifact)
        if pool.compiled and not kept:
            await self._keep_form(fingerprint, pool.compiled)
        pulled = self.streams.specs(connection, pool, dispatcher, max_hops=settings.max_hops)
        await self._listening.begin(dispatcher, pool, pulled)
        await self.streams.begin()
        await self.schedules.begin(
            pool,
            connection,
            bucket=settings.schedules_bucket,
            workload_id=self.workload_id,
            namespace=self.namespace,
            name=self.name,
            limits=self.limits,
        )

    async def renew_secrets(self, secrets: Secrets) -> None:
        """Where it asked for it, let it have the secrets that there are now; see `Rotation.renew`."""
        # In `dev` a changed secret is a new version of the function, which whoever records it has to know first.
        renews = self.start_request.rotation == "live" and self._means.dispatchers is None
        if renews and self._pool is not None and self._phase is WorkloadState.RUNNING:
            await self.rotation.renew(self._pool, secrets)

    def _make_dispatcher(self, environment: Mapping[str, str], **arguments: Any) -> Dispatcher:
        if self._means.dispatchers is not None:
            secrets = secret_values(self.start_request, environment)
            return self._means.dispatchers(name=self.name, secrets=secrets, **arguments)
        if self._means.tracer is None:
            return Dispatcher(name=self.name, **arguments)
        from nexlet_functions.observing.tracing import TracingDispatcher  # needs the extra

        return TracingDispatcher(
            tracer=self._means.tracer,
            name=self.name,
            consumers=self.streams.consumers,
            timed=self.schedules.texts,
            **arguments,
        )

    async def _collect(
        self, connection: Connection, known: Sequence[Problem], *, existing: bool
    ) -> tuple[Artifact, dict[str, str]]:
        """Source, environment and streams side by side; what is wrong with any is said in one, with what is known."""
        source, environment, streams = await asyncio.gather(
            self._source(connection, existing=existing),
            open_environment(
                self.start_request, self.namespace, secrets=self._means.services, key=self._means.key
            ),
            self.streams.look(connection),
            return_exceptions=True,
        )  # fmt: skip
        problems = [*known]
        for outcome in (source, environment, streams):
            if isinstance(outcome, Refusal):
                problems += outcome.problems
            elif isinstance(outcome, BaseException):
                raise outcome
        if problems:
            if isinstance(source, Artifact):
                problems += await self._problems_of(source)
            raise Refusal(*problems)
        assert isinstance(source, Artifact)
        assert isinstance(environment, dict)
        return source, {name: value.get_secret_value() for name, value in environment.items()}

    async def _problems_of(self, artifact: Artifact) -> Sequence[Problem]:
        """What is wrong with the source of a function that is refused anyway: its author mends it all in one go."""
        start = self.start_request
        modules = self._means.settings().modules
        program = Program(
            source=artifact.source, files=start.files, handler=start.handler, modules=modules, batch=start.batch
        )
        try:
            return await check(self._means.zygote, program, limits=self.limits, profile=self.profile)
        except SandboxError as error:
            self._log.warning("a source could not be checked", error=str(error))
            return ()

    async def _source(self, connection: Connection, *, existing: bool) -> Artifact:
        if existing:
            pinned = await self._means.pins.find(self.workload_id, self.start_request)
            if pinned is not None:
                return pinned
        limit = self._means.settings().rules(self.namespace).ceilings.source
        return await self._means.artifacts.fetch(self.start_request, connection, limit=limit)

    async def _keep(self, artifact: Artifact) -> None:
        try:
            await self._means.pins.keep(self.workload_id, artifact)
        except OSError as error:
            # It runs all the same; what is lost is that a restart runs the very same bytes.
            self._log.warning(
                "source not pinned", reason=error.strerror, consequence="a restart fetches what is there then"
            )

    async def _keep_form(self, fingerprint: str, form: bytes) -> None:
        try:
            await self._means.pins.keep_form(self.workload_id, fingerprint, form)
        except OSError as error:
            self._log.info("compiled form not kept", reason=error.strerror, consequence="a restart compiles it again")

    # --- the way out -----------------------------------------------------------------------------------------------

    async def stop_listening(self) -> None:
        """End the subscriptions. When this returns, what was delivered is in the queue and nothing more comes."""
        self._phase = WorkloadState.STOPPING
        await self._stop_listening()

    async def _stop_listening(self) -> None:
        # Once only: while this one still finishes its work, another may listen under the same id.
        self.streams.stop()
        await self._listening.stop()
        await self.schedules.end()

    async def leave(self, grace: float, *, failure: WorkloadFailure | None = None) -> None:
        """Finish what is here within `grace` seconds, end the workers, and say that it has stopped.

        Args:
            failure: why, if nobody asked for it.
        """
        self._phase = WorkloadState.STOPPING
        try:
            if self._pool is not None:
                await self._pool.drain(grace)
            await self.streams.finish()
        finally:
            await self._unmake()
        self._phase = WorkloadState.STOPPED
        event = WorkloadStoppedEvent(
            id=self.workload_id,
            namespace=self.namespace,
            workload_type=self.asked.workload_type,
            metadata=self.metadata(),
            error=failure,
        )
        self._means.services.emit_event(self.namespace, event.event_name, event)
        self._log.info("function stopped", invocations=sum(self.counts.outcomes.values()) if self.counts else 0)

    async def _unmake(self) -> None:
        """Take everything back, whatever of it there is."""
        try:
            await self._stop_listening()
        finally:
            try:
                if self._pool is not None:
                    await self._pool.close()
                await self.streams.close()
                await self._listening.close()
            finally:
                await self._hold.aclose()

    # --- what its workers tell -------------------------------------------------------------------------------------

    def _look(self) -> None:
        state = self.state
        if state is self._told:
            return
        was, self._told = self._told, state
        if state is WorkloadState.ERROR and self._pool is not None:
            self._log.warning("function is unwell: its workers die one after another", reason=self._pool.last_failure)
        elif was is WorkloadState.ERROR:
            self._log.info("function is well again")
        if {was, state} != _COMES_AND_GOES:
            self._on_change()

    def _died(self, invocation_id: str, result: Result) -> None:
        """A line for the operator when a worker ended with its invocation; the author has one in their own log."""
        if result.outcome is Outcome.TIMEOUT:
            return  # a limit that did its work
        now = time.monotonic()
        if now - self._deaths_told_at < _TELL_DEATHS:
            self._deaths_untold += 1
            return
        self._log.warning(
            "worker ended with its invocation",
            invocation_id=invocation_id,
            outcome=result.outcome.value,
            reason=result.error,
            untold=self._deaths_untold,
        )
        self._deaths_told_at, self._deaths_untold = now, 0
