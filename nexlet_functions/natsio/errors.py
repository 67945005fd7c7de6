"""What can go wrong between us and a NATS server, as types.

One root, `NatsioError`. Each has a stable `code`, fields for programs and a message that ends with the next step. No
credential ever appears in one: server addresses are shown without their user part.
"""

from __future__ import annotations

from nexlet_functions.errors import NexletFunctionsError

__all__ = [
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionLost",
    "CredentialsInvalid",
    "NatsioError",
    "NoResponders",
    "PublishRefused",
    "RequestTimeout",
    "SubscriptionRefused",
]


class NatsioError(NexletFunctionsError):
    """The root of what this package raises."""

    code = "nats"


class CredentialsInvalid(NatsioError):
    """Credentials that cannot be used: a file that is missing or unreadable, a seed that is none.

    Attributes:
        what: which part of them, such as "creds file /etc/nexlet/agent.creds".
        reason: why, without any of its content.
    """

    code = "credentials-invalid"

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"{what}: {reason}")


class ConnectFailed(NatsioError):
    """No connection within the time that was given; attempts go on until the connection is closed.

    Attributes:
        servers: the addresses that were tried, without user parts.
        reason: what the last attempt ran into.
        refused: the server answered and turned these credentials down; waiting will not help by itself.
    """

    code = "connect-failed"

    def __init__(self, servers: tuple[str, ...], reason: str, *, refused: bool = False) -> None:
        self.servers = servers
        self.reason = reason
        self.refused = refused
        super().__init__(f"no connection to {', '.join(servers)}: {reason}")


class ConnectionClosed(NatsioError):
    """The connection was closed by us; nothing more can be asked of it."""

    code = "connection-closed"

    def __init__(self) -> None:
        super().__init__("the connection is closed")


class ConnectionLost(NatsioError):
    """The server went away before it answered. Whether it took what was sent is not known."""

    code = "connection-lost"

    def __init__(self, during: str) -> None:
        self.during = during
        super().__init__(f"the connection to the server was lost during {during}")


class SubscriptionRefused(NatsioError):
    """The server forbids a subscription, or the subject is not one.

    Attributes:
        subject, queue: what was asked for.
        permission: the server's text; "" where we refused it ourselves.
    """

    code = "subscription-refused"

    def __init__(self, subject: str, permission: str, *, queue: str = "", reason: str = "") -> None:
        self.subject = subject
        self.queue = queue
        self.permission = permission
        super().__init__(f"subscription to {subject!r} refused: {reason or permission}")


class RequestTimeout(NatsioError):
    """Nobody answered in time.

    Attributes:
        subject: what was asked.
        timeout: how long we waited, in seconds.
    """

    code = "request-timeout"

    def __init__(self, subject: str, timeout: float) -> None:
        self.subject = subject
        self.timeout = timeout
        super().__init__(f"no answer on {subject!r} within {timeout:g} s")


class NoResponders(NatsioError):
    """Nobody listens on that subject.

    Attributes:
        subject: what was asked.
    """

    code = "no-responders"

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(f"nobody listens on {subject!r}")


class PublishRefused(NatsioError):
    """The server forbids publishing there.

    Attributes:
        subject: where to.
        permission: the server's text.
    """

    code = "publish-refused"

    def __init__(self, subject: str, permission: str) -> None:
        self.subject = subject
        self.permission = permission
        super().__init__(f"publishing on {subject!r} refused: {permission}")
