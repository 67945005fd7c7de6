"""Ours beside functions-framework and FastStream, and all of them beside the bare responder: `make anchors`.

It installs them from the package registry that pip is set up for, into an environment that is thrown away afterwards,
which is why it is apart from all other benchmarks. Each answers a request with its own payload, and they take turns:

- a function of ours, `strict`, on its subject;
- a bare nats-py responder on uvloop;
- a FastStream subscriber on uvloop, no sandbox, and without the line that it logs for each message;
- a functions-framework function behind its own production server (gunicorn, with its number of threads), asked
  over HTTP by as many connections as there are requests in flight, each kept alive. There is no server between, and no
  sandbox: per request it does less than the others, and its protocol costs more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.anchors.http_load import http_requests
from benchmarks.anchors.throwaway import CannotInstall, Throwaway, throwaway
from benchmarks.bench import ECHO, environment, open_bench
from benchmarks.load import Load, Measured
from benchmarks.origin import document
from benchmarks.spread import ratios, spread
from nexlet_functions.cli.running import loop_factory

__all__ = ["Anchor", "Anchors", "main", "parser"]

PACKAGES: Final = ("functions-framework", "faststream[nats]", "uvloop")
NAMES: Final = ("functions-framework", "gunicorn", "faststream")
HERE: Final = Path(__file__).parent
SUBJECT: Final = "anchor.ours"
PATIENCE: Final = 30.0
"""Seconds that one of them has to start."""

Ask = Callable[[int], Measured]
"""Asks so many requests."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One of those that were measured; medians over the rounds.

    Attributes:
        name: of it.
        rate: answers a second.
        p50_ms, p99_ms: of them.
        ours, ours_mad: ours as a multiple of it, and the median absolute deviation of the rounds' own.
        bare, bare_mad: it as a share of the bare responder, and theirs.
    """

    name: str
    rate: float
    p50_ms: float
    p99_ms: float
    ours: float
    ours_mad: float
    bare: float
    bare_mad: float


@dataclass(frozen=True, slots=True)
class Anchors:
    """All of them, ours first."""

    in_flight: int
    payload: int
    anchors: list[Anchor]

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        return [
            f"requests of {self.payload} bytes answered with the same, {self.in_flight} in flight, in turn",
            f"  {'':24}  {'answers/s':>9}  {'p50 ms':>7}  {'p99 ms':>7}  {'of bare nats-py':>15}  {'ours, times':>15}",
            *(
                f"  {one.name:24}  {one.rate:>9.0f}  {one.p50_ms:>7.2f}  {one.p99_ms:>7.2f}"
                f"  {one.bare:>7.2f} +- {one.bare_mad:.2f}  {one.ours:>7.2f} +- {one.ours_mad:.2f}"
                for one in self.anchors
            ),
        ]


async def measure(made: Throwaway, *, in_flight: int, payload: int, seconds: float, rounds: int) -> Anchors:
    """Measure all of them in turn.

    Raises:
        RuntimeError: an answer was an error, or one of them did not start.
    """
    async with open_bench(floors=("uvloop",)) as bench:
        await bench.start_workload("anchor", {"source": ECHO, "triggers": [SUBJECT]})
        return await asyncio.to_thread(_measured, made, bench.url, in_flight, bytes(payload), seconds, rounds)


def _measured(made: Throwaway, url: str, in_flight: int, payload: bytes, seconds: float, rounds: int) -> Anchors:
    with _faststream(made, url, "anchor.faststream"), _functions_framework(made) as port, Load(url) as load:

        def over_nats(subject: str) -> Ask:
            return lambda count: load.requests(subject, count=count, in_flight=in_flight, payload=payload)

        def over_http(count: int) -> Measured:
            return http_requests("127.0.0.1", port, count=count, in_flight=in_flight, payload=payload)

        asked: Mapping[str, Ask] = {
            "nexlet-functions, strict": over_nats(SUBJECT),
            "bare nats-py": over_nats("floor.uvloop"),
            "FastStream": over_nats("anchor.faststream"),
            "functions-framework": over_http,
        }
        # The first ones warm everything up and tell how many make about so many seconds.
        counts = {name: _once(name, ask, in_flight * 32) * seconds for name, ask in asked.items()}
        runs: dict[str, list[Measured]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, ask in asked.items():
                run = ask(max(in_flight * 4, int(counts[name])))
                if run.errors:
                    raise RuntimeError(f"{run.errors} of {run.answers} answers of {name} were errors")
                runs[name].append(run)
    rates = {name: [run.rate for run in each] for name, each in runs.items()}
    ours, bare = rates["nexlet-functions, strict"], rates["bare nats-py"]
    found = []
    for name, each in runs.items():
        to_ours, to_bare = ratios(ours, rates[name]), ratios(rates[name], bare)
        found.append(
            Anchor(
                name=name,
                rate=spread(rates[name]).median,
                p50_ms=spread(run.percentile(0.5) for run in each).median,
                p99_ms=spread(run.percentile(0.99) for run in each).median,
                ours=to_ours.median,
                ours_mad=to_ours.mad,
                bare=to_bare.median,
                bare_mad=to_bare.mad,
            )
        )
    return Anchors(in_flight, len(payload), found)


def _once(name: str, ask: Ask, count: int) -> float:
    """The rate of a first run."""
    run = ask(count)
    if run.errors:
        raise RuntimeError(f"{run.errors} of {run.answers} answers of {name} were errors")
    return run.rate


@contextlib.contextmanager
def _running(command: Sequence[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A program while the block lasts; what it says on standard error is seen."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | variables, cwd=HERE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def _faststream(made: Throwaway, url: str, subject: str) -> Iterator[None]:
    with _running([made.python, str(HERE / "faststream_echo.py"), url, subject]) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("FastStream ended before it was ready")
        yield


@contextlib.contextmanager
def _functions_framework(made: Throwaway) -> Iterator[int]:
    """Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = str(made.bin / "functions-framework")
    source = str(HERE / "function_echo.py")
    command = [program, "--source", source, "--target", "echo", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command) as process:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("functions-framework did not come to listen")
            time.sleep(0.05)
        yield port


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.anchors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--in-flight", type=int, default=64, help="requests under way at a time (64)")
    made.add_argument("--payload", type=int, default=128, help="bytes of a request (128)")
    made.add_argument("--seconds", type=float, default=1.0, help="of one turn (1)")
    made.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    made.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, measure, print. The exit code: 2 where nothing could be installed."""
    given = parser().parse_args(arguments)
    options = {
        "in_flight": given.in_flight,
        "payload": given.payload,
        "seconds": given.seconds,
        "rounds": given.rounds,
    }
    try:
        with throwaway(PACKAGES) as made, asyncio.Runner(loop_factory=loop_factory()) as runner:
            versions = made.versions(NAMES)
            figures = runner.run(measure(made, **options))
    except CannotInstall as error:
        print(
            f"anchors: {' and '.join(NAMES[::2])} cannot be installed here:\n{error}\n"
            "They are measured as they come from a package registry. Is it to be reached (`pip config list`, a proxy)?",
            file=sys.stderr,
        )
        return 2
    if given.json:
        json.dump(document({"anchors": (options, figures)}, environment() | versions), sys.stdout, indent=2)
        print()
    else:
        print("  ".join(f"{name} {value}" for name, value in (environment() | versions).items()), "", sep="\n")
        print(*figures.table(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
