"""What an author waits for: `check`, a new function's tests, TAB. `python -m benchmarks desk`."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.kinds import Kind, Options

__all__ = ["KIND", "PROMISES_S", "Desk", "Waited"]

PROMISES_S = {"check, 200 lines": 0.3, "init, and its tests": 2.0}
"""Seconds that these take at most, at the median, on a machine that does nothing else."""

_HANDLER = '''
def rule_{number}(order):
    """What rule {number} adds."""
    total = order.get("total", 0)
    if total > {number}:
        return {{"rule": {number}, "adds": total * {number} / 100}}
    return {{"rule": {number}, "adds": 0}}

'''
_LINES = 200


@dataclass(frozen=True, slots=True)
class Waited:
    """How long one thing takes.

    Attributes:
        what: it is.
        count: how often it was measured.
        median_s, worst_s: seconds until it ended.
        cpu_s: seconds of processor time, of all its processes; the median.
    """

    what: str
    count: int
    median_s: float
    worst_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything measured here."""

    waits: tuple[Waited, ...]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(each) for each in self.waits]

    def table(self) -> list[str]:
        """For people."""
        lines = ["at an author's desk, a process each: seconds until it ends, and of processor time"]
        for each in self.waits:
            promise = PROMISES_S.get(each.what)
            lines.append(
                f"  {each.what:22} {each.count} times, median {each.median_s:.2f}, worst {each.worst_s:.2f}, "
                f"processor {each.cpu_s:.2f}" + (f"  (at most {promise:g})" if promise is not None else "")
            )
        return lines


async def _measure(options: Options) -> Desk:
    return await asyncio.to_thread(_wait_for_all, 9)


def _wait_for_all(count: int) -> Desk:
    """Each command `count` times, one after another, after one that nobody counts: it may compile modules."""
    # As on an author's machine: Python keeps what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nexfn = [sys.executable, str(Path(sysconfig.get_path("scripts")) / "nexfn")]
    with tempfile.TemporaryDirectory(prefix="nexlet-desk-") as folder:
        work = Path(folder)
        subprocess.run([*nexfn, "init", "demo"], cwd=work, check=True, stdout=subprocess.DEVNULL, env=environment)
        shutil.copytree(work / "demo", work / "long")
        (work / "long" / "function.py").write_text(_long_function())
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        offered = {"_NEXFN_COMPLETE": "complete_bash", "COMP_WORDS": "nexfn check ", "COMP_CWORD": "2"}
        asked: list[tuple[str, Sequence[str], Path, Mapping[str, str]]] = [
            ("check, 200 lines", [*nexfn, "check", "long"], work, {}),
            ("check, a new function", [*nexfn, "check", "demo"], work, {}),
            ("init, and its tests", pytest, work / "demo", {}),
            ("invoke --local", [*nexfn, "invoke", "--local", "demo", "--event", "ada"], work, {}),
            ("TAB for a folder", nexfn, work, offered),
        ]
        return Desk(
            tuple(_wait(what, command, cwd, {**environment, **more}, count) for what, command, cwd, more in asked)
        )


def _long_function() -> str:
    lines = ["from nexlet_functions.authoring import Context, Event", "", ""]
    number = 0
    while len(lines) < _LINES - 6:
        lines += _HANDLER.format(number=number).splitlines()
        number += 1
    rules = ", ".join(f"rule_{each}" for each in range(number))
    lines += ["", "", "def handler(event: Event, context: Context):"]
    lines += [f"    return [rule(event.json()) for rule in [{rules}]]", ""]
    return "\n".join(lines)


def _wait(what: str, command: Sequence[str], cwd: Path, environment: Mapping[str, str], count: int) -> Waited:
    took, cpu = [], []
    for number in range(count + 1):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=environment)
        seconds, after = time.perf_counter() - began, os.times()
        if number:
            took.append(seconds)
            cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return Waited(what, count, statistics.median(took), max(took), statistics.median(cpu))


KIND = Kind("desk", "what an author waits for: check, a new function's tests, TAB", _measure)
