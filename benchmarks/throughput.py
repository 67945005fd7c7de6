"""Requests a second beside the floors, interleaved in one run: `python -m benchmarks throughput`."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import asdict, dataclass

from benchmarks.bench import ECHO, FLOORS, Bench
from benchmarks.load import Load, Measured

__all__ = ["Cell", "measure"]

SUBJECT = "bench.echo"


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table: medians over the repetitions, and how far they lay apart.

    Attributes:
        in_flight: requests under way at a time.
        ours, floors: answers a second.
        ratio: ours to the floor on uvloop: the median of the repetitions' own ratios.
        ratio_mad: their median absolute deviation.
        p50_ms, p99_ms: of our answers.
        cpu_us: microseconds of processor time a message, by process.
    """

    in_flight: int
    ours: float
    floors: dict[str, float]
    ratio: float
    ratio_mad: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


async def measure(
    bench: Bench,
    *,
    in_flight: tuple[int, ...] = (1, 64, 512),
    payload: int = 128,
    seconds: float = 1.0,
    rounds: int = 5,
) -> list[Cell]:
    """Measure every number of requests in flight, each `rounds` times for about `seconds`, ours and floors in turn.

    Raises:
        RuntimeError: an answer was an error.
    """
    await bench.start_workload("bench-echo", {"source": ECHO, "triggers": [SUBJECT]})
    cells = []
    try:
        with Load(bench.url) as load:
            for count in in_flight:
                cells.append(await asyncio.to_thread(_cell, bench, load, count, bytes(payload), seconds, rounds))
    finally:
        await bench.stop_workload("bench-echo")
    return cells


def _cell(bench: Bench, load: Load, in_flight: int, payload: bytes, seconds: float, rounds: int) -> Cell:
    subjects = {"ours": SUBJECT, **{loop: f"floor.{loop}" for loop in FLOORS}}
    # How many requests make about so many seconds; the first ones also warm everything up.
    counts = {
        name: max(in_flight * 4, int(_run(load, subject, max(500, in_flight * 8), in_flight, payload).rate * seconds))
        for name, subject in subjects.items()
    }
    runs: dict[str, list[Measured]] = {name: [] for name in subjects}
    spent: dict[str, float] = {}
    for _ in range(rounds):
        for name, subject in subjects.items():
            before = bench.cpu_seconds()
            runs[name].append(_run(load, subject, counts[name], in_flight, payload))
            if name == "ours":
                for process, after in bench.cpu_seconds().items():
                    spent[process] = spent.get(process, 0.0) + after - before[process]
    rates = {name: [one.rate for one in measured] for name, measured in runs.items()}
    ratios = [ours / floor for ours, floor in zip(rates["ours"], rates["uvloop"], strict=True)]
    ratio = statistics.median(ratios)
    messages = sum(one.answers for one in runs["ours"])
    return Cell(
        in_flight=in_flight,
        ours=statistics.median(rates["ours"]),
        floors={loop: statistics.median(rates[loop]) for loop in FLOORS},
        ratio=ratio,
        ratio_mad=statistics.median(abs(one - ratio) for one in ratios),
        p50_ms=statistics.median(one.percentile(0.5) for one in runs["ours"]),
        p99_ms=statistics.median(one.percentile(0.99) for one in runs["ours"]),
        cpu_us={name: seconds / messages * 1e6 for name, seconds in spent.items() if not name.startswith("floor")},
    )


def _run(load: Load, subject: str, count: int, in_flight: int, payload: bytes) -> Measured:
    measured = load.requests(subject, count=count, in_flight=in_flight, payload=payload)
    if measured.errors:
        raise RuntimeError(f"{measured.errors} of {measured.answers} answers on {subject} were errors")
    return measured
