"""The floor: a bare nats-py responder, no sandbox, no events: `python -m benchmarks.floor URL SUBJECT LOOP`."""

from __future__ import annotations

import asyncio
import sys

import nats
from nats.aio.msg import Msg


async def respond(url: str, subject: str) -> None:
    """Answer every request with its own payload, for ever."""
    client = await nats.connect(url)

    async def answer(message: Msg) -> None:
        await client.publish(message.reply, message.data)

    await client.subscribe(subject, cb=answer)
    await client.flush()
    await client.flush()  # nats-py lets the first overtake the subscription
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run on the event loop that the third argument names."""
    url, subject, loop = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(respond(url, subject))
    else:
        asyncio.run(respond(url, subject))


if __name__ == "__main__":
    main()
