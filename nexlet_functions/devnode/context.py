"""What the parts of the stand-in node share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.nuid import NUID

from nexlet_functions.control import gather
from nexlet_functions.devnode import state as stored
from nexlet_functions.devnode.clock import Clock
from nexlet_functions.devnode.minter import Minter
from nexlet_functions.devnode.registrations import Bids, Registrations
from nexlet_models.base import Message
from nexlet_models.control import NodeState

__all__ = ["Context"]


@dataclass(slots=True)
class Context:
    """One node.

    Attributes:
        nexus: the group of nodes it belongs to.
        tags: placement tags, Nex's own included.
        kept: who it is, and what was deployed.
        gather_timeout: seconds to wait for all agents to answer.
        state: what it is doing.
        begun, begun_at: when it started, as `clock` has it.
    """

    client: Client
    nexus: str
    tags: dict[str, str]
    kept: stored.NodeState
    minter: Minter
    clock: Clock
    gather_timeout: float
    registrations: Registrations
    bids: Bids
    begun: float
    begun_at: datetime
    state: NodeState = NodeState.STARTING
    _ids: NUID = field(default_factory=NUID)

    @property
    def node_id(self) -> str:
        """Public server key (N...)."""
        return self.kept.identity.node_id

    @property
    def xkey(self) -> str:
        """Public curve key (X...)."""
        return self.kept.identity.xkey

    def new_id(self) -> str:
        """One that was never given before: for agents, workloads, bids and errors, as nuid makes them."""
        return self._ids.next().decode()

    def has_tags(self, wanted: Mapping[str, str] | None) -> bool:
        """Whether the node has all of them."""
        return all(self.tags.get(name) == value for name, value in (wanted or {}).items())

    async def ask_agents(
        self, subject: str, asked: Message, *, until: Callable[[Msg], bool] | None = None
    ) -> list[Msg]:
        """As many answers as there are registrations, or what came in time."""
        if not len(self.registrations):
            return []
        return await gather(
            self.client,
            subject,
            asked.to_json(),
            wait=self.gather_timeout,
            count=len(self.registrations),
            until=until,
        )
