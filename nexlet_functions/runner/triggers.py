"""Trigger subscriptions: all of a workload's, or none, on a connection with its credentials.

`Triggers` keeps what each workload has. What the server refuses comes back as one `TriggerRefused` that names every
subject with the permission that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import CredentialsInvalid, NatsioError, SubscriptionRefused
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.natsio.subscriptions import Subscription
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.credentials import CredentialsOf, unusable
from nexlet_functions.runner.services import Registered, TriggerRefused, TriggerSpec
from nexlet_models.connection import NatsConnectionData

__all__ = ["Triggers"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")

_APART_WITHIN = 3.0
"""Seconds for a connection apart to be there: its workload is served all the while, and may do without."""


class _Held:
    """What one workload has."""

    __slots__ = ("connection", "namespace", "subscriptions")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.connection: Connection | None = None
        self.subscriptions: list[Subscription] = []


class Triggers:
    """The triggers of all workloads."""

    def __init__(
        self, connections: Connections, credentials_of: CredentialsOf, *, connect_timeout: float = 10.0
    ) -> None:
        """Nothing is connected yet.

        Args:
            connect_timeout: seconds to reach the server; the node waits sixty for a start's answer.
        """
        self._connections = connections
        self._connect_timeout = connect_timeout
        self._credentials_of = credentials_of
        self._held: dict[str, _Held] = {}

    def credentials(self, namespace: str, creds: NatsConnectionData) -> Credentials:
        """The operator's for that namespace, else the workload's own.

        Raises:
            AgentError: they cannot be used (400).
        """
        try:
            return self._credentials_of(namespace) or Credentials.from_connection_data(creds)
        except CredentialsInvalid as error:
            raise AgentError(f"the workload's credentials cannot be used: {error}", status=400) from None

    async def acquire(self, namespace: str, creds: NatsConnectionData) -> Connection:
        """The shared connection for a workload. Pair with `Connections.release` and the namespace.

        Raises:
            AgentError: there is none to be had (503), or the credentials cannot be used (400).
        """
        credentials = self.credentials(namespace, creds)
        try:
            return await self._connections.acquire(credentials, namespace, timeout=self._connect_timeout)
        except NatsioError as error:
            raise AgentError(unusable("the workload", credentials, error), status=503) from None

    async def register(
        self,
        workload_id: str,
        namespace: str,
        creds: NatsConnectionData,
        triggers: Sequence[TriggerSpec],
        sink: MessageSink | BatchSink,
        on_connection: Callable[[Connection], None] | None,
    ) -> Registered:
        """See `Services.register_trigger`."""
        if workload_id in self._held:
            raise AgentError(f"workload {workload_id} has its triggers already", status=409)
        held = self._held[workload_id] = _Held(namespace)
        try:
            held.connection = connection = await self.acquire(namespace, creds)
            if on_connection is not None:
                on_connection(connection)
            results = await asyncio.gather(
                *(connection.subscribe(one.subject, queue=one.queue_group, sink=one.sink or sink) for one in triggers),
                return_exceptions=True,
            )
            held.subscriptions = [one for one in results if isinstance(one, Subscription)]
            self._raise(connection.credentials, [one for one in results if isinstance(one, BaseException)])
        except BaseException:
            # Shielded: a start that is cancelled must leave nothing behind either.
            await asyncio.shield(self.unregister(workload_id))
            raise
        return Registered(connection, tuple(triggers))

    def _raise(self, credentials: Credentials, problems: list[BaseException]) -> None:
        refused = [one for one in problems if isinstance(one, SubscriptionRefused)]
        for one in problems:
            if isinstance(one, NatsioError) and not isinstance(one, SubscriptionRefused):
                raise AgentError(unusable("the workload", credentials, one), status=503) from None
            if not isinstance(one, SubscriptionRefused):
                raise one
        if len(refused) == 1 and refused[0].permission:
            raise TriggerRefused(refused[0].subject, refused[0].permission)
        if refused:
            lines = "\n".join(f"  {one}" for one in refused)
            raise TriggerRefused(
                refused[0].subject,
                refused[0].permission,
                f"{len(refused)} of the triggers refused\n{lines}",
                refused=[(one.subject, one.permission) for one in refused],
            )

    async def open_apart(self, workload_id: str) -> Connection:
        """See `Services.open_apart`."""
        held = self._held.get(workload_id)
        if held is None or held.connection is None:
            raise AgentError(f"workload {workload_id} has no triggers", status=404)
        try:
            return await self._connections.open_apart(held.connection, held.namespace, timeout=_APART_WITHIN)
        except NatsioError as error:
            raise AgentError(unusable("the workload", held.connection.credentials, error), status=503) from None

    async def move(self, workload_id: str, triggers: Sequence[TriggerSpec], to: Connection) -> None:
        """See `Services.move_triggers`."""
        held = self._held.get(workload_id)
        if held is None:
            raise AgentError(f"workload {workload_id} has no triggers", status=404)
        asked = [
            asyncio.ensure_future(to.subscribe(one.subject, queue=one.queue_group, sink=_sink(one))) for one in triggers
        ]
        try:
            results = await asyncio.gather(*asked, return_exceptions=True)
            new = [one for one in results if isinstance(one, Subscription)]
            if self._held.get(workload_id) is not held:  # it was unregistered meanwhile
                raise AgentError(f"workload {workload_id} has no triggers", status=404)
            self._raise(to.credentials, [one for one in results if isinstance(one, BaseException)])
        except BaseException:
            await asyncio.shield(_end(asked))
            raise
        # The server has confirmed them: from here on nothing is missed, whichever of the two it chooses.
        moved = {(one.subject, one.queue_group) for one in triggers}
        former = [one for one in held.subscriptions if (one.subject, one.queue) in moved]
        held.subscriptions = [one for one in held.subscriptions if one not in former] + new
        # Shielded: whoever gives up waiting for it has not got it back.
        await asyncio.shield(asyncio.gather(*(one.unsubscribe() for one in former)))

    async def close_apart(self, connection: Connection, namespace: str) -> None:
        """See `Services.close_apart`."""
        await self._connections.release(connection, namespace)

    async def unregister(self, workload_id: str) -> None:
        """See `Services.unregister_trigger`."""
        held = self._held.pop(workload_id, None)
        if held is None:
            return
        await asyncio.gather(*(one.unsubscribe() for one in held.subscriptions))
        if held.connection is not None:
            await self._connections.release(held.connection, held.namespace)

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self.unregister(workload_id) for workload_id in tuple(self._held)))


def _sink(trigger: TriggerSpec) -> MessageSink | BatchSink:
    assert trigger.sink is not None, "what moves has an entrance of its own"
    return trigger.sink


async def _end(asked: Sequence[asyncio.Task[Subscription]]) -> None:
    """Have none of what was asked for, whatever has become of it."""
    for task in asked:
        task.cancel()
    results = await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.gather(*(one.unsubscribe() for one in results if isinstance(one, Subscription)))
