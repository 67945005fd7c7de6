"""Requests a second beside the floors, interleaved in one run: `python -m benchmarks throughput`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from benchmarks.bench import ECHO, FLOORS, Bench, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load, Measured
from benchmarks.spread import ratios, spread

__all__ = ["IN_FLIGHT", "KIND", "Cell", "Throughput"]

SUBJECT = "bench.echo"
IN_FLIGHT = (1, 8, 64, 512)


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


@dataclass(frozen=True, slots=True)
class Throughput:
    """A cell for each number of requests in flight, all with a payload of so many bytes."""

    payload: int
    cells: list[Cell]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(cell) for cell in self.cells]

    def table(self) -> list[str]:
        """For people."""
        return [
            f"request/reply, {self.payload} bytes, headers and events on; ratio to a bare nats-py responder on uvloop",
            f"  {'in flight':>9}  {'ours/s':>8}  {'uvloop/s':>8}  {'asyncio/s':>9}"
            f"  {'ratio':>6}  {'+-':>5}  {'p50 ms':>7}  {'p99 ms':>7}",
            *(
                f"  {cell.in_flight:>9}  {cell.ours:>8.0f}"
                f"  {cell.floors['uvloop']:>8.0f}  {cell.floors['asyncio']:>9.0f}"
                f"  {cell.ratio:>6.2f}  {cell.ratio_mad:>5.2f}  {cell.p50_ms:>7.2f}  {cell.p99_ms:>7.2f}"
                for cell in self.cells
            ),
            *(
                f"  CPU a message at {cell.in_flight} in flight, microseconds: "
                + ", ".join(f"{name} {us:.1f}" for name, us in cell.cpu_us.items())
                for cell in self.cells
            ),
        ]


async def _measure(options: Options) -> Throughput:
    """Every number of requests in flight, each `rounds` times for about `seconds`, ours and floors in turn.

    Raises:
        RuntimeError: an answer was an error.
    """
    async with open_bench() as bench:
        await bench.start_workload("bench-echo", {"source": ECHO, "triggers": [SUBJECT]})
        with Load(bench.url) as load:
            payload = bytes(options.payload)
            cells = [
                await asyncio.to_thread(_cell, bench, load, count, payload, options.seconds, options.rounds)
                for count in IN_FLIGHT
            ]
    return Throughput(options.payload, cells)


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
    ratio = ratios(rates["ours"], rates["uvloop"])
    messages = sum(one.answers for one in runs["ours"])
    return Cell(
        in_flight=in_flight,
        ours=spread(rates["ours"]).median,
        floors={loop: spread(rates[loop]).median for loop in FLOORS},
        ratio=ratio.median,
        ratio_mad=ratio.mad,
        p50_ms=spread(one.percentile(0.5) for one in runs["ours"]).median,
        p99_ms=spread(one.percentile(0.99) for one in runs["ours"]).median,
        cpu_us={name: seconds / messages * 1e6 for name, seconds in spent.items() if not name.startswith("floor")},
    )


def _run(load: Load, subject: str, count: int, in_flight: int, payload: bytes) -> Measured:
    measured = load.requests(subject, count=count, in_flight=in_flight, payload=payload)
    if measured.errors:
        raise RuntimeError(f"{measured.errors} of {measured.answers} answers on {subject} were errors")
    return measured


KIND = Kind("throughput", "requests a second at 1, 8, 64 and 512 in flight, beside bare responders", _measure)
