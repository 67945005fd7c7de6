"""What is waited for where nothing runs yet: `python -m benchmarks coldstart`.

A worker; the first answer of a function that was scaled to zero, beside the next one; a deployment's first answer; and
the nexlet itself, killed and executed again with its functions in its state directory, beside a bare responder that is
executed in the same minute and subscribes to as much.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import nats.errors

from benchmarks import workers
from benchmarks.bench import Bench, open_bench, spawn
from benchmarks.deploys import deploy_and_ask
from benchmarks.fleet import PAYLOAD, deploy, until_idle, wake
from benchmarks.kinds import Kind, Options
from benchmarks.spread import percentile
from nexlet_models import subjects
from nexlet_sandboxes.zygote import Zygote

__all__ = ["DEPLOYED", "KIND", "WOKEN_FIRST", "ColdStarts", "Startup", "Wait"]

STARTED = 100
"""Workers, and deployments half as many."""

WOKEN = 50
"""Functions that are woken, round after round."""

WOKEN_FIRST = "first answer of a function scaled to zero"
DEPLOYED = "STARTWORKLOAD to the function's first answer"

FUNCTIONS = (0, 100, 1000)
PATIENCE = 60.0
LOOK_EVERY = 0.002


@dataclass(frozen=True, slots=True)
class Wait:
    """Milliseconds of one thing.

    Attributes:
        what: it is.
        count: how often it was measured.
        median_ms, p99_ms: of these.
        promise: what it is to be at most; "" where nothing is said.
    """

    what: str
    count: int
    median_ms: float
    p99_ms: float
    promise: str = ""

    @classmethod
    def of(cls, what: str, milliseconds: Sequence[float], promise: str = "") -> Wait:
        """These."""
        ordered = sorted(milliseconds)
        return cls(what, len(ordered), statistics.median(ordered), percentile(ordered, 0.99), promise)


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds from the execution of the process; medians.

    Attributes:
        functions: that are deployed.
        count: how often it was measured.
        first_s: until a request is answered: one to a function, where there is none the node's to the nexlet.
        all_s: until the server has everything that it subscribes to.
        bare_s: until a bare responder with as many subscriptions answers a request.
    """

    functions: int
    count: int
    first_s: float
    all_s: float
    bare_s: float

    @property
    def promise(self) -> str:
        """What it is to be at most; "" where nothing is said."""
        return "at most 1 s" if self.functions == 100 else ""


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """All of it."""

    waits: list[Wait]
    startups: list[Startup]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        return [
            "from nothing to an answer",
            *(
                f"  {one.what:46} {one.count:4} times, median {one.median_ms:5.2f} ms, p99 {one.p99_ms:5.2f} ms"
                + (f"  ({one.promise})" if one.promise else "")
                for one in self.waits
            ),
            "the nexlet killed and executed again, with the functions that it had; seconds, medians",
            "  functions   times   first answer   everything subscribed   a bare responder's first answer",
            *(
                f"  {one.functions:9}   {one.count:5}   {one.first_s:12.2f}   {one.all_s:21.2f}   {one.bare_s:31.2f}"
                + (f"  ({one.promise})" if one.promise else "")
                for one in self.startups
            ),
        ]


