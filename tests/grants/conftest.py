from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trustme

from nexlet_functions.rules import HttpRules
from tests.support.http_server import Server, serving
from tests.support.outside import HOME, Names, Outside


async def _server_and_trap(stack: AsyncExitStack) -> tuple[Server, Server]:
    """On one port of two addresses. A port that is free on one may be taken on the other."""
    for _ in range(20):
        server = await stack.enter_async_context(serving(HOME))
        try:
            return server, await stack.enter_async_context(serving("127.0.0.1", port=server.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no port is free on both addresses")


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        server, trap = await _server_and_trap(stack)
        names = Names(
            {"api.example.com": [[HOME]], "other.example.com": [[HOME]], "inside.example.com": [["127.0.0.1"]]}
        )
        world = Outside(server, trap, names, HttpRules.model_validate({"addresses": [f"{HOME}/32"]}))
        yield world
        for client in world.clients:
            await client.close()
    assert not trap.connections, "something connected to where nobody may"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()
