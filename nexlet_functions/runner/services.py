"""What a runner gives to its agent: feeds, events, triggers, secrets, and who we are to the node.

An agent is made with a `Services` and uses nothing else of the runner. `TriggerSpec` is one subscription it asks for,
`Registered` what it got, `Feed` the way out for everything a namespace's workloads say, `WorkloadLog` the part of it
that takes their output. All of it outlives reconnections and a new registration: hold on to the objects, and read their
attributes when you use them, because a feed may move to another connection or another prefix under you.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.sinks import BatchSink, MessageSink
from nexlet_functions.runner.agent import AgentError
from nexlet_models.base import Message
from nexlet_models.connection import NatsConnectionData

__all__ = ["Feed", "Registered", "Services", "TriggerRefused", "TriggerSpec", "WorkloadLog"]


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """One subscription of a workload.

    Attributes:
        subject: what to subscribe to, wildcards allowed.
        queue_group: the NATS queue group, whole ("acme.greet"); "" where every subscriber gets every message.
        sink: takes this subscription's messages; None means the sink that was given for all of them. A sink of its own
            is how a workload with several patterns knows which of them a message matched.
    """

    subject: str
    queue_group: str = ""
    sink: MessageSink | BatchSink | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """The live subscriptions of one workload.

    Attributes:
        connection: carries them, and the answers to their messages. Shared with workloads of equal credentials.
        triggers: what was asked for, in that order.
    """

    connection: Connection
    triggers: tuple[TriggerSpec, ...]


class Feed(Protocol):
    """Where what a namespace's workloads say is published.

    Read both attributes at each use: they change together when the node gives us other credentials, or when the server
    turns out to forbid the namespace's own prefix.
    """

    @property
    def connection(self) -> Connection:
        """Publishes it. The same object as `Registered.connection` where the credentials are equal."""
        ...

    @property
    def prefix(self) -> str:
        """`$NEX.FEED.NAMESPACE`, or `$NEX.FEED.AGENT` where ours may publish nothing else. No dot at the end."""
        ...


class WorkloadLog(Protocol):
    """The output of one workload. Synchronous: a line that cannot be sent is dropped and counted, never waited for."""

    def stdout(self, data: bytes, invocation_id: str = "") -> bool:
        """Publish `data` as one message on the workload's `stdout` feed. False where it was dropped.

        Args:
            invocation_id: which one wrote it, for a header of the message; "" where it is of none.
        """
        ...

    def stderr(self, data: bytes, invocation_id: str = "") -> bool:
        """The same on the workload's `stderr` feed."""
        ...


class Services(Protocol):
    """What an agent may ask of its runner."""

    @property
    def agent_id(self) -> str:
        """The id the node knows us by. Changes when a node that forgot us gives us a new one; "" before the first."""
        ...

    @property
    def node_id(self) -> str:
        """The node's public key (begins with N); "" before the first registration."""
        ...

    @property
    def nexus(self) -> str:
        """The name of the nexus."""
        ...

    @property
    def state_folder(self) -> Path | None:
        """A folder that is the agent's alone (mode 0700, kept over restarts); None where no state is kept."""
        ...

    def heartbeat_soon(self) -> None:
        """Send a heartbeat now; calls that come together become one. For every change of state or counts."""
        ...

    def feed(self, namespace: str) -> Feed:
        """The way out for a namespace: for code that encodes its own messages. The same object for every call."""
        ...

    def get_logger(self, workload_id: str, namespace: str) -> WorkloadLog:
        """The log feeds of a workload: `$NEX.FEED.NAMESPACE.logs.WORKLOAD.stdout` and `.stderr`."""
        ...

    def emit_metrics(self, workload_id: str, namespace: str, data: bytes, invocation_id: str = "") -> bool:
        """Publish `data` (JSON) on `$NEX.FEED.NAMESPACE.metrics.WORKLOAD`. False where it was dropped.

        Args:
            invocation_id: as for a line of the log.
        """
        ...

    def emit_event(self, source: str, name: str, event: Message) -> bool:
        """Publish an event on `$NEX.FEED.SOURCE.events.NAME`. False where it was dropped.

        Args:
            source: the namespace of a workload's event; our agent id for one of the agent's own.
            name: such as `WORKLOADSTARTED`.
            event: its body.

        Raises:
            ValueError: `source` or `name` is not one subject token. Events without a name get nowhere unnoticed in
                the Go nexlets; here it is the caller's bug.
        """
        ...

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
        """Make all subscriptions of a workload, or none. When it returns, the server delivers on every one of them.

        The operator's credentials for the namespace are used where there are any, else `creds`, the workload's own.

        Args:
            on_connection: told which connection it will be, before the first message can come on it.

        Raises:
            TriggerRefused: the server forbids one of the subjects, or a subject is not one; nothing stays subscribed.
            AgentError: no connection could be had with these credentials (status 503), or the workload already has
                triggers (409).
        """
        ...

    async def unregister_trigger(self, workload_id: str) -> None:
        """End the workload's subscriptions. When it returns, no further message comes; unknown ids are fine."""
        ...

    async def open_apart(self, workload_id: str) -> Connection:
        """A connection that carries nothing else, by the credentials of the one that this workload's triggers are on.

        It is renewed with that one. Pair with `close_apart`, when everything that is to leave over it has been written.

        Raises:
            AgentError: it could not be had (503), or the workload has no triggers (404).
        """
        ...

    async def close_apart(self, connection: Connection, namespace: str) -> None:
        """Send what waits on it and end it."""
        ...

    async def move_triggers(self, workload_id: str, triggers: Sequence[TriggerSpec], to: Connection) -> None:
        """Have these of a workload's subscriptions on another connection; nothing is lost, and nothing comes twice.

        Each has a queue group, of which there are two members for a moment; in between, messages come in no order.

        Args:
            triggers: some of what was registered, each with the sink that takes its messages from now on.
            to: what `open_apart` gave, or, for the way back, what `Registered.connection` was.

        Raises:
            TriggerRefused, AgentError: as in `register_trigger`; everything is as before.
        """
        ...

    def connection(self, namespace: str, creds: NatsConnectionData) -> AbstractAsyncContextManager[Connection]:
        """A connection for as long as the `async with` lasts, by the same credentials that triggers would use.

        For what a workload may do in its own name, such as fetching its artifact: `connection.client.jetstream()`.

        Raises:
            AgentError: on entering, no connection could be had with these credentials (status 503).
        """
        ...

    async def get_namespace_secret(self, namespace: str, key: str) -> SecretStr:
        """The value of a namespace's secret.

        Raises:
            SecretNotFound: there is none of that name, or no store was configured; the text says which.
        """
        ...


class TriggerRefused(AgentError):
    """A trigger that cannot be subscribed to.

    Attributes:
        subject: the one that was refused.
        permission: what the server said, as it said it; "" where it was not the server that refused.
        refused: all that were refused, subject and permission of each; the first is the one above.
    """

    status = 403

    def __init__(
        self, subject: str, permission: str, text: str = "", *, refused: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.subject = subject
        self.permission = permission
        self.refused = tuple(refused) or ((subject, permission),)
        super().__init__(
            text
            or f"trigger {subject!r} refused: the server says {permission!r}\n"
            "the credentials of this workload may not subscribe to it: grant that permission, or have the operator of "
            "this nexlet supply credentials for the namespace"
        )
