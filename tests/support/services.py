"""What a runner gives to its agent, over a real server and with nothing of a node: for tests of agents alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from nexlet_functions.natsio import Connection, Connections, Credentials, MessageSink, NatsioError, Subscription
from nexlet_functions.natsio.errors import SubscriptionRefused
from nexlet_functions.natsio.life import Options
from nexlet_functions.natsio.sinks import BatchSink
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.secrets import SecretNotFound
from nexlet_functions.runner.services import Registered, TriggerRefused, TriggerSpec
from nexlet_models import subjects
from nexlet_models.base import Message
from nexlet_models.connection import NatsConnectionData

__all__ = ["LiveServices"]


@dataclass(frozen=True)
class LiveFeed:
    connection: Connection
    prefix: str


@dataclass(frozen=True)
class LiveLog:
    connection: Connection
    namespace: str
    workload_id: str

    def stdout(self, data: bytes, invocation_id: str = "") -> bool:
        return self.connection.publish(subjects.logs(self.namespace, self.workload_id, "stdout"), data)

    def stderr(self, data: bytes, invocation_id: str = "") -> bool:
        return self.connection.publish(subjects.logs(self.namespace, self.workload_id, "stderr"), data)


class LiveServices:
    """Implements `Services`. Everything goes over real connections; `secrets` is a table.

    Attributes:
        heartbeats: how many were asked for.
        connections: those in use.
    """

    def __init__(
        self, connection: Connection, *, state_folder: Path | None = None, options: Options | None = None
    ) -> None:
        self.agent_id = "AGENT"
        self.node_id = "NODE"
        self.nexus = "nexus"
        self.state_folder = state_folder
        self.heartbeats = 0
        self.secrets: dict[tuple[str, str], str] = {}
        self.connections = Connections(name="tests", options=options)
        self.fail_with: Exception | None = None
        self._connection = connection
        self._feeds: dict[str, LiveFeed] = {}
        self._triggers: dict[str, tuple[Connection, list[Subscription]]] = {}

    @property
    def registered(self) -> set[str]:
        """Workloads with live triggers."""
        return set(self._triggers)

    def heartbeat_soon(self) -> None:
        self.heartbeats += 1

    def feed(self, namespace: str) -> LiveFeed:
        return self._feeds.setdefault(namespace, LiveFeed(self._connection, f"$NEX.FEED.{namespace}"))

    def get_logger(self, workload_id: str, namespace: str) -> LiveLog:
        return LiveLog(self._connection, namespace, workload_id)

    def emit_metrics(self, workload_id: str, namespace: str, data: bytes, invocation_id: str = "") -> bool:
        return self._connection.publish(subjects.metrics(namespace, workload_id), data)

    def emit_event(self, source: str, name: str, event: Message) -> bool:
        return self._connection.publish(subjects.event(source, name), event.to_json())

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
        if self.fail_with is not None:
            raise self.fail_with
        connection = await self.connections.acquire(Credentials.from_connection_data(creds))
        if on_connection is not None:
            on_connection(connection)
        made: list[Subscription] = []
        refused: list[SubscriptionRefused] = []
        for spec in triggers:
            try:
                made.append(
                    await connection.subscribe(spec.subject, queue=spec.queue_group, sink=spec.sink or sink)
                )  # fmt: skip
            except SubscriptionRefused as error:
                refused.append(error)
        if refused:
            for subscription in made:
                await subscription.unsubscribe()
            await self.connections.release(connection)
            pairs = [(error.subject, error.permission) for error in refused]
            raise TriggerRefused(*pairs[0], refused=pairs)
        self._triggers[workload_id] = (connection, made)
        return Registered(connection, tuple(triggers))

    async def unregister_trigger(self, workload_id: str) -> None:
        connection, made = self._triggers.pop(workload_id, (None, []))
        if connection is None:
            return
        for subscription in made:
            await subscription.unsubscribe()
        await self.connections.release(connection)

    async def open_apart(self, workload_id: str) -> Connection:
        if self.fail_with is not None:
            raise self.fail_with
        return await self.connections.open_apart(self._triggers[workload_id][0])

    async def close_apart(self, connection: Connection, namespace: str) -> None:
        await self.connections.release(connection)

    async def move_triggers(self, workload_id: str, triggers: Sequence[TriggerSpec], to: Connection) -> None:
        if self.fail_with is not None:
            raise self.fail_with
        home, made = self._triggers[workload_id]
        moved = {(one.subject, one.queue_group) for one in triggers}
        new = [await to.subscribe(one.subject, queue=one.queue_group, sink=one.sink) for one in triggers if one.sink]
        former = [one for one in made if (one.subject, one.queue) in moved]
        self._triggers[workload_id] = (home, [one for one in made if one not in former] + new)
        for one in former:
            await one.unsubscribe()

    @contextlib.asynccontextmanager
    async def connection(self, namespace: str, creds: NatsConnectionData) -> AsyncIterator[Connection]:
        try:
            connection = await self.connections.acquire(Credentials.from_connection_data(creds), timeout=2.0)
        except NatsioError as error:
            raise AgentError(str(error), status=503) from None
        try:
            yield connection
        finally:
            await self.connections.release(connection)

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        if (namespace, key) not in self.secrets:
            raise SecretNotFound(f"no secret {key!r} of namespace {namespace!r}")
        return SecretStr(self.secrets[namespace, key])

    async def close(self) -> None:
        await self.connections.close()
