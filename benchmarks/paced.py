"""What a request waits for at half of the highest rate, alone and beside a neighbour: `python -m benchmarks paced`.

The highest rate of a function is measured first, with 64 requests in flight: with more it is one of large batches,
which an even load never makes. Half of it is then sent evenly, each request when it is due, to the function and to a
bare responder in turn, and a request's time runs from when it was due. Then the same with a neighbour: another function
of the nexlet that computes, prints or allocates as much as it is let, and beside the bare responder another bare one
that does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.bench import ECHO, Bench, open_bench, responder
from benchmarks.busy import WAYS, Busy
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.load import Paced as Run
from benchmarks.spread import Spread, ratios, spread

__all__ = ["KIND", "NEIGHBOURS", "PROMISE", "Beside", "Paced", "Waits"]

NEIGHBOURS: Final = ("burn", "log", "allocate")

PROMISE: Final = 2.0
"""What the p99 beside a neighbour that computes may be at most, as a multiple of the p99 without it."""

IN_FLIGHT: Final = 64
"""With so many the highest rate is measured."""

ALONE: Final = "alone"


@dataclass(frozen=True, slots=True)
class Waits:
    """One responder in one situation: medians over the rounds.

    Attributes:
        p50_ms, p99_ms, p999_ms: from when a request was due until its answer.
        late_p50_ms, late_p99_ms: of that, what passed until the generator had it sent.
        refused: of all requests, the share that was answered with an error: a queue that was full.
        over_alone: the p99 as a multiple of the same round's p99 alone.
        over_alone_mad: their median absolute deviation.
        neighbour: answers a second of the busy one meanwhile.
    """

    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_p50_ms: float
    late_p99_ms: float
    refused: float
    over_alone: float
    over_alone_mad: float
    neighbour: float


@dataclass(frozen=True, slots=True)
class Beside:
    """A situation.

    Attributes:
        neighbour: what the neighbour does; `alone` where there is none.
        ours, floor: a function of the nexlet, and a bare responder on uvloop.
    """

    neighbour: str
    ours: Waits
    floor: Waits


@dataclass(frozen=True, slots=True)
class Paced:
    """All situations.

    Attributes:
        rate: requests a second.
        highest: what our function answered at most.
        highest_mad: the median absolute deviation of that.
    """

    rate: int
    payload: int
    highest: float
    highest_mad: float
    situations: list[Beside]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        lines = [
            f"{self.rate} requests a second of {self.payload} bytes, evenly: half of the {self.highest:.0f} +- "
            f"{self.highest_mad:.0f} that our function answers with {IN_FLIGHT} in flight",
            "  (ms from when a request was due; what the generator itself was late is in it, and stands beside it)",
            f"  {'':8}  {'':5}  {'p50':>7}  {'p99':>7}  {'p99.9':>7}  {'p99 over alone':>14}"
            f"  {'late p50':>8}  {'p99':>6}  {'refused':>7}",
        ]
        for situation in self.situations:
            for name, one in (("ours", situation.ours), ("floor", situation.floor)):
                alone = situation.neighbour == ALONE
                over = "" if alone else f"{one.over_alone:.2f} +- {one.over_alone_mad:.2f}"
                lines.append(
                    f"  {situation.neighbour:8}  {name:5}  {one.p50_ms:>7.2f}  {one.p99_ms:>7.2f}  {one.p999_ms:>7.2f}"
                    f"  {over:>14}  {one.late_p50_ms:>8.2f}  {one.late_p99_ms:>6.2f}  {one.refused:>7.2%}"
                    + ("" if alone else f"  beside {one.neighbour:.0f} a second")
                    + (f"  (at most {PROMISE:g})" if situation.neighbour == "burn" and name == "ours" else "")
                )
        return lines


async def _measure(options: Options) -> Paced:
    """Each situation `rounds` times for about `seconds`, ours and the floor in turn.

    Raises:
        RuntimeError: an answer was an error while nothing was paced.
        TimeoutError: some request was never answered.
    """
    async with open_bench(floors=()) as bench:
        await bench.start_workload("paced", {"source": ECHO, "triggers": ["paced.ours"]})
        for name in NEIGHBOURS:
            request = {"source": WAYS[name].source, "triggers": [f"paced.ours.{name}"]}
            await bench.start_workload(f"paced-{name}", request)
        return await asyncio.to_thread(_paced, bench, options)


def _paced(bench: Bench, options: Options) -> Paced:
    url = bench.url
    with contextlib.ExitStack() as stack:
        stack.enter_context(responder(url, "paced.floor"))
        neighbours: dict[tuple[str, str], Busy] = {}
        for name in NEIGHBOURS:
            way = WAYS[name]
            # As many as the function gets workers (docs/authoring.md, `workers`).
            for _ in range(min(4, os.cpu_count() or 1) if way.computes else 1):
                stack.enter_context(responder(url, f"paced.floor.{name}", way.floor))
            for who in ("ours", "floor"):
                neighbours[who, name] = stack.enter_context(Busy(url, f"paced.{who}.{name}", way.in_flight))
        load = stack.enter_context(Load(url))
        highest = _highest(load, options)
        rate = int(highest.median / 2)
        count = max(1, int(rate * options.seconds))
        runs: dict[tuple[str, str], list[Run]] = {}
        busy: dict[tuple[str, str], list[float]] = {}
        for _ in range(options.rounds):
            for situation in (ALONE, *NEIGHBOURS):
                for who in ("ours", "floor"):
                    neighbour = neighbours.get((who, situation))
                    if neighbour is not None:
                        neighbour.go()
                    run = load.paced(f"paced.{who}", rate=rate, count=count, payload=bytes(options.payload))
                    runs.setdefault((who, situation), []).append(run)
                    busy.setdefault((who, situation), []).append(0.0 if neighbour is None else neighbour.rest())
    situations = [
        Beside(
            situation,
            *(
                _waits(runs[who, situation], runs[who, ALONE], spread(busy[who, situation]).median)
                for who in ("ours", "floor")
            ),
        )
        for situation in (ALONE, *NEIGHBOURS)
    ]
    return Paced(rate, options.payload, highest.median, highest.mad, situations)


def _highest(load: Load, options: Options) -> Spread:
    """Of our function's answers a second."""
    payload, rates, count = bytes(options.payload), [], IN_FLIGHT * 16
    for number in range(options.rounds + 1):
        measured = load.requests("paced.ours", count=count, in_flight=IN_FLIGHT, payload=payload)
        if measured.errors:
            raise RuntimeError(f"{measured.errors} of {measured.answers} answers were errors")
        count = max(IN_FLIGHT * 4, int(measured.rate * min(options.seconds, 0.5)))
        if number:  # the first one warms up
            rates.append(measured.rate)
    return spread(rates)


def _waits(runs: list[Run], alone: list[Run], neighbour: float) -> Waits:
    def median(values: Iterable[float]) -> float:
        return spread(values).median

    over = ratios((run.percentile(0.99) for run in runs), (run.percentile(0.99) for run in alone))
    return Waits(
        p50_ms=median(run.percentile(0.5) for run in runs),
        p99_ms=median(run.percentile(0.99) for run in runs),
        p999_ms=median(run.percentile(0.999) for run in runs),
        late_p50_ms=median(run.late_percentile(0.5) for run in runs),
        late_p99_ms=median(run.late_percentile(0.99) for run in runs),
        refused=sum(run.errors for run in runs) / sum(len(run.latencies) for run in runs),
        over_alone=over.median,
        over_alone_mad=over.mad,
        neighbour=neighbour,
    )


KIND = Kind(
    "paced",
    "what a request waits for at half of the highest rate, alone and beside busy neighbours",
    _measure,
    short=False,
    seconds=0.8,
)
