"""Waiting until a server has seen what a nats-py client asked of it."""

from __future__ import annotations

from nats.aio.client import Client

__all__ = ["settle"]


async def settle(client: Client) -> None:
    """Return when the server has processed everything this client sent before.

    nats-py puts the PING of a flush before what still waits to be sent, so only a second one comes after all of it.
    """
    await client.flush()
    await client.flush()
