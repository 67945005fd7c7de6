"""Nodes of both makes, each on a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.nodes import node

__all__ = ["client", "node"]


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection of the test's own."""
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()
