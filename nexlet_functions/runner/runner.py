"""The runner: takes an agent through its life beside a node.

It registers (with a node it finds, or with the one that started it), serves the endpoints, sends heartbeats, restores
what ran before, notices a node that forgot us, keeps state, and ends in order. The agent does what only it can: run
workloads. Everything else of this package is a part of it:

    registration  RREGISTER, REGISTER          endpoints, micro  what the node asks
    heartbeat     that we live                 watch             that the node knows us
    feeds         logs, metrics, events        triggers          subscriptions of workloads
    state         what outlives us             secrets           what namespaces keep

- `Runner`: `await run()`, which returns when it was stopped or its lameduck time is over.
- `RunnerSettings`: its times and bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import SecretStr

from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import CredentialsInvalid, NatsioError
from nexlet_functions.natsio.life import Options
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.runner.agent import Agent, AgentError, ClosingAgent, DescribedAgent
from nexlet_functions.runner.credentials import CredentialsOf, unusable
from nexlet_functions.runner.endpoints import Endpoints
from nexlet_functions.runner.feeds import Feeds
from nexlet_functions.runner.heartbeat import HEARTBEAT_INTERVAL, Heartbeats
from nexlet_functions.runner.micro import MicroService
from nexlet_functions.runner.registration import (
    LocalRegistration,
    Registration,
    RegistrationFailed,
    ask_for_id,
    check_offer,
    offer_digest,
    register,
)
from nexlet_functions.runner.secrets import SecretNotFound, SecretStore
from nexlet_functions.runner.services import Feed, Registered, Services, TriggerSpec, WorkloadLog
from nexlet_functions.runner.state import KeptRegistration, State
from nexlet_functions.runner.triggers import Triggers
from nexlet_functions.runner.watch import NodeWatch, Standing
from nexlet_models import subjects
from nexlet_models.base import Message
from nexlet_models.connection import NatsConnectionData
from nexlet_models.registration import AgentHeartbeat, AgentState, AgentSummary, RegisterAgentRequest
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Phase", "Runner", "RunnerSettings"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Phase(enum.StrEnum):
    """Where a runner is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    LAMEDUCK = "lameduck"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Times in seconds.

    Attributes:
        heartbeat_interval: see `heartbeat.HEARTBEAT_INTERVAL`.
        remote_register_timeout, register_timeout: for the node's answers; three and sixty are the Go runner's.
        retry_first, retry_max: pauses between attempts to register, doubling, varied by chance.
        node_silence: a node that has not been heard for so long is taken for gone; it sends a heartbeat every ten.
        probe_interval: how often a node that cannot be heard is asked whether it knows us.
        grace: for what runs, when we are stopped without another word about it.
        restore_at_once: how many workloads are restored side by side.
        max_requests: how many requests are served at once.
        ingress_host: address of this machine for an ingress; "" for none.
        connection: how connections behave.
    """

    heartbeat_interval: float = HEARTBEAT_INTERVAL
    remote_register_timeout: float = 3.0
    register_timeout: float = 60.0
    retry_first: float = 0.25
    retry_max: float = 5.0
    node_silence: float = 35.0
    probe_interval: float = 60.0
    grace: float = 30.0
    restore_at_once: int = 32
    max_requests: int = 512
    ingress_host: str = ""
    connection: Options = field(default_factory=Options)


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

        Raises:
            ValueError: neither or both of `credentials` and `registration`.
        """
        if (credentials is None) == (registration is None):
            raise ValueError("a runner has credentials of its own or was started by a node: give one of the two")
        self._factory = agent_factory
        self._local = registration
        self._nexus = nexus
        self._secrets = secrets
        self._state_folder = state_folder
        self._settings = settings or RunnerSettings()
        self._own = (
            Connection(credentials, name="nexlet", options=self._settings.connection)
            if credentials is not None
            else None
        )
        self._connections = Connections(name="nexlet-workloads", options=self._settings.connection)
        self._feeds = Feeds(self._connections, credentials_of)
        self._triggers = Triggers(self._connections, credentials_of)
        self._heartbeats = Heartbeats(self._beat, interval=self._settings.heartbeat_interval)
        self._state: State | None = None
        self._agent: Agent | None = None
        self._phase = Phase.STARTING
        self._grace = self._settings.grace
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._registered = asyncio.Event()
        self._lameduck_timer: asyncio.TimerHandle | None = None
        # Of the registration of the moment.
        self._registration: Registration | None = None
        self._offer: RegisterAgentRequest | None = None
        self._connection: Connection | None = None
        self._service: MicroService | None = None
        self._adopting = asyncio.Lock()
        self._restoring: dict[str, asyncio.Task[None]] = {}
        self._reported: set[str] = set()
        self._slots = asyncio.Semaphore(self._settings.restore_at_once)
        self.services: Services = _Services(self)

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
        return self._registration.agent_id if self._registration is not None else ""

    @property
    def node_id(self) -> str:
        """The node's public key; "" before the first registration."""
        return self._registration.node_id if self._registration is not None else ""

    @property
    def connections(self) -> list[Connection]:
        """All of them, for counts and state: the nexlet's own, the agent's, those of workloads."""
        return [one for one in (self._own, self._connection) if one is not None] + self._connections.all()

    async def wait_registered(self) -> None:
        """Return when a node knows us and our endpoints are served; for ever, if `run` ends first."""
        await self._registered.wait()

    async def run(self) -> None:
        """Live. Returns when `stop` was called or the lameduck time is over, and everything has ended.

        Raises:
            StateUnusable: see `State.open`.
            RegistrationFailed: what the agent offers cannot be registered, or the node that started us refuses.
        """
        assert self._phase is Phase.STARTING, "a runner runs once"
        if self._state_folder is not None:
            self._state = State.open(self._state_folder)
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
        self._offer = offer = await self.agent.register()
        check_offer(offer)
        kept = self._state.workloads() if self._state is not None else {}
        resumed = await self._resume(offer, kept)
        if not resumed:
            await self._register_first(offer)
            self._restore(kept)
        self._phase = Phase.RUNNING
        watch = NodeWatch(self, silence=self._settings.node_silence, probe_interval=self._settings.probe_interval)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats.run(), name="heartbeats")
            if resumed:
                tasks.create_task(self._confirm_resumed(), name="confirm")
            tasks.create_task(watch.run(), name="node-watch")
            if self._state is not None:
                tasks.create_task(self._catch_up(self._state), name="state")

    async def _catch_up(self, state: State) -> None:
        """Have the disk say what it could not be told before: it was full, or not there."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval)
            if state.owed:
                await state.catch_up()

    async def _register_first(self, offer: RegisterAgentRequest) -> None:
        pause = self._settings.retry_first
        while True:
            try:
                await self._adopt(await self._register(offer))
                return
            except RegistrationFailed as error:
                if self._local is not None and error.status in (400, 401, 403):
                    raise  # the node that started us does not want us: it will say so, and so do we
                wait = random.uniform(pause / 2, pause)  # noqa: S311  # jitter, no secret
                _log.warning("not registered yet, trying again", reason=str(error), pause=round(wait, 2))
            await asyncio.sleep(wait)
            pause = min(2 * pause, self._settings.retry_max)

    async def _register(self, offer: RegisterAgentRequest) -> Registration:
        """One registration, with a new id where the node did not start us."""
        settings = self._settings
        if self._local is not None:
            local = self._local
            try:
                response = await register(
                    _credentials(local.connection_data),
                    local.node_id,
                    local.agent_id,
                    offer,
                    timeout=settings.register_timeout,
                    options=settings.connection,
                )
            except RegistrationFailed as error:
                if not error.already_known:
                    raise
                # The node has restarted us, and never forgets an id: what it said the first time is lost.
                _log.warning("the node knows us from before; going on with what it started us with")
                return Registration(local.node_id, local.agent_id, local.connection_data, local.connection_data)
            return Registration(
                local.node_id,
                local.agent_id,
                response.connection_data,
                local.connection_data,
                response.existing_state or {},
            )
        assert self._own is not None
        await self._own.wait_connected()
        given = await ask_for_id(self._own, self._nexus, timeout=settings.remote_register_timeout)
        creds = given.registration_creds
        try:
            response = await register(
                self._own.credentials if creds is None else _credentials(creds),
                given.respond_to,
                given.assigned_agent_id,
                offer,
                timeout=settings.register_timeout,
                options=settings.connection,
            )
        except RegistrationFailed as error:
            if error.status == 0:  # perhaps it was taken, and only the answer was lost
                await self._say_stopping(given.respond_to, given.assigned_agent_id)
            raise
        return Registration(
            given.respond_to, given.assigned_agent_id, response.connection_data, creds, response.existing_state or {}
        )

    async def _adopt(self, registration: Registration) -> None:
        """Be who this registration says, from endpoints to feeds; what the former one had ends after that.

        Raises:
            RegistrationFailed: what the node gave us to connect with cannot be used. All is as it was before.
        """
        async with self._adopting:
            credentials = _credentials(registration.connection_data)
            before, old_connection, old_service = self._registration, self._connection, self._service
            connection = old_connection
            if connection is None or connection.credentials != credentials or not connection.connected:
                connection = Connection(credentials, name="nexlet-agent", options=self._settings.connection)
                connection.start()
            same = before is not None and connection is old_connection and _who(before) == _who(registration)
            service = old_service if same and old_service is not None else self._make_service(registration, connection)
            if service is not old_service:
                try:
                    await connection.wait_connected(10.0)
                    await service.start()
                except NatsioError as error:
                    if connection is not old_connection:
                        await connection.close(flush_timeout=0)
                    await self._say_stopping(registration.node_id, registration.agent_id)
                    text = unusable("the agent", credentials, error)
                    raise RegistrationFailed(f"what the node gave us to connect with does not do: {text}") from None
            self._registration, self._connection, self._service = registration, connection, service
            if connection is not old_connection:
                connection.on_state(self._agent_connection_changed)
            await self._feeds.update(registration.agent_id, credentials)
            await self._keep(registration)
            _log.info("registered", node_id=registration.node_id, agent_id=registration.agent_id, nexus=self._nexus)
            self._heartbeats.soon()
            self._registered.set()
            if old_service is not None and old_service is not service:
                await old_service.stop()
            if old_connection is not None and old_connection is not connection:
                await old_connection.close()
        self._restore(registration.existing)

    def _make_service(self, registration: Registration, connection: Connection) -> MicroService:
        assert self._offer is not None
        endpoints = Endpoints(
            self.agent,
            self,
            connection,
            node_id=registration.node_id,
            agent_id=registration.agent_id,
            nexus=self._nexus,
            register_type=self._offer.register_type,
            ingress_host=self._settings.ingress_host,
        )
        return MicroService(
            connection,
            name=self._offer.name,
            version=self._offer.version,
            endpoints=endpoints.all(),
            metadata=self.agent.service_metadata() if isinstance(self.agent, DescribedAgent) else None,
            max_requests=self._settings.max_requests,
        )

    # --- what outlives us -------------------------------------------------------------------------------------------

    async def _keep(self, registration: Registration) -> None:
        if self._state is None or self._offer is None:
            return
        await self._state.keep_registration(
            KeptRegistration(
                nexus=self._nexus,
                node_id=registration.node_id,
                agent_id=registration.agent_id,
                offer=offer_digest(self._offer),
                connection_data=registration.connection_data,
                registration_creds=registration.registration_creds,
            )
        )

    async def _resume(self, offer: RegisterAgentRequest, kept: Mapping[str, AgentStartWorkloadRequest]) -> bool:
        """Be who we were before we died, if that is still possible. The node need not be there for it."""
        former = self._state.registration() if self._state is not None else None
        if former is None:
            return False
        reason = ""
        if former.nexus != self._nexus:
            reason = f"it was made in nexus {former.nexus!r}"
        elif former.offer != offer_digest(offer):
            reason = "what we offer has changed since"
        elif self._local is not None and (former.node_id, former.agent_id) != (
            self._local.node_id,
            self._local.agent_id,
        ):
            reason = "the node has given us another id"
        else:
            if self._own is not None:
                await self._own.wait_connected()
            try:
                await self._adopt(
                    Registration(
                        former.node_id, former.agent_id, former.connection_data, former.registration_creds, kept
                    )
                )
            except RegistrationFailed as error:
                reason = str(error)
        if not reason:
            _log.info("resumed the former registration", agent_id=former.agent_id, workloads=len(kept))
            return True
        _log.warning("the former registration cannot be resumed", agent_id=former.agent_id, reason=reason)
        await self._say_stopping(former.node_id, former.agent_id, former.connection_data)
        return False

    async def _confirm_resumed(self) -> None:
        if await self.confirm() is Standing.UNABLE and not self.locked_out:
            _log.info("the node cannot be asked whether it knows us still; its heartbeats will tell")

    def _restore(self, workloads: Mapping[str, AgentStartWorkloadRequest]) -> None:
        """Start what ran before and does not run now, side by side and in the background."""
        for workload_id, request in workloads.items():
            if workload_id not in self._restoring:
                task = asyncio.create_task(self._restore_one(workload_id, request), name=f"restore-{workload_id}")
                self._restoring[workload_id] = task
                task.add_done_callback(functools.partial(self._restored, workload_id))

    def _restored(self, workload_id: str, _: asyncio.Task[None]) -> None:
        self._restoring.pop(workload_id, None)

    async def _restore_one(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        async with self._slots:
            try:
                if await self.agent.query_workloads(subjects.SYSTEM, (workload_id,)):
                    return  # it runs
                if self.refusing:
                    return
                await self.agent.start_workload(workload_id, request, existing=True)
            except Exception as error:  # noqa: BLE001  # one that cannot start must not hold up the others
                # Once: a node that keeps state replays it at every registration.
                if workload_id not in self._reported:
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
                return
            self._reported.discard(workload_id)
            await self.started(workload_id, request)

    # --- the desk of the endpoints ----------------------------------------------------------------------------------

    @property
    def refusing(self) -> str:
        if self._phase in (Phase.LAMEDUCK, Phase.STOPPING):
            return f"this nexlet is {self._phase.value} and takes no new workloads"
        return ""

    def summarised(self, summary: AgentSummary) -> AgentSummary:
        state = {Phase.LAMEDUCK: AgentState.LAMEDUCK, Phase.STOPPING: AgentState.STOPPING}.get(self._phase)
        return summary if state is None else summary.model_copy(update={"state": state.value})

    async def started(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        if self._state is not None:
            await self._state.keep_workload(workload_id, request)

    async def stopped(self, workload_id: str) -> None:
        await self._triggers.unregister(workload_id)
        if self._state is not None:
            await self._state.forget_workload(workload_id)

    async def lameduck(self, delay: float) -> None:
        await self.agent.set_lameduck(delay)
        if self._phase is Phase.STOPPING:
            return
        self._phase = Phase.LAMEDUCK
        self._heartbeats.soon()
        _log.info("lameduck: no new workloads, ending after the delay", delay=delay)
        if self._lameduck_timer is not None:
            self._lameduck_timer.cancel()
        self._lameduck_timer = asyncio.get_running_loop().call_later(delay, self._stopping.set)

    # --- what the watch needs ---------------------------------------------------------------------------------------

    @property
    def ear(self) -> Connection:
        """Our own connection may hear the node where we have one; else the agent's has to do."""
        connection = self._own or self._connection
        assert connection is not None
        return connection

    @property
    def locked_out(self) -> bool:
        connection = self._connection
        failure = connection.last_failure if connection is not None and not connection.connected else None
        return failure is not None and failure.refused

    async def confirm(self) -> Standing:
        now = self._registration
        assert now is not None
        self._offer = offer = await self.agent.register()
        own = self._own.credentials if self._own is not None else None
        try:
            credentials = own if now.registration_creds is None else _credentials(now.registration_creds)
            assert credentials is not None
            response = await register(
                credentials,
                now.node_id,
                now.agent_id,
                offer,
                timeout=self._settings.remote_register_timeout,
                options=self._settings.connection,
            )
            await self._adopt(
                Registration(
                    now.node_id,
                    now.agent_id,
                    response.connection_data,
                    now.registration_creds,
                    response.existing_state or {},
                )
            )
        except RegistrationFailed as error:
            if error.already_known:
                return Standing.KNOWN
            _log.info("asking the node about us failed", reason=str(error))
            return Standing.UNABLE if error.status else Standing.SILENT
        _log.info("the node had forgotten us and has taken us back", agent_id=now.agent_id)
        return Standing.TAKEN_BACK

    async def register_anew(self) -> Standing:
        former = self._registration
        if self._local is not None or former is None:
            return Standing.UNABLE  # the node that started us gave us the only id we have
        self._offer = offer = await self.agent.register()
        try:
            await self._adopt(await self._register(offer))
        except RegistrationFailed as error:
            _log.info("registering anew failed", reason=str(error))
            return Standing.UNABLE if error.status else Standing.SILENT
        await self._say_stopping(former.node_id, former.agent_id)
        return Standing.TAKEN_BACK

    # --- heartbeats and last words ----------------------------------------------------------------------------------

    def _agent_connection_changed(self, state: ConnectionState, _: str) -> None:
        if state is ConnectionState.CONNECTED:
            self._heartbeats.soon()

    async def _beat(self) -> None:
        registration, connection = self._registration, self._connection
        if registration is None or connection is None or not connection.connected:
            return  # one goes out as soon as it is connected; old ones are of no use then
        beat = await self.agent.heartbeat()
        beat = beat.model_copy(update={"summary": self.summarised(beat.summary)})
        connection.publish(subjects.heartbeat(registration.node_id, registration.agent_id), beat.to_json())

    async def _say_stopping(self, node_id: str, agent_id: str, data: NatsConnectionData | None = None) -> None:
        """Take an id of ours out of the running: with the credentials it had, and with our own."""
        summary = (await self.agent.ping()).model_copy(update={"state": AgentState.STOPPING.value})
        subject = subjects.heartbeat(node_id, agent_id)
        word = AgentHeartbeat(data="", summary=summary).to_json()
        if data is not None:
            # Best effort, as all last words: the credentials may be void, which is why we say it.
            with contextlib.suppress(NatsioError):
                connection = await Connection.open(
                    Credentials.from_connection_data(data), options=self._settings.connection, timeout=3.0, passing=True
                )
                connection.publish(subject, word)
                await connection.close()
        if self._own is not None and self._own.connected:
            self._own.publish(subject, word)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _shut_down(self, serving: asyncio.Task[None]) -> None:
        """One path for every end. Each step is bounded, and what one of them raises does not keep the next from it."""
        if self._lameduck_timer is not None:
            self._lameduck_timer.cancel()
        if self._phase is not Phase.LAMEDUCK:
            self._phase = Phase.STOPPING
        _log.info("stopping", grace=self._grace)
        await self._step("the last heartbeat", self._last_heartbeat(), 5)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        restoring = list(self._restoring.values())
        for task in restoring:
            task.cancel()
        await asyncio.gather(*restoring, return_exceptions=True)
        if isinstance(self._agent, ClosingAgent):
            await self._step("the agent", self._agent.close(self._grace), self._grace + 10)
        if self._service is not None:
            await self._step("the endpoints", self._service.stop(grace=2), 15)
        await self._step("the triggers", self._triggers.close(), 15)
        await self._step("the feeds", self._feeds.close(), 15)
        await self._step("the workloads' connections", self._connections.close(), 15)
        for connection in (self._connection, self._own):
            if connection is not None:
                await self._step("a connection", connection.close(), 10)
        _log.info("stopped")

    async def _last_heartbeat(self) -> None:
        await self._beat()
        if self._connection is not None and self._connection.connected:
            await self._connection.flush(2)

    async def _step(self, what: str, work: object, within: float) -> None:
        assert asyncio.iscoroutine(work)
        try:
            async with asyncio.timeout(within):
                await work
        except Exception as error:  # noqa: BLE001  # see `_shut_down`
            _log.error("could not be ended in order", what=what, exc_info=error)


