"""`make performance`: measure what the documents tell, keep it in `results.json`, and write it into them.

Without arguments every kind that they show is measured, in about twelve minutes; the machine is to do nothing else.
With `--kinds` some are, with `--from` none: figures that were measured already are taken, of each kind the newest.
Whatever was measured is kept as soon as it is, and the documents with it: who interrupts it loses the kind that is
under way. `--from benchmarks/results.json` writes the documents alone, after their text was changed.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Final

import nats.errors

from benchmarks import record
from benchmarks.bench import ROOT
from benchmarks.kinds import Figures, Options
from benchmarks.performance import drawn, page, readme
from benchmarks.performance.form import FORMS
from benchmarks.performance.results import FILE, BadResults, Results, Run
from benchmarks.performance.targets import ASKED, PROMISED, REASONS, judged, reasons
from benchmarks.performance.told import Malformed
from benchmarks.registry import KINDS
from nexlet_functions.cli.running import loop_factory
from nexlet_functions.errors import NexletFunctionsError

__all__ = ["documents", "main", "parser"]

README: Final = Path("README.md")
PAGE: Final = Path("docs/performance.md")
GROWTH: Final = Path("docs/pictures/growth.svg")
RECORD: Final = Path("docs/pictures/record.svg")

_FAILURES: Final = (OSError, RuntimeError, nats.errors.Error, NexletFunctionsError, subprocess.SubprocessError)
"""How it ends where a kind cannot be measured: something did not start, ended, or did not answer. Not what is a bug."""


def documents(results: Results, entries: Sequence[record.Entry], root: Path = ROOT) -> Mapping[Path, str]:
    """Every document that shows these figures, by its path below `root`, as it is to be.

    Raises:
        Malformed: there are figures that lack one.
        page.Unknown, ValueError: a text has no place for them, or one that nothing fills.
    """
    text = page.rendered(page.TEMPLATE.read_text(), reasons(REASONS.read_text()), results, entries)
    made = {README: readme.inserted((root / README).read_text(), results), PAGE: text, RECORD: drawn.record(entries)}
    growth = drawn.growth(results)
    return made if growth is None else {**made, GROWTH: growth}


def main(arguments: Sequence[str] | None = None, *, file: Path = FILE, root: Path = ROOT) -> int:
    """Measure, keep, write. The exit code: 1 where a kind could not be measured, 2 where a file cannot be used, 130
    where it was interrupted.

    Args:
        file: where results are kept.
        root: of the documents.
    """
    given = parser().parse_args(arguments)
    try:
        results = _of_this_form(Results.read(file), root) if file.exists() else Results()
        for name in given.taken:
            taken = Results.read(name)
            _usable(taken, name, root)
            results = results.merged(taken)
    except BadResults as error:
        print(f"performance: {error}", file=sys.stderr)
        return 2
    kinds = given.kinds if given.kinds is not None else () if given.taken else tuple(FORMS)
    _keep(results, file, root)
    try:
        failed = _measured(results, kinds, given, file, root)
    except KeyboardInterrupt:
        print("performance: interrupted; what was measured before is kept", file=sys.stderr)
        return 130
    for name, why in failed.items():
        print(f"performance: {name} could not be measured: {why}", file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--from",
        dest="taken",
        action="append",
        type=Path,
        default=[],
        metavar="FILE.json",
        help="take what --json of a benchmark printed, or another results.json; may be given more than once",
    )
    made.add_argument("--kinds", type=_kinds, metavar="A,B", help=f"measure these: {', '.join(FORMS)}")
    made.add_argument("--seconds", type=float, help="of one repetition (as benchmarks/performance/form.py has it)")
    made.add_argument("--rounds", type=int, help="repetitions (as benchmarks/performance/form.py has it)")
    return made


def _kinds(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in FORMS:
            raise argparse.ArgumentTypeError(f"the documents show no '{name}', but: {', '.join(FORMS)}")
    return names


def _of_this_form(results: Results, root: Path) -> Results:
    """Without the kinds that tell other figures by now than were kept; they are to be measured anew.

    Raises:
        BadResults: it is a text that does not fit.
    """
    for name in [name for name, _ in results.kinds()]:
        try:
            _usable(results.only(name), FILE, root)
        except BadResults as error:
            if not isinstance(error.__cause__, Malformed):
                raise
            print(f"performance: {name} is kept in another form, and left out: {error.__cause__}", file=sys.stderr)
            results = results.without(name)
    return results


def _usable(results: Results, file: Path, root: Path) -> None:
    """Look whether everything that is shown is there.

    Raises:
        BadResults: something is missing.
    """
    try:
        documents(results, record.read(), root)
    except Malformed as error:
        raise BadResults(f"{file} lacks what the documents show: {error}; measure that kind anew") from error
    except ValueError as error:
        raise BadResults(str(error)) from error


def _keep(results: Results, file: Path, root: Path) -> None:
    results.write(file)
    for path, text in documents(results, record.read(), root).items():
        (root / path).write_text(text)


def _measured(
    results: Results, kinds: Sequence[str], given: argparse.Namespace, file: Path, root: Path
) -> dict[str, str]:
    """Measure these, one after another, and keep each; what could not be measured, and why."""
    if not kinds:
        _told(results)
        return {}
    run, failed = Run.begun(), dict[str, str]()
    for at, name in enumerate(kinds, 1):
        form = FORMS[name]
        options = KINDS[name].options(
            seconds=form.seconds if given.seconds is None else given.seconds,
            rounds=form.rounds if given.rounds is None else given.rounds,
            functions=form.functions,
        )
        print(f"performance: {at} of {len(kinds)}: {name}, about {form.about_s} s", flush=True)
        began = time.monotonic()
        try:
            figures = _tried_twice(name, options)
        except _FAILURES as error:
            failed[name] = str(error) or type(error).__name__
            continue
        run = run.having(name, options, figures)
        results = results.merged(Results([run]))
        _keep(results, file, root)
        print(*figures.table(), f"  took {time.monotonic() - began:.0f} s", sep="\n", flush=True)
    _told(results)
    return failed


def _tried_twice(name: str, options: Options) -> Figures:
    try:
        return _measure(name, options)
    except _FAILURES as error:
        print(f"performance: {name} could not be measured: {error}; once more", flush=True)
        return _measure(name, options)


def _measure(name: str, options: Options) -> Figures:
    # The loop that a nexlet has: what is measured in this process would be measured on another one.
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_awaited(KINDS[name].measure(options)))


async def _awaited(measurement: Awaitable[Figures]) -> Figures:
    return await measurement


def _told(results: Results) -> None:
    """Say what is met and what is not."""
    for verdict in [*judged(ASKED, results), *judged(PROMISED, results)]:
        if verdict.figure is not None:
            asked = f"{verdict.target.what}: {verdict.target.asked()}"
            print(f"performance: {asked}; seen {verdict.seen()}, {verdict.word()}")


if __name__ == "__main__":
    # Ended by another program, it ends what it started as well, and keeps what it has.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
