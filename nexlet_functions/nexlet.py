"""The nexlet, put together: zygote, runner and function agent, from one set of settings.

`Nexlet` is what `up` runs and what `dev` and programs embed. The zygote comes first: it is started before anything here
has connected anywhere, so that no process of a function can inherit a socket or a secret.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.means import DispatcherFactory
from nexlet_functions.functions.permissions import notices
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.life import Options
from nexlet_functions.observing.figures import NexletFigures
from nexlet_functions.observing.status import Status, claim
from nexlet_functions.runner.credentials import lacks_of_namespace, lacks_of_nexlet
from nexlet_functions.runner.registration import LocalRegistration, local_registration
from nexlet_functions.runner.runner import Runner
from nexlet_functions.runner.secrets import FolderSecrets, SecretStore
from nexlet_functions.runner.services import Services
from nexlet_functions.runner.settings import RunnerSettings
from nexlet_functions.sandboxing import Sandboxing, prove
from nexlet_functions.secrets.bucket import BucketSecrets
from nexlet_functions.secrets.environment import EnvironmentSecrets
from nexlet_functions.secrets.several import SeveralSecrets
from nexlet_functions.settings import Settings, SettingsHolder, state_directory
from nexlet_sandboxes.permitted import audit
from nexlet_sandboxes.zygote import Zygote

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["Nexlet"]

_log = structlog.stdlib.get_logger("nexlet_functions")

_FINDINGS = 20  # about one module, in the log

XKEY_FILE = "xkey.seed"
"""The curve key's file in the agent's part of the state directory."""


class Nexlet:
    """A running nexlet; an async context manager.

    Attributes:
        runner: its runner, for ids and connections.
        sandboxing: what the sandbox holds on this machine.
        status: serves its metrics and its health; None where the settings do not ask for it.
        started_by_node: whether a node started this process as one of its agents.
    """

    def __init__(
        self,
        settings: SettingsHolder,
        zygote: Zygote,
        sandboxing: Sandboxing,
        *,
        registration: LocalRegistration | None,
        state_folder: Path | None,
        environment: Mapping[str, str],
        connection: Options,
        tracer: Tracer | None,
        dispatchers: DispatcherFactory | None,
    ) -> None:
        """Use `start`."""
        current = settings.current
        self._settings = settings
        self._zygote = zygote
        self.sandboxing = sandboxing
        self.status: Status | None = None
        self._tracer = tracer
        self._dispatchers = dispatchers
        self._made: FunctionAgent | None = None
        self._curve_key: CurveKey | None = None
        self._sealed: BucketSecrets | None = None
        self.started_by_node = registration is not None
        self.runner = Runner(
            self._agent,
            credentials=None if registration is not None else current.credentials(),
            registration=registration,
            nexus=current.nexus,
            credentials_of=lambda namespace: settings.current.namespace_credentials(namespace),
            secrets=self._secrets(registration, environment, connection),
            state_folder=state_folder,
            take_over=current.take_over,
            settings=RunnerSettings(grace=current.grace, max_requests=current.max_requests, connection=connection),
        )
        self._figures = NexletFigures(self.runner, zygote)
        self._running = asyncio.create_task(self.runner.run(), name="nexlet")

    @classmethod
    async def start(
        cls,
        settings: SettingsHolder,
        *,
        environment: Mapping[str, str] | None = None,
        zygote: Awaitable[Zygote] | None = None,
        proof: asyncio.Future[Sandboxing] | None = None,
        connection: Options | None = None,
        tracer: Tracer | None = None,
        dispatchers: DispatcherFactory | None = None,
    ) -> Self:
        """Start everything. Connecting and registering go on in the background, for as long as it takes.

        Args:
            settings: what it runs with; may be read again while it runs.
            environment: of the process, where a node that starts its agents says so, and systemd its state directory.
            zygote: one that is being started already, with the modules and the folder for control groups of the
                settings; it is ours from now on.
            proof: what that zygote's workers show of the sandbox, if somebody has begun to look already.
            connection: how connections to servers behave; None means the defaults.
            tracer: makes a span of each invocation (`observing.tracing.tracer_of`); None makes none.
            dispatchers: makes those of functions, such as ones that record; None makes plain ones.

        Raises:
            ZygoteError: no process for workers can be started, or a module that the settings permit cannot be given.
            ExtraMissing, AddressUnusable: metrics cannot be served as the settings ask.
            CgroupUnusable: the folder for control groups is not what it has to be.
            LayersMissing: the default profile does not hold on this machine, and that is not permitted.
            CredentialsInvalid: a file with credentials cannot be read.
            RegistrationFailed: the environment is half of what a node gives to an agent.
        """
        environment = environment or {}
        try:
            maker = await (zygote or Zygote.start(modules=settings.current.modules, cgroup=settings.current.cgroup))
        except BaseException:
            await _give_up(proof)
            raise
        maker.on_restart = _tell_restart
        listening: socket.socket | None = None
        try:
            registration = local_registration(environment)
            state_folder = state_directory(
                settings.current, environment, root=os.geteuid() == 0, started_by_node=registration is not None
            )
            findings = await audit(settings.current.modules)
            sandboxing = await (prove(maker, settings.current) if proof is None else proof)
            sandboxing.require(settings.current.default_profile)
            maker.without = sandboxing.without
            if settings.current.metrics is not None:
                listening = claim(settings.current.metrics)
            nexlet = cls(
                settings,
                maker,
                sandboxing,
                registration=registration,
                state_folder=state_folder,
                environment=environment,
                connection=connection or _options(settings.current),
                tracer=tracer,
                dispatchers=dispatchers,
            )
        except BaseException:
            if listening is not None:
                listening.close()
            await _give_up(proof)
            await maker.close()
            raise
        current = settings.current
        if listening is not None:
            nexlet.status = await Status.start(
                listening,
                runner=nexlet.runner,
                zygote=maker,
                figures=nexlet._figures,
                agent=lambda: nexlet.agent,
            )
        _log.info(
            "nexlet starts",
            register_type=current.register_type,
            nexus=current.nexus,
            by="the node" if registration is not None else "itself",
            servers=None if registration is not None else list(current.credentials().addresses),
            state=str(state_folder) if state_folder is not None else "none is kept",
            profile=current.default_profile,
        )
        sandboxing.tell(current)
        for notice in notices(current):
            _log.warning(notice)
        if registration is None:
            for lack in lacks_of_nexlet(current.credentials(), current.nexus):
                _log.warning("the nexlet's own credentials do not permit what it needs", lacks=lack)
        for namespace in current.namespaces:
            for lack in lacks_of_namespace(current.namespace_credentials, namespace):
                _log.warning("the credentials of a namespace do not permit", namespace=namespace, lacks=lack)
        for module, lines in findings.items():
            _log.warning(
                "a module that the settings permit reaches further than a function should",
                module=module,
                findings=lines[:_FINDINGS],
                more=max(0, len(lines) - _FINDINGS),
            )
        return nexlet

    @property
    def agent(self) -> FunctionAgent | None:
        """Whose functions it runs; None before the runner has made it."""
        return self._made

    async def wait_registered(self) -> None:
        """Return once a node knows us and can send us work.

        Raises:
            NexletFunctionsError: what `wait` raises, where it ends before.
        """
        registered = asyncio.ensure_future(self.runner.wait_registered())
        try:
            await asyncio.wait((registered, self._running), return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
        if self._running.done():
            self._running.result()

    async def wait(self) -> None:
        """Return when it has ended: it was stopped, or the delay of a lameduck is over.

        Raises:
            RegistrationFailed: the node that started us refuses us, or what we offer cannot be registered.
            StateUnusable, KeyUnusable: a file of the state directory cannot be used.
        """
        await asyncio.shield(self._running)

    def stop_soon(self) -> None:
        """Begin to end, for signal handlers: no new work, what runs gets the grace of the settings."""
        self.runner.stop_soon()

    async def close(self) -> None:
        """End in order, workers last. What `wait` would raise is not raised here."""
        self.runner.stop_soon()
        await asyncio.gather(self._running, return_exceptions=True)
        if self.status is not None:
            await self.status.close()
        if self._sealed is not None:
            await self._sealed.close()
        await self._zygote.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _agent(self, services: Services) -> FunctionAgent:
        self._curve_key = key = self._key(services.state_folder)
        self._made = agent = FunctionAgent(
            services=services,
            zygote=self._zygote,
            settings=self._settings,
            key=key,
            sandboxing=self.sandboxing,
            tracer=self._tracer,
            dispatchers=self._dispatchers,
        )
        agent.on_gone = self._figures.gone
        return agent

    def _secrets(
        self, registration: LocalRegistration | None, environment: Mapping[str, str], options: Options
    ) -> SecretStore | None:
        """Where secrets come from, in the order in which they are asked; None where there is nowhere."""
        current = self._settings.current
        stores: list[SecretStore] = []
        if current.secrets_dir is not None:
            stores.append(FolderSecrets(current.secrets_dir))
        if current.settings_file is not None:  # which may say so when it is read again
            stores.append(EnvironmentSecrets(lambda namespace: self._settings.current.rules(namespace), environment))
        if current.secrets_bucket is not None:
            credentials = (
                current.credentials()
                if registration is None
                else Credentials.from_connection_data(registration.connection_data)
            )
            self._sealed = BucketSecrets(
                lambda: Connection(credentials, name=f"{current.name} secrets", options=options),
                current.secrets_bucket,
                self._own_key,
            )
            stores.append(self._sealed)
        return SeveralSecrets(stores) if stores else None

    def _own_key(self) -> CurveKey:
        assert self._curve_key is not None, "nobody asks for a secret before there is an agent"
        return self._curve_key

    def _key(self, folder: Path | None) -> CurveKey:
        """The curve key: the operator's file, the one that was kept, or one for this run alone."""
        file = self._settings.current.xkey_file or (folder / XKEY_FILE if folder is not None else None)
        if file is None:
            return CurveKey.generate()
        key, made = CurveKey.load(file)
        if made:
            _log.info("a curve key was made", file=str(file), public=key.public)
        return key


async def _give_up(proof: asyncio.Future[Sandboxing] | None) -> None:
    """Nobody wants to know any more."""
    if proof is not None:
        proof.cancel()
        await asyncio.gather(proof, return_exceptions=True)


def _options(settings: Settings) -> Options:
    return Options(
        connect_timeout=settings.connect_timeout,
        ping_interval=settings.ping_interval,
        max_outgoing=settings.max_outgoing,
    )


def _tell_restart(reason: str) -> None:
    _log.error("the process that makes workers ended and is started again", reason=reason)
