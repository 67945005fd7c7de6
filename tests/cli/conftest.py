"""What the command line's tests share: commands whose JSON lines are read as they come, and a nexlet to ask about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.live import live, temporary
from tests.support.nexlets import NexletBench, nexlet_bench
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex

__all__ = ["bench", "live", "temporary"]


@pytest.fixture(params=["stand-in", "real"])
async def bench(
    request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path
) -> AsyncIterator[NexletBench]:
    """A nexlet beside a node of this make; a module with a bench of its own has that one."""
    binary = find_nex()
    if request.param == "real" and binary is None:
        pytest.skip(NO_NEX)
    url = nats_server.url
    made: Node = StandIn(url, tmp_path) if request.param == "stand-in" else RealNode(binary or "", url, tmp_path)
    await made.start()
    try:
        async with nexlet_bench(nats_server, made) as nexlet:
            yield nexlet
    finally:
        await made.stop()
