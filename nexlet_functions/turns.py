"""Work over many functions that lets everything else have its turn.

What is looked at for each function takes microseconds; for a thousand of them, on the event loop, it would be tens of
milliseconds in which no message is read and no answer is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

__all__ = ["TURN_NS", "in_turns"]

TURN_NS: Final = 500_000
"""Nanoseconds of work in one go: half of what an answer takes that finds its worker."""

_Item = TypeVar("_Item")


async def in_turns(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """Each of `items`; between two of them, once a turn is over, the loop does whatever else there is to do.

    What `items` is taken from may be changed meanwhile, by whatever that is.
    """
    began = time.monotonic_ns()
    for item in tuple(items):
        yield item
        if time.monotonic_ns() - began >= TURN_NS:
            await asyncio.sleep(0)
            began = time.monotonic_ns()
