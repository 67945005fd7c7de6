"""A FastStream subscriber that answers what it was asked: `python faststream_echo.py URL SUBJECT`, on uvloop.

Run with an environment that has FastStream, and not with our own packages.
"""

from __future__ import annotations

import sys

import uvloop
from faststream import FastStream
from faststream.nats import NatsBroker

__all__ = ["main"]


def main(url: str, subject: str) -> None:
    """Answer for ever. It says "ready" on standard output once it is."""
    broker = NatsBroker(url, logger=None)  # a line for each message is what it says otherwise
    app = FastStream(broker, logger=None)

    async def echo(body: bytes) -> bytes:
        return body

    async def ready() -> None:
        print("ready", flush=True)

    broker.subscriber(subject, queue="anchor")(echo)
    app.after_startup(ready)
    uvloop.run(app.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
