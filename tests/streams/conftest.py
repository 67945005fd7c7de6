"""A function agent beside streams, over both ways of using nats-py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from tests.support.agent import AgentBench, agent_bench


@pytest.fixture(params=["fast", "public"])
async def bench(request: pytest.FixtureRequest, nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    """With the streams ORDERS (`orders.>`) and DEAD (`dead.>`)."""
    async with agent_bench(nats_server, options=Options(public_only=request.param == "public")) as made:
        stream = made.client.jetstream()
        await stream.add_stream(name="ORDERS", subjects=["orders.>"])
        await stream.add_stream(name="DEAD", subjects=["dead.>"])
        yield made
