"""What a runner gives to its agent, made of the runner's parts: see `services.Services`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from pydantic import SecretStr

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.runner.feeds import Feeds
from nexlet_functions.runner.membership import Membership
from nexlet_functions.runner.secrets import SecretNotFound, SecretStore
from nexlet_functions.runner.services import Feed, Registered, TriggerSpec, WorkloadLog
from nexlet_functions.runner.state import State
from nexlet_functions.runner.triggers import Triggers
from nexlet_models import subjects
from nexlet_models.base import Message
from nexlet_models.connection import NatsConnectionData
from nexlet_models.events import EventName

__all__ = ["ProvidedServices"]


class ProvidedServices:
    """Implements `services.Services`.

    Attributes:
        state: opened by the runner; None where nothing is kept.
        handed_over: what ends here goes on in another nexlet, and is not told as stopped.
    """

    def __init__(
        self,
        membership: Membership,
        feeds: Feeds,
        triggers: Triggers,
        connections: Connections,
        *,
        nexus: str,
        secrets: SecretStore | None,
    ) -> None:
        """Of a runner's parts."""
        self._membership = membership
        self._feeds = feeds
        self._triggers = triggers
        self._connections = connections
        self._nexus = nexus
        self._secrets = secrets
        self.state: State | None = None
        self.handed_over = False

    @property
    def agent_id(self) -> str:
        return self._membership.agent_id

    @property
    def node_id(self) -> str:
        return self._membership.node_id

    @property
    def nexus(self) -> str:
        return self._nexus

    @property
    def state_folder(self) -> Path | None:
        return self.state.agent_folder if self.state is not None else None

    def heartbeat_soon(self) -> None:
        self._membership.heartbeats.soon()

    def feed(self, namespace: str) -> Feed:
        return self._feeds.feed(namespace)

    def get_logger(self, workload_id: str, namespace: str) -> WorkloadLog:
        return self._feeds.logger(workload_id, namespace)

    def emit_metrics(self, workload_id: str, namespace: str, data: bytes, invocation_id: str = "") -> bool:
        return self._feeds.metrics(workload_id, namespace, data, invocation_id)

    def emit_event(self, source: str, name: str, event: Message) -> bool:
        if self.handed_over and name == EventName.WORKLOAD_STOPPED:
            return True
        connection = self._membership.connection
        if source == self.agent_id and connection is not None:
            return connection.publish(subjects.event(source, name), event.to_json())
        return self._feeds.event(source, name, event)

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
        return await self._triggers.register(workload_id, namespace, creds, triggers, sink, on_connection)

    async def unregister_trigger(self, workload_id: str) -> None:
        await self._triggers.unregister(workload_id)

    async def open_apart(self, workload_id: str) -> Connection:
        return await self._triggers.open_apart(workload_id)

    async def close_apart(self, connection: Connection, namespace: str) -> None:
        await self._triggers.close_apart(connection, namespace)

    async def move_triggers(self, workload_id: str, triggers: Sequence[TriggerSpec], to: Connection) -> None:
        await self._triggers.move(workload_id, triggers, to)

    @contextlib.asynccontextmanager
    async def connection(self, namespace: str, creds: NatsConnectionData) -> AsyncIterator[Connection]:
        connection = await self._triggers.acquire(namespace, creds)
        try:
            yield connection
        finally:
            await self._connections.release(connection, namespace)

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        store = self._secrets
        if store is None:
            raise SecretNotFound(f"secret {key!r}: this nexlet has no store of secrets; its operator can configure one")
        value = await store.get(namespace, key)
        if value is None:
            raise SecretNotFound(f"secret {key!r}: namespace {namespace!r} has none of that name")
        return value
