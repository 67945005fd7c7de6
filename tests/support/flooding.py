"""A function that is flooded, and what becomes of each message: for tests of connections apart.

What counts is what the nexlet's pool was given and what came back: each message has a text of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.apart import Apart
from nexlet_functions.functions.function import Function
from nexlet_functions.natsio.life import Options
from nexlet_sandboxes.calls import Call, Result, Sink
from nexlet_sandboxes.outcomes import Outcome
from tests.support.nexlets import NexletBench, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually
from tests.support.turns import somebody_waits

__all__ = [
    "ECHO",
    "TWO",
    "Ended",
    "Flood",
    "apart_of",
    "away",
    "facts",
    "function_of",
    "home",
    "open_bench",
    "watch",
]

ECHO = """
import time

def handler(event, context):
    if event.text.startswith("sleep"):
        time.sleep(1)
    return event.text
"""
TWO = {"min": 2, "max": 2}


class Ended:
    """In front of a pool's sink: how each message ended, by its text."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.logged, self.measured, self.changed, self.flush = sink.logged, sink.measured, sink.changed, sink.flush
        self.ran: Counter[bytes] = Counter()
        self.others: Counter[str] = Counter()

    def finished(self, call: Call, result: Result) -> None:
        if result.outcome is Outcome.OK:
            self.ran[bytes(call.payload)] += 1
        else:
            self.others[result.outcome] += 1
        self._sink.finished(call, result)


class Flood:
    """Requests on a subject, so many at once without a pause, until it is ended.

    Attributes:
        asked: how many so far.
        answered: how often what was answered, by its text; all that ran.
        lost: the others, by what became of them.
    """

    def __init__(
        self, client: Client, subject: str, *, at_once: int = 64, patience: float = 20.0, pause: float = 0.0
    ) -> None:
        """Begins at once.

        Args:
            at_once: how many ask.
            patience: seconds to wait for an answer.
            pause: seconds between an answer and the next question.
        """
        self._client, self._subject, self._patience = client, subject, patience
        self._pause = pause
        self._over = False
        self.asked = 0
        self.answered: Counter[bytes] = Counter()
        self.lost: Counter[str] = Counter()
        self._asking = [asyncio.create_task(self._ask()) for _ in range(at_once)]

    async def _ask(self) -> None:
        while not self._over:
            self.asked += 1
            body = b"%d" % self.asked
            try:
                answer = await self._client.request(self._subject, body, timeout=self._patience)
            except nats.errors.Error as error:
                self.lost[type(error).__name__] += 1
                await asyncio.sleep(0.01)
                continue
            said = (answer.headers or {}).get("error")
            if said is None:
                self.answered[answer.data] += 1
            else:
                self.lost[said] += 1
            if self._pause:
                await asyncio.sleep(self._pause)

    async def more(self, count: int = 300) -> None:
        """Return when so many more were answered."""
        wanted = self.answered.total() + count
        await eventually(lambda: self.answered.total() >= wanted, within=60, what=f"{count} answers; {self.lost}")

    async def end(self) -> None:
        """Return when all that was asked is answered or given up."""
        self._over = True
        await asyncio.gather(*self._asking)


@contextlib.asynccontextmanager
async def open_bench(
    server: EmbeddedServer, options: Options, folder: Path, *, most: int = 0, **flags: Any
) -> AsyncIterator[NexletBench]:
    """A nexlet that moves nothing by itself, unless it may."""
    node = StandIn(server.url, folder)
    await node.start()
    try:
        async with nexlet_bench(server, node, options=options, max_own_connections=most, **flags) as bench:
            yield bench
    finally:
        await node.stop()


def function_of(bench: NexletBench, workload_id: str) -> Function:
    assert bench.nexlet.agent is not None
    (found,) = (one for one in bench.nexlet.agent.functions if one.workload_id == workload_id)
    return found


def apart_of(function: Function) -> Apart:
    assert function.apart is not None
    return function.apart


def watch(function: Function) -> Ended:
    """What ends in it from now on."""
    assert function.pool is not None
    ended = Ended(function.pool.sink)
    function.pool.sink = ended
    return ended


async def facts(bench: NexletBench, workload_id: str) -> dict[str, str]:
    return (await bench.summary(workload_id)).metadata or {}


async def away(apart: Apart) -> None:
    apart.go(somebody_waits)
    await eventually(lambda: apart.connection is not None and not apart.moving, within=30, what="it is apart")


async def home(apart: Apart) -> None:
    apart.come_back()
    await eventually(lambda: apart.connection is None and not apart.moving, within=30, what="it is back")
