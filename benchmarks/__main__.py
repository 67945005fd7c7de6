"""`make bench`: every kind in short form; `make bench ARGS="throughput --seconds 10 --json"`: one of them, longer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.bench import environment
from benchmarks.kinds import Figures, Pictured
from benchmarks.origin import document
from benchmarks.registry import KINDS
from nexlet_functions.cli.running import loop_factory


def main() -> None:
    """Parse the command line, measure, print."""
    given = parser().parse_args()
    # The loop that a nexlet has: what is measured in this process would be measured on another one.
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_measure(given, given.kinds or [kind.name for kind in KINDS.values() if kind.short]))


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\nkinds:\n{_listed(short=True)}\n\nand where they are named:\n{_listed(short=False)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("kinds", nargs="*", type=_known, metavar="KIND", help="what to measure; the first list is all")
    made.add_argument("--seconds", type=float, help="of one repetition of one cell (1, or as the kind has it)")
    made.add_argument(
        "--rounds", type=int, help="repetitions of each cell, ours and floors in turn (5, or as the kind has it)"
    )
    made.add_argument("--payload", type=int, default=128, help="bytes of a request (128)")
    made.add_argument(
        "--functions",
        type=int,
        action="append",
        metavar="N",
        help="how many are deployed, where a kind varies that; may be given more than once",
    )
    made.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="where KIND.svg is written, of those that have one"
    )
    made.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return made


def _listed(*, short: bool) -> str:
    return "\n".join(f"  {kind.name:11} {kind.summary}" for kind in KINDS.values() if kind.short is short)


def _known(name: str) -> str:
    if name not in KINDS:
        raise argparse.ArgumentTypeError(f"no such kind: {name}; there are: {', '.join(KINDS)}")
    return name


async def _measure(given: argparse.Namespace, kinds: list[str]) -> None:
    measured: dict[str, tuple[Mapping[str, object], Figures]] = {}
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    if not given.json:
        print("  ".join(f"{name} {value}" for name, value in environment().items()))
    for kind in map(KINDS.__getitem__, dict.fromkeys(kinds)):
        options = kind.options(
            seconds=given.seconds, rounds=given.rounds, payload=given.payload, functions=given.functions or ()
        )
        figures = await kind.measure(options)
        measured[kind.name] = asdict(options), figures
        if given.pictures is not None and isinstance(figures, Pictured):
            await asyncio.to_thread((given.pictures / f"{kind.name}.svg").write_text, figures.picture())
        if not given.json:
            print("", *figures.table(), sep="\n", flush=True)
    if given.json:
        json.dump(document(measured, environment()), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
