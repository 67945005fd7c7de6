"""Many functions at once: deployed a few at a time, left alone until they have no worker, woken, withdrawn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from benchmarks.bench import TEN_LINES, Bench
from benchmarks.load import Load
from benchmarks.processes import descendants
from nexlet_sandboxes.reserve import RESERVE

__all__ = ["EMPTY", "PAYLOAD", "deploy", "until_idle", "wake", "withdraw"]

SIDE_BY_SIDE = 4
PAYLOAD = b'{"lines": []}'
EMPTY = b""
SOURCE = TEN_LINES.replace("    total =", "    if not event.data:\n        return event.data\n    total =")
"""A function as an author would have it, which has nothing to do where its message is empty: what it takes then is what
it takes to get the message there and the answer back, as with the floor."""


async def deploy(bench: Bench, names: Sequence[str], request: Mapping[str, object] | None = None) -> float:
    """Deploy a ten-line function under each of these names, triggered by a subject of that name.

    Each has a source of its own: nothing that was compiled is used twice.

    Args:
        request: what else their start requests say; another `source`, too.

    Returns:
        Seconds from the first request to start one until the last was answered.
    """
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def start(name: str) -> None:
        async with room:
            given: dict[str, object] = {"source": SOURCE, "triggers": [name], **(request or {})}
            await bench.start_workload(name, given | {"source": f"{given['source']}# {name}\n"})

    began = time.perf_counter()
    await asyncio.gather(*map(start, names))
    return time.perf_counter() - began


async def withdraw(bench: Bench, names: Sequence[str]) -> None:
    """Stop these."""
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def stop(name: str) -> None:
        async with room:
            await bench.stop_workload(name)

    await asyncio.gather(*map(stop, names))


async def until_idle(bench: Bench) -> None:
    """Return when of the nexlet's other processes the zygote is left, and the workers that wait for a function.

    Raises:
        TimeoutError: after a minute there are others still.
    """
    async with asyncio.timeout(60):
        while True:
            if len(descendants(bench.processes["nexlet"])) <= 1 + RESERVE:
                return
            await asyncio.sleep(0.05)


def wake(url: str, subjects: Sequence[str]) -> list[float]:
    """Ask one after another, and wait for each; milliseconds until its answer came."""
    with Load(url) as load:
        return [load.requests(subject, count=1, in_flight=1, payload=PAYLOAD).percentile(0.5) for subject in subjects]
