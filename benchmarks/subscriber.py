"""The floor of `bursts`: a bare nats-py subscriber on uvloop, which keeps what it was sent and does no more.

`python -m benchmarks.subscriber URL SUBJECT`. A request to SUBJECT.account, which is a subscription of its own, is
answered with its account in JSON: `run`, `distinct`, and what the client `dropped`.
"""

from __future__ import annotations

import asyncio
import json
import sys

import nats
import nats.errors
import uvloop
from nats.aio.msg import Msg

__all__ = ["subscribe"]


async def subscribe(url: str, subject: str) -> None:
    """Keep an account, for ever."""
    seen: list[str] = []
    dropped = 0

    async def failed(error: Exception) -> None:
        nonlocal dropped
        if not isinstance(error, nats.errors.SlowConsumerError):
            raise error
        dropped += 1

    async def keep(message: Msg) -> None:
        seen.append(message.data.decode())

    async def tell(message: Msg) -> None:
        account = {"run": len(seen), "distinct": len(set(seen)), "dropped": dropped}
        await message.respond(json.dumps(account).encode())

    client = await nats.connect(url, error_cb=failed)
    await client.subscribe(subject, cb=keep)
    await client.subscribe(f"{subject}.account", cb=tell)
    await client.flush()
    await client.flush()  # nats-py lets the first overtake the subscriptions
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(subscribe(*sys.argv[1:]))
