"""Whose credentials are used for a namespace, and what to say when they do not work."""

from __future__ import annotations

from collections.abc import Callable

from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import ConnectFailed, NatsioError

__all__ = ["CredentialsOf", "unusable"]

CredentialsOf = Callable[[str], Credentials | None]
"""The operator's credentials for a namespace, or None where the workload's and the agent's own are to be used."""


def unusable(whose: str, credentials: Credentials, error: NatsioError) -> str:
    """Why there is no connection, with the next step where it is known."""
    text = f"no connection to NATS for {whose}: {error}"
    if isinstance(error, ConnectFailed) and error.refused and credentials.kind == "none":
        text += (
            "\nthe node gave no credentials, but the server asks for some: start the node with an issuer "
            "(a signing key or an nkey), or have the operator of this nexlet supply credentials for the namespace"
        )
    return text
