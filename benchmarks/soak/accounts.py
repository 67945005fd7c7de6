"""Users by their JWTs: what a soak's server, node, nexlet, load and onlookers are let in with, where that is asked for.

One operator, one account. The node mints scoped users as a Nex node with a signing key does; triggers and feeds of the
soak's namespace have a user of their own, in a creds file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nats.aio.client import RawCredentials

from nexlet_functions.natsio.credentials import Credentials
from nexlet_models.connection import NatsConnectionData
from tests.support.jwt import Operator, creds_text

__all__ = ["Accounts", "Minted"]


class Accounts:
    """The account and its users.

    Attributes:
        config: of the server.
        own: the nexlet's creds file.
        namespace: the creds file for the triggers of the soak's namespace.
        ends: when what the node mints for an agent from now on expires, in whole seconds since 1970; None is in a year.
    """

    def __init__(self, folder: Path) -> None:
        """Everybody has a user.

        Args:
            folder: for the files.
        """
        self._operator = Operator()
        self.config = self._operator.resolved_in(folder / "accounts")
        self.own, self.namespace = folder / "own.creds", folder / "namespace.creds"
        self.own.write_text(creds_text(*self._operator.user("own")))
        self.ends: int | None = None
        self.renew()

    def renew(self) -> None:
        """The namespace has another user, in the same file."""
        self.namespace.write_text(creds_text(*self._operator.user("namespace")))

    async def revoke(self, url: str) -> None:
        """The account revokes the namespace's user, as `nsc push` does: the server ends its connections."""
        await self._operator.revoke(url, "namespace")

    def user(self, name: str) -> tuple[str, str]:
        """JWT and seed of another user."""
        return self._operator.user(name)

    def connect(self, name: str) -> dict[str, Any]:
        """What nats-py needs for it."""
        return {"user_credentials": RawCredentials(creds_text(*self.user(name)))}

    def node(self, url: str) -> Credentials:
        """The node's own."""
        return Credentials.from_connection_data(self._operator.creds(url, "node"))

    def minter(self, url: str, node_id: str) -> Minted:
        """What that node hands out."""
        return Minted(self._operator, url, node_id, lambda: self.ends)


class Minted:
    """A `Minter` of scoped users; those of agents may expire early."""

    def __init__(self, operator: Operator, url: str, node_id: str, ends: Callable[[], int | None]) -> None:
        self._operator, self._url, self._node_id, self._ends = operator, url, node_id, ends

    def registration(self, agent_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._operator.registration(self._url, self._node_id, agent_id)

    def agent(self, agent_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._operator.agent(self._url, self._node_id, agent_id, expires=self._ends())

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._operator.workload(self._url, namespace, workload_id)
