"""Nodes of both makes, each on a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex


@pytest.fixture(params=["stand-in", "real"])
async def node(request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that runs."""
    made: Node
    if request.param == "stand-in":
        made = StandIn(nats_server.url, tmp_path)
    else:
        binary = find_nex()
        if binary is None:
            pytest.skip(NO_NEX)
        made = RealNode(binary, nats_server.url, tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection of the test's own."""
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()
