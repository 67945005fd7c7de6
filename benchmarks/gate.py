"""The regression gate: `make gate`, which CI runs; `make bench-record` makes the record anew that it holds us to.

Each cell is measured in pairs, ours and a bare nats-py responder on uvloop in turn, so that both have the same machine;
what is judged is the median of the pairs' ratios, beside the floor that `record.json` has for the cell (see `judge`). A
cell that is under it is measured once more, three times as long, with every process started anew, and only what is
under it again is red: another program that took the machine for a second is no regression.

The record is made under several conditions: with the machine to ourselves, beside busy programs, on one core. Its
floors lie below what was seen under any of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from benchmarks import record
from benchmarks.bench import open_bench
from benchmarks.cells import Missing, Shape, measure_cell
from benchmarks.judge import Verdict
from benchmarks.spread import Spread
from nexlet_functions.cli.running import loop_factory

__all__ = ["AGAIN", "CELLS", "CONDITIONS", "gate", "main", "measure", "parser"]

SECONDS: Final = 0.3
"""Of each half of a pair, about: long enough for thousands of messages, also where each is waited for."""

AGAIN: Final = 3
"""How many times as many pairs a cell gets that was under its floor."""

CELLS: Final[Mapping[str, Shape]] = {
    "1 in flight": Shape(1),
    "64 in flight": Shape(64),
    "512 in flight": Shape(512),
    "64 in flight, 4 KiB": Shape(64, payload=4096),
}
"""What is measured: the window that waits for each answer, two that batch, and one where bytes are moved.

Not the way over nats-py's public interface alone: on a crowded machine its ratio was seen to differ by a factor of 2.5
from run to run, so that a floor for it would say nothing.
"""

Measure = Callable[[Collection[str], int], Mapping[str, Spread]]
"""Measures the cells of these names with so many pairs each: the median of the pairs' ratios, and their deviation."""


def gate(entry: record.Entry, measured: Measure, *, rounds: int) -> list[Verdict]:
    """Measure, judge, measure again what is under its floor; tell about it; what is red in the end.

    Raises:
        KeyError: the record has no such cell.
    """
    red = [one.cell for one in _judged(entry, measured, CELLS, rounds) if one.red]
    if not red:
        return []
    print(f"gate: under its floor: {', '.join(red)}; again, with {rounds * AGAIN} pairs and new processes", flush=True)
    return [one for one in _judged(entry, measured, red, rounds * AGAIN) if one.red]


def _judged(entry: record.Entry, measured: Measure, cells: Collection[str], rounds: int) -> list[Verdict]:
    verdicts = [Verdict(name, entry.cells[name].floor, seen) for name, seen in measured(cells, rounds).items()]
    for one in verdicts:
        verdict = "RED" if one.red else "ok" if one.least > 0 else "nothing: its pairs differ too much"
        print(
            f"gate: {one.cell:20} {one.seen} of the bare responder, recorded {entry.cells[one.cell].usual:.2f}; "
            f"floor {one.floor:.2f}, red under {max(one.least, 0):.2f}: {verdict}",
            flush=True,
        )
    return verdicts


def measure(cells: Collection[str], rounds: int, *, seconds: float = SECONDS) -> dict[str, Spread]:
    """Measure these cells beside the bare responder, with a server, a nexlet and all else started for it.

    Args:
        cells: names of `CELLS`.
        rounds: pairs of each.
        seconds: that each half of a pair takes, about.

    Raises:
        RuntimeError: an answer was an error, or something did not start.
        TimeoutError: nothing came for twenty seconds.
    """

    async def measured() -> dict[str, Spread]:
        found = {}
        async with open_bench(floors=("uvloop",)) as bench:
            for name in cells:
                cell = await measure_cell(bench, CELLS[name], seconds=seconds, rounds=rounds, loops=("uvloop",))
                if isinstance(cell, Missing):
                    raise RuntimeError(cell.reason)
                found[name] = Spread(cell.ratio, cell.ratio_mad)
        return found

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(measured())


@contextlib.contextmanager
def _crowded(programs: int = 3) -> Iterator[None]:
    """Beside so many programs that only compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
        for one in busy:
            one.wait()


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """With this process, and all that it starts, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


CONDITIONS: Final[Mapping[str, tuple[int, Callable[[], contextlib.AbstractContextManager[None]]]]] = {
    "alone": (3, contextlib.nullcontext),
    "beside three busy loops": (3, _crowded),
    "on one core": (2, _on_one_core),
}
"""Under what the record is made, and how often: each run starts everything anew. The first is the usual one."""


def made_anew(rounds: int, seconds: float) -> record.Entry:
    """Measure every cell under every condition."""
    seen: dict[str, dict[str, list[Spread]]] = {name: {} for name in CELLS}
    for condition, (runs, within) in CONDITIONS.items():
        for _ in range(runs):
            with within():
                found = measure(CELLS, rounds, seconds=seconds)
            for name, ratio in found.items():
                seen[name].setdefault(condition, []).append(ratio)
            print(f"record: {condition}: {', '.join(f'{one.median:.2f}' for one in found.values())}", flush=True)
    return record.Entry.of(seen)


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=5, help="pairs of each cell (5)")
    made.add_argument("--seconds", type=float, default=SECONDS, help=f"of each half of a pair ({SECONDS:g})")
    made.add_argument("--record", action="store_true", help="make the record anew: some minutes, machine left alone")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold this code to the record, or make the record anew. The exit code.

    Raises:
        RuntimeError, OSError: it could not be measured, twice.
    """
    given = parser().parse_args(arguments)
    if given.record:
        return _record(given.rounds, given.seconds)
    entry = record.read()[-1]
    print(f"gate: held to the record of {entry.date}, commit {entry.commit}", flush=True)

    def measured(cells: Collection[str], rounds: int) -> dict[str, Spread]:
        try:
            return measure(cells, rounds, seconds=given.seconds)
        except (OSError, RuntimeError) as error:  # TimeoutError is an OSError
            print(f"gate: could not be measured: {error}; once more", flush=True)
            return measure(cells, rounds, seconds=given.seconds)

    if not gate(entry, measured, rounds=given.rounds):
        return 0
    print(
        "gate: RED. What does a message cost that it did not? `make bench ARGS=throughput` has its processor time."
        "\nIf it is meant to cost that: `make bench-record`, with the machine left alone, and say why in the commit.",
        flush=True,
    )
    return 1


def _record(rounds: int, seconds: float) -> int:
    entries = record.read() if record.FILE.exists() else []
    entry = made_anew(rounds, seconds)
    before = entries[-1].cells if entries else {}
    for name, cell in entry.cells.items():
        was = f", was {before[name].floor:.2f}" if name in before else ""
        print(f"record: {name:28} {cell.usual:.2f} alone, floor {cell.floor:.2f}{was}")
    record.write([*entries, entry])
    print(
        "record: written to benchmarks/record.json; "
        'make performance ARGS="--from benchmarks/results.json" has the documents show it'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
