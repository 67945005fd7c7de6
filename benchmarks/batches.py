"""What it gives a function to take many events at a call: `python -m benchmarks batches`.

The same work twice, one message a call and in batches, asked in turn: a write to a bucket, once for each message or
once for all of a batch, and an echo, which has nothing to share. One worker each, so that nothing else makes up for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from nats.js.api import KeyValueConfig

from benchmarks.bench import ECHO, Bench, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.spread import ratios, spread

__all__ = ["KIND", "Batched", "Pair"]

BATCH: Final = 64
IN_FLIGHT: Final = 256

WORK: Final = {
    "a write to a bucket": (
        "def handler(event, context):\n    context.kv('bench').put('last', event.data)\n",
        "def handler(events, context):\n    context.kv('bench').put('last', events[-1].data)\n",
    ),
    "an echo": (ECHO, "def handler(events, context):\n    return [event.data for event in events]\n"),
}
"""What is done, a message at a time and in batches."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of work; medians over the repetitions.

    Attributes:
        work: which.
        single, batched: messages a second.
        gain, gain_mad: batched by single, and the median absolute deviation of the repetitions' own.
        single_cpu_us, batched_cpu_us: microseconds of processor time a message, of the nexlet and the worker.
    """

    work: str
    single: float
    batched: float
    gain: float
    gain_mad: float
    single_cpu_us: float
    batched_cpu_us: float


@dataclass(frozen=True, slots=True)
class Batched:
    """Each kind of work."""

    pairs: Sequence[Pair]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) for one in self.pairs]

    def table(self) -> list[str]:
        """For people."""
        lines = [
            f"a message a call and up to {BATCH}, {IN_FLIGHT} in flight, one worker",
            f"  {'':20}  {'single/s':>9}  {'batched/s':>9}  {'gain':>6}  {'+-':>5}  {'CPU us':>7}  {'batched':>7}",
        ]
        lines += [
            f"  {one.work:20}  {one.single:>9.0f}  {one.batched:>9.0f}  {one.gain:>6.2f}  {one.gain_mad:>5.2f}"
            f"  {one.single_cpu_us:>7.1f}  {one.batched_cpu_us:>7.1f}"
            for one in self.pairs
        ]
        return lines


async def _measure(options: Options) -> Batched:
    async with open_bench(floors=(), jetstream=True) as bench:
        await bench.client.jetstream().create_key_value(KeyValueConfig(bucket="bench"))
        return Batched([await _pair(bench, work, sources, options) for work, sources in WORK.items()])


async def _pair(bench: Bench, work: str, sources: tuple[str, str], options: Options) -> Pair:
    subjects = ("single", "batched")
    for subject, source, batch in zip(subjects, sources, (1, BATCH), strict=True):
        request = {
            "source": source,
            "batch": batch,
            "triggers": [subject],
            "grants": {"kv": {"bench": "write"}},
            "workers": {"min": 1, "max": 1},
        }
        await bench.start_workload(subject, request)
    try:
        return await asyncio.to_thread(_in_turn, bench, work, subjects, options)
    finally:
        for subject in subjects:
            await bench.stop_workload(subject)


def _in_turn(bench: Bench, work: str, subjects: Sequence[str], options: Options) -> Pair:
    rates: tuple[list[float], list[float]] = ([], [])
    costs: tuple[list[float], list[float]] = ([], [])
    with Load(bench.url) as load:
        for number in range(options.rounds + 1):
            for subject, rate, cost in zip(subjects, rates, costs, strict=True):
                before, until = bench.cpu_seconds(), time.perf_counter() + options.seconds
                measured = load.requests(
                    subject,
                    count=1 << 40,
                    in_flight=IN_FLIGHT,
                    payload=bytes(options.payload),
                    over=lambda until=until: time.perf_counter() > until,  # type: ignore[misc]  # bound, not given
                )
                after = bench.cpu_seconds()
                if measured.errors:
                    raise RuntimeError(f"{work}: {measured.errors} of {measured.messages} answers are errors")
                if number:  # the first of each warms up
                    rate.append(measured.rate)
                    spent = sum(after[name] - before[name] for name in ("nexlet", "workers"))
                    cost.append(spent / measured.messages * 1e6)
    single, batched = rates
    gain = ratios(batched, single)
    return Pair(
        work,
        spread(single).median,
        spread(batched).median,
        gain.median,
        gain.mad,
        spread(costs[0]).median,
        spread(costs[1]).median,
    )


KIND = Kind("batches", "a message a call, beside up to 64", _measure, short=False, seconds=0.5)
