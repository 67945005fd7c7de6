"""Feeds: the logs, metrics and events of workloads, and which connection may publish them under which prefix.

A namespace's own prefix is `$NEX.FEED.NAMESPACE`. Who may publish there is decided in this order:
1. the operator's credentials for that namespace, where there are any;
2. the agent's credentials, unless the JWT in them says no;
3. else, and wherever a server turns out to refuse, the agent's credentials under `$NEX.FEED.AGENT`, which is what a
   node with a signing key permits its agents (`internal/credentials/vendor.go` of Nex).
Which it is, is said in the log when a feed is first used and whenever that changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from nexlet_functions.natsio.complaints import Violation
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.protocol import clean_header_value, encode_headers
from nexlet_functions.runner.credentials import CredentialsOf
from nexlet_models import subjects
from nexlet_models.base import Message
from nexlet_models.events import INVOCATION_HEADER

__all__ = ["Feeds"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class _Feed:
    """See `services.Feed`."""

    __slots__ = ("by", "connection", "headers", "metrics", "namespace", "prefix", "quiet")

    def __init__(self, namespace: str, connection: Connection, prefix: str, by: str) -> None:
        self.namespace = namespace
        self.connection = connection
        self.prefix = prefix
        self.by = by
        self.metrics = True  # whether they may be published at all
        self.quiet: Callable[[], None] = lambda: None
        self.headers = encode_headers({"synadia.com/group": "", "synadia.com/namespace": namespace})

    def publish(self, rest: str, data: bytes, headers: bytes = b"") -> bool:
        """Publish below the prefix; what is not one subject cannot get here (see `subjects.logs` and the like)."""
        return self.connection.publish(f"{self.prefix}.{rest}", data, headers=headers, spare=True)

    def headers_of(self, invocation_id: str) -> bytes:
        """The header block of what an invocation says; "" for what is of none."""
        if not invocation_id:
            return self.headers
        line = f"{INVOCATION_HEADER}: {clean_header_value(invocation_id)}\r\n\r\n"
        return self.headers[:-2] + line.encode()  # in place of the empty line at its end


class _WorkloadLog:
    """See `services.WorkloadLog`."""

    __slots__ = ("_feed", "_stderr", "_stdout")

    def __init__(self, feed: _Feed, workload_id: str) -> None:
        self._feed = feed
        prefix = f"$NEX.FEED.{feed.namespace}."
        self._stdout = subjects.logs(feed.namespace, workload_id, "stdout").removeprefix(prefix)
        self._stderr = subjects.logs(feed.namespace, workload_id, "stderr").removeprefix(prefix)

    def stdout(self, data: bytes, invocation_id: str = "") -> bool:
        return self._feed.publish(self._stdout, data, self._feed.headers_of(invocation_id))

    def stderr(self, data: bytes, invocation_id: str = "") -> bool:
        return self._feed.publish(self._stderr, data, self._feed.headers_of(invocation_id))


class Feeds:
    """The feeds of all namespaces. `update` with each registration, `close` at the end."""

    def __init__(self, connections: Connections, credentials_of: CredentialsOf) -> None:
        self._connections = connections
        self._credentials_of = credentials_of
        self._feeds: dict[str, _Feed] = {}
        self._agent_id = ""
        self._agent: Credentials | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    async def update(self, agent_id: str, credentials: Credentials) -> None:
        """Publish as this agent from now on."""
        self._agent_id, self._agent = agent_id, credentials
        for feed in self._feeds.values():
            self._place(feed)

    def feed(self, namespace: str) -> _Feed:
        """The feed of a namespace.

        Raises:
            InvalidToken: `namespace` cannot be part of a subject.
            RuntimeError: there is no registration yet.
        """
        feed = self._feeds.get(namespace)
        if feed is None:
            subjects.event(namespace, "CHECK")
            connection, prefix, by = self._choose(namespace)
            feed = self._feeds[namespace] = _Feed(namespace, connection, prefix, by)
            self._taken(feed)
        return feed

    def logger(self, workload_id: str, namespace: str) -> _WorkloadLog:
        """See `Services.get_logger`."""
        return _WorkloadLog(self.feed(namespace), workload_id)

    def metrics(self, workload_id: str, namespace: str, data: bytes, invocation_id: str = "") -> bool:
        """See `Services.emit_metrics`."""
        feed = self.feed(namespace)
        if not feed.metrics:
            return False
        rest = subjects.metrics(namespace, workload_id).removeprefix(f"$NEX.FEED.{namespace}.")
        return feed.publish(rest, data, feed.headers_of(invocation_id))

    def event(self, source: str, name: str, event: Message) -> bool:
        """See `Services.emit_event`; `source` is a namespace."""
        rest = subjects.event(source, name).removeprefix(f"$NEX.FEED.{source}.")
        return self.feed(source).publish(rest, event.to_json())

    async def close(self) -> None:
        """Give the connections back, which sends what still waits."""
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.quiet()
        releasing = (self._connections.release(feed.connection, feed.namespace) for feed in feeds.values())
        await asyncio.gather(*releasing, *self._releasing)

    # --- which connection, which prefix ------------------------------------------------------------------------------

    def _choose(self, namespace: str) -> tuple[Connection, str, str]:
        if self._agent is None:
            raise RuntimeError("feeds are there from the first registration on")
        own = self._credentials_of(namespace)
        if own is not None:
            return (
                self._connections.hold(own, namespace),
                f"$NEX.FEED.{namespace}",
                "the operator's credentials for the namespace",
            )
        if self._agent.may_publish(subjects.event(namespace, "WORKLOADTRIGGERED")) is False:
            return self._fallback(namespace, "the agent's credentials, which permit no other prefix")
        return self._connections.hold(self._agent, namespace), f"$NEX.FEED.{namespace}", "the agent's credentials"

    def _fallback(self, namespace: str, by: str) -> tuple[Connection, str, str]:
        assert self._agent is not None
        return self._connections.hold(self._agent, namespace), f"$NEX.FEED.{self._agent_id}", by

    def _place(self, feed: _Feed, chosen: tuple[Connection, str, str] | None = None) -> None:
        """Move a feed to where it belongs now."""
        connection, prefix, by = chosen or self._choose(feed.namespace)
        # One hold more than needed: of the connection it leaves, or of the one it stays with.
        leaving = feed.connection
        if (connection, prefix) != (feed.connection, feed.prefix):
            feed.quiet()
            feed.connection, feed.prefix, feed.by = connection, prefix, by
            self._taken(feed)
        task = asyncio.create_task(self._connections.release(leaving, feed.namespace))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def _taken(self, feed: _Feed) -> None:
        feed.quiet = feed.connection.on_violation(lambda violation: self._refused(feed, violation))
        # Metrics are not among what a node with a signing key permits its agents, not even under their own prefix.
        permitted = feed.connection.credentials.may_publish(f"{feed.prefix}.metrics.WORKLOAD")
        feed.metrics = permitted is not False
        _log.info("feed", namespace=feed.namespace, under=feed.prefix, by=feed.by, metrics=feed.metrics)

    def _refused(self, feed: _Feed, violation: Violation) -> None:
        if violation.kind != "publish" or self._agent is None or feed.prefix == f"$NEX.FEED.{self._agent_id}":
            return
        if violation.subject.startswith(f"{feed.prefix}.".lower()):
            why = "the agent's credentials, because the server refused the other prefix"
            self._place(feed, self._fallback(feed.namespace, why))
