"""How to connect to NATS, as the node tells it: servers, TLS files, and one kind of credentials or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, SecretStr

from nexlet_models.base import Message, Secret, Text

__all__ = ["NatsConnectionData", "redact_url"]


def redact_url(url: str) -> str:
    """A server's URL without the user, password or token that it may carry: `nats://***@host:4222`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if "@" not in parts.netloc:
        # `user:password@host` without a scheme does not parse as a URL, and is understood by clients all the same.
        return f"***@{url.rpartition('@')[2]}" if "@" in url else url
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))


def _no_servers(value: object) -> object:
    # What has been through Python is no longer JSON's array, which strict reading would take for a tuple.
    return () if value is None else tuple(value) if isinstance(value, list) else value


class NatsConnectionData(Message):
    """Servers and credentials. Which credentials count, in this order: JWT and seed, nkey and seed, user and password.

    Attributes:
        conn_name: what the connection is called on the server; "" leaves it to the client.
        nats_servers: URLs; none means the default, `nats://127.0.0.1:4222`.
        tls_cert, tls_key, tls_ca: paths of files, on the machine that connects.
        tls_first: TLS before the server says anything.
        nats_user_jwt: of a user in an operator's account; with `nats_user_seed`.
        nats_user_seed: the private half, of the JWT's user or of the nkey.
        nats_user_nkey: the public half of an nkey.
        nats_user_name, nats_user_password: the plain kind.
    """

    conn_name: Text = ""
    nats_servers: Annotated[tuple[str, ...], BeforeValidator(_no_servers)] = ()
    tls_cert: Text = ""
    tls_key: Text = ""
    tls_ca: Text = ""
    tls_first: bool = False
    nats_user_jwt: Secret = SecretStr("")
    nats_user_seed: Secret = SecretStr("")
    nats_user_nkey: Text = ""
    nats_user_name: Text = ""
    nats_user_password: Secret = SecretStr("")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, tuple(redact_url(url) for url in value) if name == "nats_servers" else value

    @property
    def has_credentials(self) -> bool:
        """Whether there is more than servers to connect with."""
        seed = bool(self.nats_user_seed.get_secret_value())
        return (
            (seed and bool(self.nats_user_jwt.get_secret_value() or self.nats_user_nkey))
            or bool(self.nats_user_name and self.nats_user_password.get_secret_value())
        )  # fmt: skip
