"""Servers that know each other, each of which may go while the others stay."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

from nexlet_functions.devnode.server import EmbeddedServer

__all__ = ["cluster"]


@contextlib.asynccontextmanager
async def cluster(size: int = 3, *, more: str = "") -> AsyncIterator[list[EmbeddedServer]]:
    """Servers of one cluster, without streams. In lame duck mode they take half a minute to let their clients go.

    Args:
        more: further configuration of each.
    """
    ports = _ports(size)
    routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                EmbeddedServer(
                    config=f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [ {routes} ] }}\n"
                    f'lame_duck_grace_period: "3s"\nlame_duck_duration: "30s"\n{more}',
                    jetstream=False,
                )
            )
            for port in ports
        ]


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
