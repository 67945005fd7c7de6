"""One busy function among a hundred: what an idle neighbour's requests take, beside what they take without it.

`python -m benchmarks fairness`. The neighbour is asked one request after another, with a pause between them; the two
are measured in turn, so that what the machine does otherwise is in both. Kinds of busy: a flood of small messages, one
of more than the function has room for, work that takes processor time, and large answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from dataclasses import asdict, dataclass

from benchmarks.bench import ECHO, Bench, open_bench, responder
from benchmarks.busy import WAYS, Busy
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.spread import percentile

__all__ = ["KIND", "WAYS_MEASURED", "AllWays", "Fairness", "Neighbour", "measure_on"]

WAYS_MEASURED = ("flood", "over", "burn", "large")
PAYLOAD = b"x" * 128
PAUSE = 0.002
FUNCTIONS = 100


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An idle responder's answers while another one is busy.

    Attributes:
        p50_ms, p99_ms: with nobody busy: medians over the rounds.
        busy_p50_ms, busy_p99_ms: with the other one busy.
        ratio: of the p99: the median of the rounds' own ratios.
        busy_rate: answers a second that the busy one got meanwhile.
    """

    p50_ms: float
    p99_ms: float
    busy_p50_ms: float
    busy_p99_ms: float
    ratio: float
    busy_rate: float


@dataclass(frozen=True, slots=True)
class Fairness:
    """A way of being busy.

    Attributes:
        kind: of what the busy one does.
        ours: an idle function of the nexlet that runs the busy one.
        floor: a bare responder beside bare responders, each in its own process.
    """

    kind: str
    ours: Neighbour
    floor: Neighbour


@dataclass(frozen=True, slots=True)
class AllWays:
    """Every way that was measured."""

    ways: list[Fairness]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(way) for way in self.ways]

    def table(self) -> list[str]:
        """For people."""
        lines = [
            f"an idle function among {FUNCTIONS}, beside one that is busy: p50 and p99 of its answers, ms",
            "  (floor: bare responders, the idle and the busy ones in processes of their own)",
        ]
        for way in self.ways:
            for name, one in (("ours", way.ours), ("floor", way.floor)):
                lines.append(
                    f"  {way.kind:6} {name:6} alone {one.p50_ms:.2f} {one.p99_ms:.2f}, beside it {one.busy_p50_ms:.2f} "
                    f"{one.busy_p99_ms:.2f}: p99 times {one.ratio:.1f}; busy one: {one.busy_rate:.0f} answers a second"
                )
        return lines


async def _measure(options: Options) -> AllWays:
    async with open_bench(floors=()) as bench:
        return AllWays(await measure_on(bench, seconds=options.seconds, rounds=options.rounds))


async def measure_on(
    bench: Bench, *, seconds: float = 1.0, rounds: int = 5, ways: tuple[str, ...] = WAYS_MEASURED
) -> list[Fairness]:
    """Measure these ways of being busy, idle and busy in turn."""
    names = [f"fair-{number}" for number in range(FUNCTIONS - 1)]
    for name in names:
        await bench.start_workload(name, {"source": ECHO, "triggers": [f"fair.{name}"]})
    found = []
    try:
        for kind in ways:
            in_flight = WAYS[kind].in_flight
            await bench.start_workload("fair-busy", {"source": WAYS[kind].source, "triggers": ["fair.busy"]})
            subjects = [f"fair.{name}" for name in names]
            ours = await asyncio.to_thread(_neighbour, bench.url, subjects, "fair.busy", in_flight, seconds, rounds)
            await bench.stop_workload("fair-busy")
            floor = await asyncio.to_thread(_floor, bench.url, kind, in_flight, seconds, rounds)
            found.append(Fairness(kind, ours, floor))
    finally:
        for name in names:
            await bench.stop_workload(name)
    return found


def _floor(url: str, kind: str, in_flight: int, seconds: float, rounds: int) -> Neighbour:
    # As many as the function gets workers.
    way = WAYS[kind]
    busy = min(4, os.cpu_count() or 1) if way.computes else 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(responder(url, "fair.bare"))
        for _ in range(busy):
            stack.enter_context(responder(url, "fair.bare-busy", way.floor))
        return _neighbour(url, ["fair.bare"], "fair.bare-busy", in_flight, seconds, rounds)


def _neighbour(
    url: str, idle_subjects: list[str], subject: str, in_flight: int, seconds: float, rounds: int
) -> Neighbour:
    idle: list[list[int]] = []
    busy: list[list[int]] = []
    rates: list[float] = []
    with Load(url) as load, Busy(url, subject, in_flight) as other:
        _ask(load, idle_subjects, 0.3)
        for _ in range(rounds):
            idle.append(_ask(load, idle_subjects, seconds))
            other.go()
            busy.append(_ask(load, idle_subjects, seconds))
            rates.append(other.rest())
    return Neighbour(
        p50_ms=statistics.median(_percentile(run, 0.5) for run in idle),
        p99_ms=statistics.median(_percentile(run, 0.99) for run in idle),
        busy_p50_ms=statistics.median(_percentile(run, 0.5) for run in busy),
        busy_p99_ms=statistics.median(_percentile(run, 0.99) for run in busy),
        ratio=statistics.median(_percentile(b, 0.99) / _percentile(i, 0.99) for i, b in zip(idle, busy, strict=True)),
        busy_rate=statistics.median(rates),
    )


def _percentile(latencies: list[int], share: float) -> float:
    """Milliseconds, of sorted nanoseconds."""
    return percentile(latencies, share) / 1e6


def _ask(load: Load, subjects: list[str], seconds: float) -> list[int]:
    """One after another, subject after subject; what each took, in nanoseconds, sorted."""
    latencies: list[int] = []
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        measured = load.requests(subjects[number % len(subjects)], count=1, in_flight=1, payload=PAYLOAD)
        latencies += measured.latencies
        time.sleep(PAUSE)
    latencies.sort()
    return latencies


KIND = Kind("fairness", "a hundred idle functions beside one that is busy", _measure, short=False)
