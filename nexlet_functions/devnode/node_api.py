"""What clients ask the stand-in node about itself."""

from __future__ import annotations

from nats.micro.request import Request

from nexlet_functions.devnode.answers import Refusal, read
from nexlet_functions.devnode.context import Context
from nexlet_models.base import timestamp
from nexlet_models.control import NodeInfoResponse, NodePingRequest, NodePingResponse, PlacementTags
from nexlet_models.durations import format_duration

__all__ = ["VERSION", "NodeApi"]

VERSION = "0.0.0-standin"
"""What `nex node ls` shows: nobody is to take it for a real one."""


class NodeApi:
    """The handlers; each answers one request, stays silent (None), or raises `Refusal`."""

    def __init__(self, on: Context) -> None:
        self._on = on

    async def placement_tags(self, request: Request) -> PlacementTags:
        return PlacementTags(dict(self._on.tags))

    async def ping(self, request: Request) -> NodePingResponse | None:
        asked = read(NodePingRequest, request, "failed to unmarshal ping request")
        if not self._on.has_tags(asked.filter):
            return None
        return NodePingResponse(
            node_id=self._on.node_id,
            agent_count=len(self._on.registrations),
            start_time=timestamp(self._on.begun_at),
            state=self._on.state,
            tags=dict(self._on.tags),
            version=VERSION,
            xkey=self._on.xkey,
        )

    async def info(self, request: Request) -> NodeInfoResponse:
        return NodeInfoResponse(
            node_id=self._on.node_id,
            version=VERSION,
            uptime=format_duration(self._on.clock.monotonic() - self._on.begun),
            xkey=self._on.xkey,
            tags=dict(self._on.tags),
            node_agent_summaries=self._on.registrations.summaries() or None,
        )

    async def agent_id(self, request: Request) -> bytes | None:
        name = request.data.decode("utf-8", "replace")
        if not name:
            raise Refusal(400, "agent name is required", "agent name is required")
        found = self._on.registrations.named(name)
        return found.agent_id.encode() if found is not None else None
