"""The floor of `streams`: a bare nats-py pull consumer on uvloop, which acknowledges each message and does no more.

`python -m benchmarks.consumer URL STREAM CONSUMER BATCH`
"""

from __future__ import annotations

import contextlib
import sys

import nats
import uvloop

__all__ = ["consume"]


async def consume(url: str, stream: str, consumer: str, batch: int) -> None:
    """Take messages and acknowledge them, for ever."""
    client = await nats.connect(url)
    pulled = await client.jetstream().pull_subscribe_bind(consumer, stream)
    print("ready", flush=True)
    while True:
        with contextlib.suppress(TimeoutError):
            for message in await pulled.fetch(batch, timeout=1):
                await message.ack()


if __name__ == "__main__":
    uvloop.run(consume(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
