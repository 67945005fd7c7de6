"""Connections to NATS: by credentials, supervised, shared.

`Connection` is one, `Connections` shares them by `Credentials`; messages reach a `MessageSink` in one synchronous call.
`protocol` encodes what is published, `fast` is the one place that knows nats-py's private names.
"""

from nexlet_functions.natsio.connection import Connection, ConnectionState, Reply
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import NatsioError
from nexlet_functions.natsio.life import Options
from nexlet_functions.natsio.sinks import MessageSink
from nexlet_functions.natsio.subscriptions import Subscription

__all__ = [
    "Connection",
    "ConnectionState",
    "Connections",
    "Credentials",
    "MessageSink",
    "NatsioError",
    "Options",
    "Reply",
    "Subscription",
]
