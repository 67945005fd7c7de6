"""With what agents and workloads connect: the stand-in node's twin of Nex's credential vendors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nexlet_models.connection import NatsConnectionData

__all__ = ["FullAccess", "Minter"]


class Minter(Protocol):
    """Hands out connection data."""

    def registration(self, agent_id: str) -> NatsConnectionData:
        """To register with."""
        ...

    def agent(self, agent_id: str) -> NatsConnectionData:
        """For a registered agent."""
        ...

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        """For one workload."""
        ...


class FullAccess:
    """The servers and nothing else: what a real node without an issuer hands out."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._data = NatsConnectionData(nats_servers=tuple(servers))

    def registration(self, agent_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._data

    def agent(self, agent_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._data

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        """See `Minter`."""
        return self._data
