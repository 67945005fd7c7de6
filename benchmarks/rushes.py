"""How the workers of a function follow its load: rates, waits and how many there are. `python -m benchmarks rushes`.

Each situation begins with a function that has just been deployed and has one worker. What so many workers could do at
best is known where a function waits for a known time; where it computes, the processors are the bound. A function that
answers at once has to be as quick as one that may have a single worker, measured in turn with it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.spread import percentile, spread
from nexlet_functions.control import ControlClient

__all__ = ["KIND", "Rush", "Rushes"]

SOURCE = """
import time

def handler(event, context):
    what, _, seconds = event.text.partition(" ")
    if what == "wait":
        time.sleep(float(seconds))
    elif what == "compute":
        end = time.process_time() + float(seconds)
        while time.process_time() < end:
            pass
    return event.data
"""

PAUSE = 0.2
"""Seconds between two bursts."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A load, and the function that it is for.

    Attributes:
        payload: what each request asks for.
        in_flight: so many at a time; of bursts, so many in each, and a pause after it.
        count: requests in all.
        workers: `workers.max`.
    """

    name: str
    payload: bytes
    in_flight: int
    count: int
    workers: int
    bursts: bool = False


SITUATIONS = (
    Situation("waits 5 ms, 64 at a time", b"wait 0.005", 64, 1600, 8),
    Situation("waits 5 ms, bursts of 64", b"wait 0.005", 64, 640, 8, bursts=True),
    Situation("computes 2 ms, 64 at a time", b"compute 0.002", 64, 1000, 8),
    Situation("answers at once, 512 at a time", b"x" * 128, 512, 60_000, 8),
    Situation("and with one worker at most", b"x" * 128, 512, 60_000, 1),
    Situation("answers at once, bursts of 512", b"x" * 128, 512, 10_240, 8, bursts=True),
)


@dataclass(frozen=True, slots=True)
class Rush:
    """What came of a situation.

    Attributes:
        rate: answers a second, median of the rounds; of bursts, while one was under way.
        rate_mad: the median of how far the rounds are from that.
        p50_ms, p99_ms: of all answers of all rounds.
        first_ms: p99 of the first burst of each round; 0 where there are none.
        workers: how many there were in the end, round by round.
        errors: answers that were none.
    """

    situation: str
    rate: float
    rate_mad: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    workers: list[int]
    errors: int


@dataclass(frozen=True, slots=True)
class Rushes:
    """All of them."""

    rushes: list[Rush]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) for one in self.rushes]

    def table(self) -> list[str]:
        """For people."""
        lines = ["how workers follow the load, from one of them on   answers/s     p50 ms    p99 ms  workers"]
        for one in self.rushes:
            first = f"; p99 of the first burst {one.first_ms:.1f} ms" if one.first_ms else ""
            errors = f"; {one.errors} errors" if one.errors else ""
            workers = f"{min(one.workers)}-{max(one.workers)}"
            lines.append(
                f"  {one.situation:32} {one.rate:16,.0f} ±{one.rate_mad:<7,.0f} {one.p50_ms:8.1f} {one.p99_ms:9.1f} "
                f"{workers:>8}{first}{errors}"
            )
        return lines


async def _measure(options: Options) -> Rushes:
    taken: dict[str, list[_Round]] = {}
    async with open_bench(floors=()) as bench:
        for number in range(options.rounds):
            for situation in SITUATIONS:
                taken.setdefault(situation.name, []).append(await _round(bench, situation, number))
    return Rushes([_rush(name, rounds) for name, rounds in taken.items()])


@dataclass(frozen=True, slots=True)
class _Round:
    rate: float
    latencies: list[int]
    first: list[int]
    workers: int
    errors: int


async def _round(bench: Bench, situation: Situation, number: int) -> _Round:
    name = f"rush-{SITUATIONS.index(situation)}-{number}"
    await bench.start_workload(
        name,
        {
            "source": f"{SOURCE}# {name}\n",
            "triggers": [name],
            "workers": {"max": situation.workers},
            "limits": {"max_pending": 4096, "queue_timeout": "20s"},
        },
    )
    try:
        rate, bursts, errors = await asyncio.to_thread(_ask, bench.url, name, situation)
        (summary,) = await ControlClient(bench.client, namespace="bench", nodes=1).workloads([name])
    finally:
        await bench.stop_workload(name)
    workers, _, _ = (summary.metadata or {})["workers"].partition("/")
    every = sorted(one for burst in bursts for one in burst)
    return _Round(rate, every, bursts[0] if situation.bursts else [], int(workers), errors)


def _ask(url: str, subject: str, situation: Situation) -> tuple[float, list[list[int]], int]:
    """Answers a second, the latencies of each burst, of which there may be one, and errors."""
    each = situation.in_flight if situation.bursts else situation.count
    latencies: list[list[int]] = []
    seconds, errors = 0.0, 0
    with Load(url) as load:
        load.ask(subject, b"")
        for _ in range(situation.count // each):
            measured = load.requests(subject, count=each, in_flight=situation.in_flight, payload=situation.payload)
            latencies.append(measured.latencies)
            seconds += measured.seconds
            errors += measured.errors
            if situation.bursts:
                time.sleep(PAUSE)
    return sum(map(len, latencies)) / seconds, latencies, errors


def _rush(name: str, rounds: list[_Round]) -> Rush:
    rate = spread([one.rate for one in rounds])
    latencies = sorted(one for taken in rounds for one in taken.latencies)
    first = sorted(one for taken in rounds for one in taken.first)
    return Rush(
        name,
        rate.median,
        rate.mad,
        percentile(latencies, 0.5) / 1e6,
        percentile(latencies, 0.99) / 1e6,
        percentile(first, 0.99) / 1e6 if first else 0.0,
        [one.workers for one in rounds],
        sum(one.errors for one in rounds),
    )


KIND = Kind(
    "rushes", "how many workers a load brings about, and what it waits for them", _measure, short=False, rounds=3
)
