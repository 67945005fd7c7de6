"""Many messages at once: what becomes of each of them. `python -m benchmarks bursts`.

They are published as fast as one connection goes, nobody waits for an answer, and all of them differ. Two functions
take them, one with the limits that a function has by default and one with as much room as it may ask for, and beside
them a bare nats-py subscriber that keeps what comes. Each counts what it ran; the nexlet counts what it refused, and
the server what it handed on. What is neither run nor refused nor dropped by somebody who counts it is unaccounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from benchmarks.accounts import COUNTING, HOW_MANY, Account, delivered, outcomes
from benchmarks.bench import Bench, bare_subscriber, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.overload import Deaf
from nexlet_functions.control import ControlClient

__all__ = ["BARE", "KIND", "ROOM", "Burst", "Bursts", "bare_burst", "chunks"]

SIZES = (1_000, 20_000, 100_000)
ROOM = "room for all"
LIMITS: dict[str, dict[str, object]] = {
    "default limits": {},
    ROOM: {"max_pending": 65536, "queue_timeout": "5m", "timeout": "20s"},
}
BARE = "bare nats-py"
REFUSED = ("rejected", "expired", "unavailable")
"""Outcomes of messages that were not run: no room, waited too long, stopping."""

CHUNK = 1_000
"""Messages in one write."""

STALLED = 5.0
"""Seconds without a change after which nothing more is expected to end."""

LOOK_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst to one subscriber.

    Attributes:
        subscriber: who it was sent to.
        account: what became of it.
        published_s: seconds until the server had read all of it.
        ended_s: until nothing of it was under way any more, to about 20 ms.
    """

    subscriber: str
    account: Account
    published_s: float
    ended_s: float

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "subscriber": self.subscriber,
            **self.account.as_json(),
            "published_s": self.published_s,
            "ended_s": self.ended_s,
        }


@dataclass(frozen=True, slots=True)
class Bursts:
    """All of them."""

    payload: int
    bursts: list[Burst]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [one.as_json() for one in self.bursts]

    def table(self) -> list[str]:
        """For people."""
        return [
            f"bursts of messages of {self.payload} bytes, published as fast as it goes; what became of each",
            "    messages  subscriber            run   refused   dropped by server, by client   unaccounted"
            "   published s   ended s",
            *(
                f"  {one.account.sent:>10,}  {one.subscriber:14}  {one.account.distinct:>9,} {one.account.refused:>9,}"
                f"   {one.account.dropped_by_server:>17,}  {one.account.dropped_by_client:>9,}"
                f"   {one.account.unaccounted:>11,}   {one.published_s:>11.2f}   {one.ended_s:>7.2f}"
                + (f"   {one.account.twice:,} RAN TWICE" if one.account.twice else "")
                for one in self.bursts
            ),
        ]


async def _measure(options: Options) -> Bursts:
    payload = max(options.payload, len(str(max(SIZES))))
    async with open_bench(floors=()) as bench:
        bursts = []
        for count in SIZES:
            for name, limits in LIMITS.items():
                bursts.append(await _ours(bench, name, limits, count, payload))
            bursts.append(await bare_burst(bench, count, payload))
        return Bursts(payload, bursts)


async def _ours(bench: Bench, name: str, limits: dict[str, object], count: int, payload: int) -> Burst:
    """To a function of one worker, which can tell by itself what it was given."""
    workload_id = f"burst-{count}-{name.replace(' ', '-')}"
    request = {"source": COUNTING, "triggers": [workload_id], "workers": {"max": 1}, "limits": limits}
    control = ControlClient(bench.client, namespace="bench", nodes=1)
    ended: dict[str, int] = {}

    async def over() -> int:
        nonlocal ended
        ended = await outcomes(control, workload_id)
        return sum(ended.values())

    await bench.start_workload(workload_id, request)
    try:
        published, seconds = await _burst(bench.url, workload_id, count, payload, over)
        # Before it is asked, and that is counted as well.
        by_server = count - await asyncio.to_thread(delivered, bench.monitoring, workload_id)
        answer = await bench.client.request(workload_id, HOW_MANY, timeout=30)
    finally:
        await bench.stop_workload(workload_id)
    run, distinct = map(int, answer.data.split())
    refused = sum(ended.get(outcome, 0) for outcome in REFUSED)
    return Burst(name, Account(count, run, distinct, refused, by_server), published, seconds)


async def bare_burst(bench: Bench, count: int, payload: int) -> Burst:
    """To a bare nats-py subscriber."""
    subject = f"burst.bare-{count}"
    told: dict[str, int] = {}

    async def over() -> int:
        answer = await bench.client.request(f"{subject}.account", timeout=30)
        told.update(json.loads(answer.data))
        return told["run"] + told["dropped"]

    with bare_subscriber(bench.url, subject):
        published, seconds = await _burst(bench.url, subject, count, payload, over)
        by_server = count - await asyncio.to_thread(delivered, bench.monitoring, subject)
    account = Account(count, told["run"], told["distinct"], 0, by_server, told["dropped"])
    return Burst(BARE, account, published, seconds)


async def _burst(
    url: str, subject: str, count: int, payload: int, over: Callable[[], Awaitable[int]]
) -> tuple[float, float]:
    """Publish it, and wait until `over`, which says of how many messages the end is known, says all or changes no more.

    Returns:
        Seconds until it was published, and until all was over.
    """
    began = time.monotonic()
    await asyncio.to_thread(_publish, url, subject, count, payload)
    published = time.monotonic() - began
    known, changed = -1, time.monotonic()
    while known < count and time.monotonic() < changed + STALLED:
        await asyncio.sleep(LOOK_EVERY)
        now = await over()
        if now != known:
            known, changed = now, time.monotonic()
    return published, changed - began


def _publish(url: str, subject: str, count: int, payload: int) -> None:
    publisher = Deaf(url)
    with contextlib.closing(publisher):
        for chunk in chunks(subject, count, payload):
            publisher.send(chunk)
        publisher.settle()


def chunks(subject: str, count: int, payload: int) -> Iterator[bytes]:
    """The messages, each with its number, filled up to its size."""
    head = b"PUB %b %d\r\n" % (subject.encode(), payload)
    for first in range(0, count, CHUNK):
        yield b"".join(b"%b%0*d\r\n" % (head, payload, number) for number in range(first, min(first + CHUNK, count)))


KIND = Kind(
    "bursts", "1,000, 20,000 and 100,000 messages at once: each one run, or refused and counted", _measure, short=False
)
