"""The floor: a bare nats-py responder, no sandbox, no events.

`python -m benchmarks.floor URL SUBJECT LOOP [KIND [NUMBER]]`. With a kind it does for each message what a busy
function of `busy` does, or counts messages as `cells.COUNTING` does. With a number it has so many subscriptions: to
SUBJECT.0, SUBJECT.1 and so on. Several of one subject share it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nats
from nats.aio.msg import Msg

__all__ = ["respond"]


def _burn(_: bytes) -> bytes:
    total = 0
    for n in range(200_000):
        total += n
    return str(total).encode()


def _large(_: bytes) -> bytes:
    return b"x" * 200_000


def _log(_: bytes) -> bytes:
    for number in range(200):
        print(f"line {number} of many", "x" * 80, file=_NOWHERE)
    return b"logged"


def _allocate(_: bytes) -> bytes:
    return str(len(b"x" * 32_000_000)).encode()


_NOWHERE = Path(os.devnull).open("w")  # noqa: SIM115  # open as long as the process lives
WORK: dict[str, Callable[[bytes], bytes]] = {"burn": _burn, "large": _large, "log": _log, "allocate": _allocate}


async def respond(url: str, subject: str, kind: str = "", number: str = "0") -> None:
    """Answer every request, for ever: with its own payload, or with what that kind of work makes of it."""
    client = await nats.connect(url)
    work = WORK.get(kind, bytes)
    count = 0

    async def answer(message: Msg) -> None:
        await client.publish(message.reply, work(message.data))

    async def counted(message: Msg) -> None:
        nonlocal count
        count += 1
        if message.reply:
            await client.publish(message.reply, str(count).encode())

    for each in [f"{subject}.{at}" for at in range(int(number))] or [subject]:
        await client.subscribe(each, queue="floor", cb=counted if kind == "count" else answer)
    await client.flush()
    await client.flush()  # nats-py lets the first overtake the subscription
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run on the event loop that the third argument names."""
    url, subject, loop, *kind = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(respond(url, subject, *kind))
    else:
        asyncio.run(respond(url, subject, *kind))


if __name__ == "__main__":
    main()
