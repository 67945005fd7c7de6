"""Functions that are busy, each in a way of its own, and a process that keeps one at it.

`python -m benchmarks.busy URL SUBJECT IN_FLIGHT` says `ready`, and then reads lines: `go` has it ask without a pause
until the next line, and it answers that one with how many answers a second there were. It is a process of its own
because another user's load would be.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import Load

__all__ = ["WAYS", "Busy", "Way"]

PAYLOAD: Final = b"x" * 128


@dataclass(frozen=True, slots=True)
class Way:
    """A way of being busy.

    Attributes:
        source: of the function.
        in_flight: how many requests it is kept at.
        floor: the same as a kind of bare responder (see `floor`); "" echoes.
        computes: whether the function gets a worker for each processor; as many are the responders of the floor.
    """

    source: str
    in_flight: int
    floor: str = ""
    computes: bool = False


WAYS: Final[dict[str, Way]] = {
    "flood": Way("def handler(event, context):\n    return event.data\n", 512),
    "over": Way("def handler(event, context):\n    return event.data\n", 6000),
    "burn": Way(
        """
def handler(event, context):
    total = 0
    for n in range(200_000):
        total += n
    return str(total)
""",
        16,
        "burn",
        computes=True,
    ),
    "large": Way("def handler(event, context):\n    return b'x' * 200_000\n", 32, "large"),
    "log": Way(
        """
def handler(event, context):
    for number in range(200):
        print(f"line {number} of many", "x" * 80)
    return "logged"
""",
        16,
        "log",
    ),
    "allocate": Way(
        """
def handler(event, context):
    return str(len(b"x" * 32_000_000))
""",
        16,
        "allocate",
        computes=True,
    ),
}
"""A flood of small messages, and one of more than a function has room for; work that takes processor time, large
answers, more output than is let through, memory."""


class Busy:
    """The process; a context manager. Nothing is asked until `go`."""

    def __init__(self, url: str, subject: str, in_flight: int) -> None:
        """Nothing is started yet."""
        self._command = [sys.executable, "-m", "benchmarks.busy", url, subject, str(in_flight)]

    def __enter__(self) -> Busy:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
        )
        self._heard()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def go(self) -> None:
        """Begin to ask; the first answers are there when this returns.

        Raises:
            RuntimeError: it has ended.
        """
        self._say("go")
        self._heard()

    def rest(self) -> float:
        """No more, and how many answers a second there were. What was asked has been answered.

        Raises:
            RuntimeError: it has ended.
        """
        self._say("rest")
        return float(self._heard())

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("what was to keep a neighbour busy has ended")
        return line


def _serve(url: str, subject: str, in_flight: int) -> None:
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    with Load(url) as load:
        print("ready", flush=True)
        while lines.get():
            load.requests(subject, count=in_flight, in_flight=in_flight, payload=PAYLOAD)
            print("busy", flush=True)
            measured = load.requests(
                subject,
                count=sys.maxsize,
                in_flight=in_flight,
                payload=PAYLOAD,
                over=lambda: not lines.empty(),
            )
            if not lines.get():
                return
            print(measured.rate, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
