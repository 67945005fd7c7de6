"""Many functions on one machine: `python -m benchmarks scale`, of other numbers `scale --functions 5000`.

They are deployed a few at a time and left alone until their workers have gone; then it is looked at what they cost that
way, what a first message waits for that finds no worker, how many a second are woken where many are asked at once, and
how many messages are answered when all of them are awake and hit at random, beside a bare responder with as many
subscriptions. With more functions than idle workers are kept (`max_idle_workers`), most of these are first ones, too.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench, open_bench, responder
from benchmarks.fleet import EMPTY, deploy, until_idle, wake, withdraw
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.processes import proportional_mib, together_mib
from benchmarks.spread import percentile, ratios, spread

__all__ = ["KIND", "Scale", "Scales"]

NUMBERS = (10, 100, 1000)
IDLE = "10s"
"""Longer than they wait for their turn again while they are hit at random, in which the bare responder has its own."""

IDLE_TIMES = 60
"""Repetitions' worth of seconds that they are left alone for: what is done every ten seconds is in it several times."""

WOKEN = 200
IN_FLIGHT = 64
HITS = 20_000
"""Of the order in which they are hit, before it begins again."""


@dataclass(frozen=True, slots=True)
class Scale:
    """So many functions.

    Attributes:
        functions: how many.
        start_s: from the first request to start one to the last answer.
        nexlet_mib, all_mib: proportional memory with all of them idle: of the nexlet, and with its other processes;
            None where the kernel does not let us look.
        grown_mib: of that, what came with them: the rest is there without any function.
        idle_percent: of one core, that the nexlet and its other processes use meanwhile.
        idle_s: seconds that was looked at.
        first_p50_ms, first_p99_ms: from a request to its answer where no worker was there.
        woken: functions a second that answer where many are asked at once and have no worker.
        ours, bare: answers a second when all are hit at random, ours and the bare responder's; medians.
        ratio, ratio_mad: of the two, and the median absolute deviation of the repetitions' own ratios.
        errors: of our answers.
    """

    functions: int
    start_s: float
    nexlet_mib: float | None
    all_mib: float | None
    grown_mib: float | None
    idle_percent: float
    idle_s: float
    first_p50_ms: float
    first_p99_ms: float
    woken: float
    ours: float
    bare: float
    ratio: float
    ratio_mad: float
    errors: int

    @property
    def start_ms(self) -> float:
        """Milliseconds for each, a few side by side."""
        return self.start_s / self.functions * 1000


@dataclass(frozen=True, slots=True)
class Scales:
    """One number of functions after another."""

    scales: list[Scale]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) | {"start_ms": one.start_ms} for one in self.scales]

    def table(self) -> list[str]:
        """For people."""
        return [
            "functions that are deployed, left alone until they have no worker, asked one after another, hit at random",
            "  (1,000: at most 300 MiB in all, 10 s to start, 0.5 % of one core)",
            "  functions   start s, ms each   nexlet, all, grown MiB   idle CPU %   first answer p50, p99 ms"
            "   woken/s   at random/s    bare/s   ratio     +-",
            *map(_line, self.scales),
        ]


def _line(one: Scale) -> str:
    memory = ", ".join("-" if mib is None else f"{mib:.1f}" for mib in (one.nexlet_mib, one.all_mib, one.grown_mib))
    return (
        f"  {one.functions:>9,}   {one.start_s:7.2f}, {one.start_ms:7.1f}   {memory:>22}   {one.idle_percent:>10.2f}"
        f"   {one.first_p50_ms:16.2f}, {one.first_p99_ms:6.2f}"
        f"   {one.woken:>7,.0f}   {one.ours:>11,.0f}   {one.bare:>7,.0f}  {one.ratio:>6.3f}  {one.ratio_mad:>5.3f}"
        + (f"   {one.errors} ERRORS" if one.errors else "")
    )


async def _measure(options: Options) -> Scales:
    async with open_bench(floors=()) as bench:
        return Scales([await _scale(bench, number, options) for number in options.functions or NUMBERS if number])


async def _scale(bench: Bench, number: int, options: Options) -> Scale:
    names = [f"scale-{number}-{at}" for at in range(number)]
    _, before, _ = _memory(bench, 0.0)
    started = await deploy(bench, names, {"limits": {"idle": IDLE}})
    await until_idle(bench)
    own, both, grown = _memory(bench, before)
    idle_s = options.seconds * IDLE_TIMES
    used = bench.cpu_seconds()
    await asyncio.sleep(idle_s)
    idle = sum(bench.cpu_seconds()[name] - used[name] for name in ("nexlet", "workers"))
    first = sorted(await asyncio.to_thread(wake, bench.url, names[:WOKEN]))
    await until_idle(bench)
    woken = await asyncio.to_thread(_wake_at_once, bench.url, names)
    floor = f"floor.{number}"
    with responder(bench.url, floor, subjects=number):
        bare = [f"{floor}.{at}" for at in range(number)]
        ours_rates, bare_rates, errors = await asyncio.to_thread(_hit, bench.url, names, bare, options)
    await withdraw(bench, names)
    ratio = ratios(ours_rates, bare_rates)
    return Scale(
        functions=number,
        start_s=started,
        nexlet_mib=own,
        all_mib=both,
        grown_mib=grown,
        idle_percent=100 * idle / idle_s,
        idle_s=idle_s,
        first_p50_ms=statistics.median(first),
        first_p99_ms=percentile(first, 0.99),
        woken=woken,
        ours=spread(ours_rates).median,
        bare=spread(bare_rates).median,
        ratio=ratio.median,
        ratio_mad=ratio.mad,
        errors=errors,
    )


def _memory(bench: Bench, before: float | None) -> tuple[float | None, float | None, float | None]:
    """Of the nexlet, of all its processes, and how much more than before that is."""
    nexlet = bench.processes["nexlet"]
    try:
        own, both = proportional_mib(nexlet), together_mib(nexlet)
    except PermissionError:
        return None, None, None  # they are not dumpable: only root may look
    return own, both, None if before is None else both - before


def _wake_at_once(url: str, names: Sequence[str]) -> float:
    """Ask each function once, many at a time; functions a second."""
    with Load(url) as load:
        measured = load.requests(names, count=len(names), in_flight=IN_FLIGHT, payload=EMPTY)
    if measured.errors:
        raise RuntimeError(f"{measured.errors} of {len(names)} functions answered with an error when they were woken")
    return measured.rate


def _hit(url: str, names: Sequence[str], bare: Sequence[str], options: Options) -> tuple[list[float], list[float], int]:
    """Answers a second of each repetition, ours and the bare responder's in turn, and how many of ours were errors."""
    order = random.Random(len(names)).choices(range(len(names)), k=HITS)
    turns = [[names[at] for at in order], [bare[at] for at in order]]
    rates: list[list[float]] = [[], []]
    errors = 0
    with Load(url) as load:
        # The first ones find out how many make about so many seconds.
        counts = [
            max(
                IN_FLIGHT,
                int(load.requests(turn, count=500, in_flight=IN_FLIGHT, payload=EMPTY).rate * options.seconds),
            )
            for turn in turns
        ]
        for _ in range(options.rounds):
            for turn, count, each in zip(turns, counts, rates, strict=True):
                measured = load.requests(turn, count=count, in_flight=IN_FLIGHT, payload=EMPTY)
                each.append(measured.rate)
                errors += measured.errors
    ours, floor = rates
    return ours, floor, errors


KIND = Kind(
    "scale", "10, 100 and 1,000 functions: what they cost idle, to wake, and hit at random", _measure, short=False
)
