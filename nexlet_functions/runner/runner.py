"""The runner: takes an agent through its life beside a node.

It registers (with a node it finds, or with the one that started it), serves the endpoints, sends heartbeats, restores
what ran before, notices a node that forgot us, keeps state, and ends in order. The agent does what only it can: run
workloads. Everything else of this package is a part of it:

    membership    who we are to the node       registration      RREGISTER, REGISTER
    heartbeat     that we live                 watch             that the node knows us
    endpoints, micro  what the node asks       provided          what the agent is given
    feeds         logs, metrics, events        triggers          subscriptions of workloads
    state         what outlives us             restoring         what ran before
    settings      times and bounds             takeover          from one nexlet to the next
    secrets       what namespaces keep         neighbours        what others of the node run
    renewing      credentials that are void

- `Runner`: `await run()`, which returns when it was stopped or its lameduck time is over.
- `Phase`: where it is in its life.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.runner.agent import Agent, ClosingAgent, WorkloadNotFound
from nexlet_functions.runner.credentials import CredentialsOf
from nexlet_functions.runner.feeds import Feeds
from nexlet_functions.runner.membership import Membership
from nexlet_functions.runner.neighbours import Standing, ask, settle
from nexlet_functions.runner.provided import ProvidedServices
from nexlet_functions.runner.registration import LocalRegistration, RegistrationFailed, check_offer
from nexlet_functions.runner.renewing import Renewing
from nexlet_functions.runner.restoring import Restoring
from nexlet_functions.runner.secrets import SecretStore
from nexlet_functions.runner.services import Services
from nexlet_functions.runner.settings import RunnerSettings
from nexlet_functions.runner.state import State, StateUnusable
from nexlet_functions.runner.takeover import HandOver, Predecessor, TakeOverFailed
from nexlet_functions.runner.triggers import Triggers
from nexlet_functions.runner.watch import NodeWatch
from nexlet_models import subjects
from nexlet_models.registration import AgentState, AgentSummary, RegisterAgentRequest
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Phase", "Runner"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")

_ANSWER = 2.0
"""Seconds for a server to take our last word; one that is silent for so long is not waited for again."""

_REST = 10.0
"""Seconds for all steps of the end together, beside the grace for what runs; each has at least one of them."""


class Phase(enum.StrEnum):
    """Where a runner is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    LAMEDUCK = "lameduck"
    STOPPING = "stopping"
    ENDED = "ended"


