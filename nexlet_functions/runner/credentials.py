"""Whose credentials are used for a namespace, and what to say when they do not work, or will not."""

from __future__ import annotations

from collections.abc import Callable

from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import ConnectFailed, CredentialsInvalid, NatsioError
from nexlet_models import subjects
from nexlet_models.events import EventName

__all__ = ["CredentialsOf", "lacks_of_namespace", "lacks_of_nexlet", "unusable"]

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


def lacks_of_nexlet(credentials: Credentials, nexus: str) -> list[str]:
    """What the nexlet's own credentials do not permit, of what it needs, as far as they say so themselves (a JWT does).

    Whoever starts a nexlet by hand may read it at once; otherwise it would be seen as a node that never answers.

    Raises:
        CredentialsInvalid: a file cannot be read.
    """
    ask, answers = subjects.remote_register(nexus), "_INBOX.ANY"
    lacks = []
    if credentials.may_publish(ask) is False:
        lacks.append(f"publishing on {ask}: no node can be asked for an id")
    if credentials.may_subscribe(answers) is False:
        lacks.append("subscribing to _INBOX.>: no answer of a node arrives")
    if credentials.may_subscribe(subjects.node_heartbeat("NODE")) is False:
        hears = subjects.node_heartbeat()
        lacks.append(f"subscribing to {hears}: that a node has forgotten us is seen by asking it, within a minute")
    return lacks


def lacks_of_namespace(credentials_of: CredentialsOf, namespace: str) -> list[str]:
    """The same of what an operator gives a namespace, for its feeds; what a trigger may not have, its start says."""
    try:
        credentials = credentials_of(namespace)
        if credentials is None:
            return []
        feeds = {
            "logs": subjects.logs(namespace, "ANY", "stdout"),
            "metrics": subjects.metrics(namespace, "ANY"),
            "events": subjects.event(namespace, EventName.WORKLOAD_TRIGGERED),
        }
        closed = {name: subject for name, subject in feeds.items() if credentials.may_publish(subject) is False}
    except CredentialsInvalid as error:
        return [f"being used at all: {error}"]
    return [
        f"publishing on {subject.replace('.ANY', '.*')}: the {name} of its functions go nowhere"
        for name, subject in closed.items()
    ]
