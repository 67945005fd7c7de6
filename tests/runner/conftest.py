"""A node that says what it is told to, and a runner with an agent that does the like."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.running import Running, Start, run
from tests.support.scripted_node import ScriptedNode


@pytest.fixture
def start() -> Start:
    return run


@pytest.fixture
async def node(nats_server: EmbeddedServer) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode.on(nats_server.url) as node:
        yield node


@pytest.fixture
async def running(nats_server: EmbeddedServer, node: ScriptedNode) -> AsyncIterator[Running]:
    """Registered with the node."""
    async with run(nats_server.url) as running:
        await node.registered()
        yield running
