"""Being an agent of a node: the registration of the moment, and everything that hangs on it.

A `Membership` finds a node, registers with it, and from then on is who the node says: it serves the endpoints under
that id, on a connection with what the node gave for it, keeps the registration in the state, sends the heartbeats, and
becomes another one when it has to (a node that forgot us, one that is gone, credentials that are void). What runs goes
on running meanwhile: nothing here touches a workload.

- `Membership`: `join` or `resume`, then `watch.NodeWatch` looks after it.
- `MembershipDesk`: what it needs of the runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import CredentialsInvalid, NatsioError
from nexlet_functions.runner.agent import Agent, DescribedAgent
from nexlet_functions.runner.credentials import unusable
from nexlet_functions.runner.endpoints import Desk, Endpoints
from nexlet_functions.runner.feeds import Feeds
from nexlet_functions.runner.heartbeat import Heartbeats
from nexlet_functions.runner.micro import Answer, Handler, MicroService, Request
from nexlet_functions.runner.registration import (
    LocalRegistration,
    Registration,
    RegistrationFailed,
    ask_for_id,
    offer_digest,
    register,
)
from nexlet_functions.runner.settings import RunnerSettings
from nexlet_functions.runner.state import KeptRegistration, State
from nexlet_functions.runner.watch import Standing
from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.registration import AgentHeartbeat, AgentState, RegisterAgentRequest
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Membership", "MembershipDesk"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class MembershipDesk(Desk, Protocol):
    """What a membership needs of the runner."""

    @property
    def agent(self) -> Agent:
        """Whose membership it is."""
        ...


class Membership:
    """Who we are to which node; `watch.Watched`.

    Attributes:
        state: where the registration is kept; None keeps none.
        registered: set once a node knows us and our endpoints are served.
        heartbeats: run them while we are a member.
        registrations: how often we became one, resumed registrations included.
    """

    def __init__(
        self,
        desk: MembershipDesk,
        feeds: Feeds,
        *,
        own: Connection | None,
        local: LocalRegistration | None,
        nexus: str,
        settings: RunnerSettings,
        replay: Callable[[Mapping[str, AgentStartWorkloadRequest]], None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            feeds: told with each registration whose they are.
            own: the nexlet's own connection, where it was started beside a node.
            local: what the node gave us, where the node started us. One of the two.
            replay: given what a node says ran before, at whichever nexlet of our type.
        """
        self._desk = desk
        self._feeds = feeds
        self._own = own
        self._local = local
        self._nexus = nexus
        self._settings = settings
        self._replay = replay
        self.state: State | None = None
        self.registered = asyncio.Event()
        self.registrations = 0
        self.heartbeats = Heartbeats(self.beat, interval=settings.heartbeat_interval)
        self._registration: Registration | None = None
        self._offer: RegisterAgentRequest | None = None
        self._connection: Connection | None = None
        self._service: MicroService | None = None
        self._adopting = asyncio.Lock()
        # Closed while a nexlet takes over: what is asked then waits, and no heartbeat goes out in another one's name.
        self._open = asyncio.Event()
        self._open.set()

    @property
    def agent_id(self) -> str:
        """Our id to the node; "" before the first registration."""
        return self._registration.agent_id if self._registration is not None else ""

    @property
    def node_id(self) -> str:
        """The node's public key; "" before the first registration."""
        return self._registration.node_id if self._registration is not None else ""

    @property
    def connection(self) -> Connection | None:
        """The agent's, by what the node gave us; None before the first registration."""
        return self._connection

    # --- taking over, handing over -----------------------------------------------------------------------------------

    def hold(self) -> None:
        """Take requests from now on, but let them wait; send no heartbeat, and leave our registration as it is."""
        self._open.clear()

    def let_go(self) -> None:
        """The end of `hold`: answer what has waited, and speak for ourselves."""
        self._open.set()
        self.heartbeats.soon()

    async def borrow(self, former: KeptRegistration) -> None:
        """Connect and publish by another nexlet's registration, without serving its endpoints.

        Raises:
            RegistrationFailed: what the node gave that one to connect with cannot be used.
        """
        credentials = _credentials(former.connection_data)
        connection = Connection(credentials, name="nexlet-agent", options=self._settings.connection)
        connection.start()
        try:
            await connection.wait_connected(10.0)
        except NatsioError as error:
            await connection.close(flush_timeout=0)
            raise RegistrationFailed(unusable("the agent", credentials, error)) from None
        self._connection = connection
        connection.on_state(self._agent_connection_changed)
        self._registration = Registration(
            former.node_id, former.agent_id, former.connection_data, former.registration_creds
        )
        await self._feeds.update(former.agent_id, credentials)

    async def succeed(self, former: KeptRegistration, offer: RegisterAgentRequest) -> bool:
        """Be the agent that `former` is, or another one where the node has to be told of something new.

        Returns:
            Whether it is the same.

        Raises:
            RegistrationFailed: the endpoints cannot be served.
        """
        self._offer = offer
        if former.nexus == self._nexus and former.offer == offer_digest(offer):
            assert self._registration is not None
            await self._adopt(self._registration)
            return True
        await self.join(offer)
        return False

    async def serve_again(self) -> None:
        """Serve the endpoints that `stop_serving` ended.

        Raises:
            RegistrationFailed: they cannot be served.
        """
        self._service = None
        assert self._registration is not None
        await self._adopt(self._registration)

    async def keep(self) -> None:
        """Write down who we are, where a state is kept."""
        if self._registration is not None:
            await self._keep(self._registration)

    # --- becoming one ------------------------------------------------------------------------------------------------

    async def join(self, offer: RegisterAgentRequest) -> None:
        """Find a node and register with it, however long that takes.

        Raises:
            RegistrationFailed: the node that started us does not want us.
        """
        self._offer = offer
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
            self.registrations += 1
            if connection is not old_connection:
                connection.on_state(self._agent_connection_changed)
            await self._feeds.update(registration.agent_id, credentials)
            await self._keep(registration)
            _log.info("registered", node_id=registration.node_id, agent_id=registration.agent_id, nexus=self._nexus)
            if (
                connection is not old_connection
                and credentials.may_publish(subjects.event("NAMESPACE", "ANY")) is False
            ):
                _log.warning(
                    "the node mints scoped users (it has a signing key): what it gives a workload may subscribe to no "
                    "trigger, and ours may publish logs and events under our own prefix alone, and no metrics",
                    advice="give each namespace credentials in the settings file (namespaces.NAME.credentials)",
                )
            self.heartbeats.soon()
            self.registered.set()
            if old_service is not None and old_service is not service:
                await old_service.stop()
            if old_connection is not None and old_connection is not connection:
                await old_connection.close()
        self._replay(registration.existing)

    def _make_service(self, registration: Registration, connection: Connection) -> MicroService:
        assert self._offer is not None
        endpoints = Endpoints(
            self._desk.agent,
            self._desk,
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
            endpoints=[replace(one, handler=self._gated(one.handler)) for one in endpoints.all()],
            metadata=self._desk.agent.service_metadata() if isinstance(self._desk.agent, DescribedAgent) else None,
            max_requests=self._settings.max_requests,
        )

    def _gated(self, handler: Handler) -> Handler:
        async def gated(request: Request) -> Answer | None:
            if not self._open.is_set():
                await self._open.wait()
            return await handler(request)

        return gated

    # --- what outlives us -------------------------------------------------------------------------------------------

    async def _keep(self, registration: Registration) -> None:
        if self.state is None or self._offer is None:
            return
        await self.state.keep_registration(
            KeptRegistration(
                nexus=self._nexus,
                node_id=registration.node_id,
                agent_id=registration.agent_id,
                offer=offer_digest(self._offer),
                connection_data=registration.connection_data,
                registration_creds=registration.registration_creds,
            )
        )

    async def resume(self, offer: RegisterAgentRequest) -> bool:
        """Be who we were before we died, if that is still possible. The node need not be there for it."""
        self._offer = offer
        former = self.state.registration() if self.state is not None else None
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
                    Registration(former.node_id, former.agent_id, former.connection_data, former.registration_creds)
                )
            except RegistrationFailed as error:
                reason = str(error)
        if not reason:
            _log.info("resumed the former registration", agent_id=former.agent_id)
            return True
        _log.warning("the former registration cannot be resumed", agent_id=former.agent_id, reason=reason)
        await self._say_stopping(former.node_id, former.agent_id, former.connection_data)
        return False

    async def confirm_resumed(self) -> None:
        """Ask the node whether it knows the registration that was resumed."""
        if await self.confirm() is Standing.UNABLE and not self.locked_out:
            _log.info("the node cannot be asked whether it knows us still; its heartbeats will tell")

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
        if not self._open.is_set():
            return Standing.KNOWN  # another nexlet is about to be who we are
        self._offer = offer = await self._desk.agent.register()
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
        if not self._open.is_set():
            return Standing.KNOWN  # another nexlet is about to be who we are
        self._offer = offer = await self._desk.agent.register()
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
            self.heartbeats.soon()

    async def beat(self) -> None:
        """Send a heartbeat, where there is a connection and it is for us to speak."""
        if not self._open.is_set():
            return
        registration, connection = self._registration, self._connection
        if registration is None or connection is None or not connection.connected:
            return  # one goes out as soon as it is connected; old ones are of no use then
        beat = await self._desk.agent.heartbeat()
        beat = beat.model_copy(update={"summary": self._desk.summarised(beat.summary)})
        connection.publish(subjects.heartbeat(registration.node_id, registration.agent_id), beat.to_json())

    async def _say_stopping(self, node_id: str, agent_id: str, data: NatsConnectionData | None = None) -> None:
        """Take an id of ours out of the running: with the credentials it had, and with our own."""
        summary = (await self._desk.agent.ping()).model_copy(update={"state": AgentState.STOPPING.value})
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

    # --- the end -----------------------------------------------------------------------------------------------------

    async def stop_serving(self, grace: float) -> None:
        """Serve no endpoint any more; what is being asked gets `grace` seconds."""
        if self._service is not None:
            await self._service.stop(grace=grace)


def _credentials(data: NatsConnectionData) -> Credentials:
    try:
        return Credentials.from_connection_data(data)
    except CredentialsInvalid as error:
        raise RegistrationFailed(f"what the node gave us to connect with is unusable: {error}", status=400) from None


def _who(registration: Registration) -> tuple[str, str]:
    return registration.node_id, registration.agent_id
