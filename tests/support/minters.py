"""What real nodes hand out, by kind of issuer (`internal/credentials` of Nex), each with the server that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nkeys
from pydantic import SecretStr

from nexlet_functions.devnode.minter import FullAccess, Minter
from nexlet_functions.natsio.credentials import Credentials
from nexlet_models.connection import NatsConnectionData
from tests.support.jwt import Operator

__all__ = ["MINTING", "Minting", "SigningKey"]


@dataclass(frozen=True)
class Minting:
    """One kind.

    Attributes:
        config: of the server.
        admin: makes the credentials of the node, of the nexlet and of whoever asks.
        minter: makes what agents and workloads are given, from the server's URL and the node's id.
        namespace: makes what an operator gives a namespace; None gives it nothing.
    """

    config: str
    admin: Callable[[str], Credentials]
    minter: Callable[[str, Callable[[], str]], Minter]
    namespace: Callable[[str], Credentials] | None = None


class SigningKey:
    """Scoped users, one for each agent and each workload."""

    def __init__(self, operator: Operator, url: str, node_id: Callable[[], str]) -> None:
        self._operator, self._url, self._node_id = operator, url, node_id

    def registration(self, agent_id: str) -> NatsConnectionData:
        return self._operator.registration(self._url, self._node_id(), agent_id)

    def agent(self, agent_id: str) -> NatsConnectionData:
        return self._operator.agent(self._url, self._node_id(), agent_id)

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        return self._operator.workload(self._url, namespace, workload_id)


class _Same(FullAccess):
    """The same for everybody."""

    def __init__(self, data: NatsConnectionData) -> None:
        self._data = data


def _open() -> Minting:
    return Minting("", lambda url: Credentials((url,)), lambda url, _: FullAccess((url,)))


def _no_issuer() -> Minting:
    return Minting(
        "authorization { user: ada, password: pw }",
        lambda url: Credentials((url,), user="ada", password=SecretStr("pw")),
        lambda url, _: FullAccess((url,)),
    )


def _nkey() -> Minting:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
    public = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    return Minting(
        f"authorization {{ users = [ {{ nkey: {public} }} ] }}",
        lambda url: Credentials((url,), nkey_seed=SecretStr(seed)),
        lambda url, _: _Same(
            NatsConnectionData(nats_servers=(url,), nats_user_nkey=public, nats_user_seed=SecretStr(seed))
        ),
    )


def _signing_key(*, supplied: bool = False) -> Minting:
    operator = Operator()

    def user(url: str) -> Credentials:
        return Credentials.from_connection_data(operator.creds(url, "ada"))

    return Minting(operator.config, user, lambda url, node: SigningKey(operator, url, node), user if supplied else None)


MINTING: dict[str, Callable[[], Minting]] = {
    "open": _open,
    "nkey": _nkey,
    "signing key": _signing_key,
    "signing key, with credentials for the namespace": lambda: _signing_key(supplied=True),
    "no issuer, and a server that asks": _no_issuer,
}
"""By the names that docs/operations.md has for them."""