async def _measure(options: Options) -> ColdStarts:
    waits = [await _worker()]
    async with open_bench(floors=()) as bench:
        waits += await _woken(bench, options.rounds)
        asked = [(await deploy_and_ask(bench, f"deploy-{number}"))[1] for number in range(STARTED // 2)]
        waits.append(Wait.of(DEPLOYED, asked, "median at most 50 ms"))
    startups = []
    with tempfile.TemporaryDirectory(prefix="nexlet-cold-") as state:
        async with open_bench(floors=(), options=("--state-dir", state)) as bench:
            for number in sorted(options.functions or FUNCTIONS):
                startups.append(await _startup(bench, number, options.rounds))
    return ColdStarts(waits, startups)


async def _worker() -> Wait:
    zygote = await Zygote.start()
    try:
        start = await workers.measure_starts(zygote, "strict", STARTED)
    finally:
        await zygote.close()
    if start.missing:
        raise RuntimeError(f"there is no strict worker here: {start.missing}")
    median, p99 = workers.PROMISES["strict"]
    promise = f"at most {median:g} ms, p99 {p99:g} ms"
    return Wait("a strict worker, empty program", start.count, start.median_ms, start.p99_ms, promise)


async def _woken(bench: Bench, rounds: int) -> list[Wait]:
    names = [f"cold-{number}" for number in range(WOKEN)]
    await deploy(bench, names, {"limits": {"idle": "1s"}})
    first: list[float] = []
    second: list[float] = []
    for _ in range(rounds):
        await until_idle(bench)
        for name in names:
            # The second one at once, so that both had the machine in the same state.
            one, other = await asyncio.to_thread(wake, bench.url, (name, name))
            first.append(one)
            second.append(other)
    return [
        Wait.of(WOKEN_FIRST, first, "at most 5 ms, p99 10 ms"),
        Wait.of("the next answer of the same function", second),
    ]


async def _startup(bench: Bench, number: int, rounds: int) -> Startup:
    """With so many functions in all; the bench may have some of them already."""
    await deploy(bench, [f"start-{at}" for at in range(len(bench.deployed), number)])
    # With functions, the first one that was deployed; without, what a node asks.
    subject, payload = ("start-0", PAYLOAD) if number else (subjects.ping_agents(bench.node_id), b"{}")
    # The first one finds what it takes from disk, and how many subscriptions there are once it has begun.
    await asyncio.to_thread(bench.restart_nexlet)
    await _answered(bench, subject, payload)
    subscribed = await _settled_subscriptions(bench.monitoring)
    first, everything, bare = [], [], []
    for at in range(rounds):
        began = await asyncio.to_thread(bench.restart_nexlet)
        await _answered(bench, subject, payload)
        first.append(time.perf_counter() - began)
        await _subscribed(bench, subscribed)
        everything.append(time.perf_counter() - began)
        bare.append(await _bare(bench, f"bare-{number}-{at}", max(1, number)))
    return Startup(number, rounds, statistics.median(first), statistics.median(everything), statistics.median(bare))


async def _bare(bench: Bench, subject: str, number: int) -> float:
    began = time.perf_counter()
    process = spawn("-m", "benchmarks.floor", bench.url, subject, "uvloop", "", str(number))
    try:
        await _answered(bench, f"{subject}.0", PAYLOAD)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def _answered(bench: Bench, subject: str, payload: bytes) -> None:
    """Ask until there is an answer. While nobody listens, the server says so at once."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(nats.errors.NoRespondersError):
                answer = await bench.client.request(subject, payload, timeout=PATIENCE)
                if not (answer.headers and "error" in answer.headers):
                    return
            await asyncio.sleep(LOOK_EVERY)


async def _settled_subscriptions(monitoring: str) -> int:
    """How many there are once that does not change for a second."""
    then = -1
    while (now := await asyncio.to_thread(_subscriptions, monitoring)) != then:
        then = now
        await asyncio.sleep(1)
    return now


async def _subscribed(bench: Bench, number: int) -> None:
    """Return when the server has so many subscriptions."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await asyncio.to_thread(_subscriptions, bench.monitoring) >= number:
                return
            await asyncio.sleep(LOOK_EVERY)


def _subscriptions(monitoring: str) -> int:
    with urllib.request.urlopen(f"{monitoring}/subsz", timeout=30) as answer:
        return int(json.load(answer)["num_subscriptions"])


KIND = Kind(
    "coldstart",
    "a worker, a function scaled to zero, a deployment, the nexlet: until they answer",
    _measure,
    short=False,
    rounds=3,
)
