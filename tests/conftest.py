"""What every test may use: a real nats-server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_functions.devnode.server import EmbeddedServer


@pytest.fixture
async def nats_server() -> AsyncIterator[EmbeddedServer]:
    """A nats-server on a free port, with JetStream, for this test alone."""
    async with EmbeddedServer() as server:
        yield server