class _Services:
    """See `services.Services`: the runner, as its agent sees it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def agent_id(self) -> str:
        return self._runner.agent_id

    @property
    def node_id(self) -> str:
        return self._runner.node_id

    @property
    def nexus(self) -> str:
        return self._runner._nexus

    @property
    def state_folder(self) -> Path | None:
        return self._runner._state.agent_folder if self._runner._state is not None else None

    def heartbeat_soon(self) -> None:
        self._runner._heartbeats.soon()

    def feed(self, namespace: str) -> Feed:
        return self._runner._feeds.feed(namespace)

    def get_logger(self, workload_id: str, namespace: str) -> WorkloadLog:
        return self._runner._feeds.logger(workload_id, namespace)

    def emit_metrics(self, workload_id: str, namespace: str, data: bytes) -> bool:
        return self._runner._feeds.metrics(workload_id, namespace, data)

    def emit_event(self, source: str, name: str, event: Message) -> bool:
        connection = self._runner._connection
        if source == self.agent_id and connection is not None:
            return connection.publish(subjects.event(source, name), event.to_json())
        return self._runner._feeds.event(source, name, event)

    async def register_trigger(
        self,
        workload_id: str,
        namespace: str,
        creds: NatsConnectionData,
        triggers: Sequence[TriggerSpec],
        sink: MessageSink | BatchSink,
        *,
        on_connection: Callable[[Connection], None] | None = None,
    ) -> Registered:
        return await self._runner._triggers.register(workload_id, namespace, creds, triggers, sink, on_connection)

    async def unregister_trigger(self, workload_id: str) -> None:
        await self._runner._triggers.unregister(workload_id)

    @contextlib.asynccontextmanager
    async def connection(self, namespace: str, creds: NatsConnectionData) -> AsyncIterator[Connection]:
        connection = await self._runner._triggers.acquire(namespace, creds)
        try:
            yield connection
        finally:
            await self._runner._connections.release(connection)

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        store = self._runner._secrets
        if store is None:
            raise SecretNotFound(f"secret {key!r}: this nexlet has no store of secrets; its operator can configure one")
        value = await store.get(namespace, key)
        if value is None:
            raise SecretNotFound(f"secret {key!r}: namespace {namespace!r} has none of that name")
        return value


def _credentials(data: NatsConnectionData) -> Credentials:
    try:
        return Credentials.from_connection_data(data)
    except CredentialsInvalid as error:
        raise RegistrationFailed(f"what the node gave us to connect with is unusable: {error}", status=400) from None


def _who(registration: Registration) -> tuple[str, str]:
    return registration.node_id, registration.agent_id