class Runner:
    """One nexlet. Make it, `run` it, `stop` it."""

    def __init__(
        self,
        agent_factory: Callable[[Services], Agent],
        *,
        credentials: Credentials | None = None,
        registration: LocalRegistration | None = None,
        nexus: str = "nexus",
        credentials_of: CredentialsOf = lambda namespace: None,
        secrets: SecretStore | None = None,
        state_folder: Path | None = None,
        take_over: bool = False,
        settings: RunnerSettings | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            agent_factory: makes the agent, once, within `run`.
            credentials: of the nexlet itself, where it was started beside a node.
            registration: what the node gave us, where the node started it (`local_registration`). One of the two.
            credentials_of: the operator's credentials for a namespace's triggers and feeds, if any. Asked each time.
            secrets: where `secret://` values come from.
            state_folder: what outlives us; None keeps nothing.
            take_over: where another nexlet has the state folder, have it hand over (see `takeover`); where no state
                is kept, start all that the node replays, also what another nexlet runs, which is to be ended next.

        Raises:
            ValueError: neither or both of `credentials` and `registration`.
        """
        if (credentials is None) == (registration is None):
            raise ValueError("a runner has credentials of its own or was started by a node: give one of the two")
        self._factory = agent_factory
        self._state_folder = state_folder
        self._settings = settings or RunnerSettings()
        own = (
            Connection(credentials, name="nexlet", options=self._settings.connection)
            if credentials is not None
            else None
        )
        self._own = own
        self._connections = Connections(name="nexlet-workloads", options=self._settings.connection)
        self._feeds = Feeds(self._connections, credentials_of)
        self._triggers = Triggers(self._connections, credentials_of)
        self._restoring = Restoring(self, at_once=self._settings.restore_at_once)
        self._membership = Membership(
            self,
            self._feeds,
            own=own,
            local=registration,
            nexus=nexus,
            settings=self._settings,
            replay=self._replay,
        )
        self._renewing = Renewing(
            self._connections,
            self._triggers,
            register_anew=self._membership.register_anew,
            locked_out=lambda: self._membership.locked_out,
            keep=self._keep,
        )
        self._services = ProvidedServices(
            self._membership, self._feeds, self._triggers, self._connections, nexus=nexus, secrets=secrets
        )
        self.services: Services = self._services
        self._take_over = take_over
        self._predecessor: Predecessor | None = None
        self._hand_over: HandOver | None = None
        self._replayed: Mapping[str, AgentStartWorkloadRequest] = {}
        self._state: State | None = None
        self._agent: Agent | None = None
        self._phase = Phase.STARTING
        self._grace = self._settings.grace
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._lameduck_timer: asyncio.TimerHandle | None = None
        self._end_by = 0.0

    # --- for whoever made it ----------------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        """What the factory made. There is none before `run`."""
        assert self._agent is not None, "the runner does not run yet"
        return self._agent

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def agent_id(self) -> str:
        """Our id to the node; "" before the first registration."""
        return self._membership.agent_id

    @property
    def node_id(self) -> str:
        """The node's public key; "" before the first registration."""
        return self._membership.node_id

    @property
    def connections(self) -> list[Connection]:
        """All of them, for counts and state: the nexlet's own, the agent's, those of workloads."""
        return [connection for named in self.connections_by_use.values() for connection in named]

    @property
    def connections_by_use(self) -> dict[str, list[Connection]]:
        """The same by what they are for: `nexlet` and `agent`, without which no node reaches us, and `workloads`."""
        return {
            "nexlet": [self._own] if self._own is not None else [],
            "agent": [self._membership.connection] if self._membership.connection is not None else [],
            "workloads": self._connections.all(),
        }

    def on_workload_connection_closed(self, callback: Callable[[Connection], None]) -> None:
        """Have each of those of workloads told when it is closed, for what it has counted."""
        self._connections.on_closed(callback)

    @property
    def registrations(self) -> int:
        """How often a node has taken us, resumed registrations included."""
        return self._membership.registrations

    @property
    def restore_failures(self) -> int:
        """Attempts to start again what ran before that failed."""
        return self._restoring.failures

    async def wait_registered(self) -> None:
        """Return when a node knows us and our endpoints are served; for ever, if `run` ends first."""
        await self._membership.registered.wait()

    async def run(self) -> None:
        """Live. Returns when `stop` was called or the lameduck time is over, and everything has ended.

        Raises:
            StateUnusable: see `State.open`.
            TakeOverFailed: the nexlet that has the state folder stays in charge; nothing of us is left.
            RegistrationFailed: what the agent offers cannot be registered, or the node that started us refuses.
        """
        assert self._phase is Phase.STARTING, "a runner runs once"
        if self._state_folder is not None:
            await self._open_state(self._state_folder)
        try:
            if self._own is not None:
                self._own.start()
            self._agent = self._factory(self.services)
            serving = asyncio.create_task(self._serve(), name="runner")
            stop = asyncio.create_task(self._stopping.wait(), name="runner-stop")
            try:
                await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
            finally:
                stop.cancel()
                await self._shut_down(serving)
        finally:
            self._phase = Phase.ENDED
            if self._predecessor is not None:
                self._predecessor.close()
            if self._hand_over is not None:
                await self._hand_over.close()
            if self._state is not None:
                self._state.close()
            self._ended.set()

    async def stop(self, grace: float | None = None) -> None:
        """End in order, and return when that is done.

        Args:
            grace: seconds for what runs; None means the settings'.
        """
        self.stop_soon(grace)
        await self._ended.wait()

    def stop_soon(self, grace: float | None = None) -> None:
        """The same, without waiting: for signal handlers."""
        if grace is not None:
            self._grace = grace
        self._stopping.set()

    # --- from the first registration to the end ---------------------------------------------------------------------

    async def _serve(self) -> None:
        offer = await self.agent.register()
        check_offer(offer)
        if self._predecessor is not None:
            resumed = await self._succeed(self._predecessor, offer)
        else:
            kept = self._state.workloads() if self._state is not None else {}
            resumed = await self._membership.resume(offer)
            if not resumed:
                await self._membership.join(offer)
            self._restoring.begin(self.agent, kept)
        self._phase = Phase.RUNNING
        if self._state is not None:
            self._hand_over = HandOver.open(self._state.folder, self)
        watch = NodeWatch(
            self._membership, silence=self._settings.node_silence, probe_interval=self._settings.probe_interval
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._membership.heartbeats.run(), name="heartbeats")
            if resumed:
                tasks.create_task(self._membership.confirm_resumed(), name="confirm")
            tasks.create_task(watch.run(), name="node-watch")
            tasks.create_task(self._renewing.run(watch.look_soon), name="renewing")
            if self._state is not None:
                tasks.create_task(self._catch_up(self._state), name="state")

    async def _catch_up(self, state: State) -> None:
        """Have the disk say what it could not be told before: it was full, or not there."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval)
            if state.owed:
                await state.catch_up()

    def _replay(self, workloads: Mapping[str, AgentStartWorkloadRequest]) -> None:
        self._renewing.replayed(workloads)
        if self._predecessor is not None:
            self._replayed = workloads  # its state is what counts, and comes first
        elif self._take_over and self._state_folder is None and self._membership.registrations == 1:
            self._restoring.begin(self.agent, workloads)  # whoever runs it is about to be ended
        else:
            self._restoring.replay(self.agent, workloads, self._elsewhere)

    async def _elsewhere(self) -> frozenset[str]:
        """What other nexlets of the node run; see `neighbours`."""
        one, within = self._membership, self._settings.neighbours_timeout
        return await settle(one.agent_id, lambda: ask(one.ear, one.node_id, one.agent_id, within=within))

    # --- from one nexlet to the next --------------------------------------------------------------------------------

    async def _open_state(self, folder: Path) -> None:
        try:
            self._state = State.open(folder)
        except StateUnusable as error:
            if not (error.in_use and self._take_over):
                raise
            self._predecessor = await Predecessor.find(folder)
            self._services.state = State.look(folder)
            return
        self._membership.state = self._services.state = self._state

    async def _succeed(self, predecessor: Predecessor, offer: RegisterAgentRequest) -> bool:
        """Take over; whether under the same id.

        Raises:
            TakeOverFailed: see there.
        """
        looked, folder = self._services.state, self._state_folder
        assert looked is not None
        assert folder is not None
        former, kept = looked.registration(), looked.workloads()
        if former is None:
            raise TakeOverFailed("the nexlet that runs is not registered yet: there is nothing to take over")
        _log.info("taking over", pid=predecessor.pid, agent_id=former.agent_id, workloads=len(kept))
        self._membership.hold()
        try:
            if self._own is not None:
                await self._own.wait_connected()
            await self._membership.borrow(former)
            self._restoring.begin(self.agent, kept)
            await self._restoring.settled()
            await self._require_running(kept, predecessor.not_running)
            same = await self._membership.succeed(former, offer)
        except RegistrationFailed as error:
            raise TakeOverFailed(f"the nexlet that runs stays in charge: {error}") from None
        self._state = state = State.inherit(folder, await predecessor.hand_over())
        self._membership.state = self._services.state = state
        now = state.workloads()
        for workload_id in kept.keys() - now.keys():  # stopped while we started it
            self._restoring.give_up(workload_id)
            with contextlib.suppress(WorkloadNotFound):
                await self.agent.stop_workload(workload_id, subjects.SYSTEM)
        self._restoring.begin(self.agent, now)
        await self._restoring.settled()
        await self._membership.keep()
        self._membership.let_go()
        predecessor.done(same=same)
        predecessor.close()
        self._predecessor = None
        self._restoring.replay(self.agent, self._replayed, self._elsewhere)
        _log.info("took over", pid=predecessor.pid, agent_id=self.agent_id, same_id=same, workloads=len(now))
        return same

    async def _require_running(self, wanted: Iterable[str], excused: Container[str]) -> None:
        running = {one.id for one in await self.agent.query_workloads(subjects.SYSTEM, ())}
        missing = [one for one in wanted if one not in running and one not in excused]
        if missing:
            raise TakeOverFailed(
                f"the nexlet that runs stays in charge: {len(missing)} of its workloads do not start here "
                f"({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}); the log says why"
            )

    async def not_running(self) -> list[str]:
        """See `takeover.HandsOver`."""
        if self._phase is not Phase.RUNNING or self._state is None:
            raise TakeOverFailed(f"it is {self._phase.value}")
        await self._restoring.settled()
        running = {one.id for one in await self.agent.query_workloads(subjects.SYSTEM, ())}
        return [one for one in self._state.workloads() if one not in running]

    async def hand_over(self) -> int:
        """See `takeover.HandsOver`."""
        if self._phase is not Phase.RUNNING or self._state is None:
            raise TakeOverFailed(f"it is {self._phase.value}")
        self._membership.hold()
        await self._membership.stop_serving(grace=60)
        await self._restoring.settled()
        if self._state.owed:
            await self._state.catch_up()
        if self._state.owed:
            raise TakeOverFailed("some of its state could not be written to the disk")
        return self._state.lock

    async def go_on(self) -> None:
        """See `takeover.HandsOver`."""
        _log.warning("the other nexlet did not take over; serving as before")
        await self._membership.serve_again()
        self._membership.let_go()

    def leave(self, *, same: bool) -> None:
        """See `takeover.HandsOver`."""
        self._services.handed_over = True
        if not same:
            self._membership.let_go()  # our id ends with us, and the last heartbeat says so
        self._stopping.set()

    # --- the desk of the endpoints ----------------------------------------------------------------------------------

    @property
    def refusing(self) -> str:
        if self._phase in (Phase.LAMEDUCK, Phase.STOPPING):
            return f"this nexlet is {self._phase.value} and takes no new workloads"
        return ""

    @property
    def standing(self) -> Standing:
        leaving = self._phase in (Phase.LAMEDUCK, Phase.STOPPING, Phase.ENDED)
        return Standing.LEAVING if leaving else self._restoring.standing

    def summarised(self, summary: AgentSummary) -> AgentSummary:
        state = {Phase.LAMEDUCK: AgentState.LAMEDUCK, Phase.STOPPING: AgentState.STOPPING}.get(self._phase)
        return summary if state is None else summary.model_copy(update={"state": state.value})

    async def started(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        self._renewing.started(workload_id, request)
        await self._keep(workload_id, request)

    async def _keep(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        if self._state is not None:
            await self._state.keep_workload(workload_id, request)

    async def stopped(self, workload_id: str) -> None:
        self._renewing.stopped(workload_id)
        self._restoring.give_up(workload_id)
        await self._triggers.unregister(workload_id)
        if self._state is not None:
            await self._state.forget_workload(workload_id)

    async def lameduck(self, delay: float) -> None:
        await self.agent.set_lameduck(delay)
        if self._phase is Phase.STOPPING:
            return
        self._phase = Phase.LAMEDUCK
        self._membership.heartbeats.soon()
        _log.info("lameduck: no new workloads, ending after the delay", delay=delay)
        if self._lameduck_timer is not None:
            self._lameduck_timer.cancel()
        self._lameduck_timer = asyncio.get_running_loop().call_later(delay, self._stopping.set)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _last_word(self) -> None:
        """The last heartbeat. A server that does not answer now is waited for in none of the steps to come."""
        await self._membership.beat()
        await asyncio.gather(*(connection.prove(_ANSWER) for connection in self.connections))

    async def _shut_down(self, serving: asyncio.Task[None]) -> None:
        """One path for every end. Each step is bounded, and what one of them raises does not keep the next from it.

        All of it together takes the grace and a few seconds more, whatever servers do meanwhile.
        """
        if self._lameduck_timer is not None:
            self._lameduck_timer.cancel()
        if self._phase is not Phase.LAMEDUCK:
            self._phase = Phase.STOPPING
        if self._predecessor is not None:
            self._services.handed_over = True  # rather not taken over: what we started runs on where it ran
        _log.info("stopping", grace=self._grace)
        self._end_by = asyncio.get_running_loop().time() + self._grace + _REST
        await self._step("the last heartbeat", self._last_word())
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await self._restoring.cancel()
        if isinstance(self._agent, ClosingAgent):
            await self._step("the agent", self._agent.close(self._grace))
        await self._step("the endpoints", self._membership.stop_serving(grace=2))
        await self._step("the triggers", self._triggers.close())
        await self._step("the feeds", self._feeds.close())
        await self._step("the workloads' connections", self._connections.close())
        await self._step("the connections", self._close_connections())
        _log.info("stopped")

    async def _close_connections(self) -> None:
        ours = (self._membership.connection, self._own)
        await asyncio.gather(*(one.close() for one in ours if one is not None))

    async def _step(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        left = self._end_by - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(1.0, left)):
                await work
        except Exception as error:  # noqa: BLE001  # see `_shut_down`
            _log.error("could not be ended in order", what=what, exc_info=error)
