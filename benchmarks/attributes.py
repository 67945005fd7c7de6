"""What the policy costs: the same source, compiled under it and as plain Python, in the same process.

`python -m benchmarks attributes` prints a line for each kind of code.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.kinds import Kind, Options
from nexlet_sandboxes.language import load
from nexlet_sandboxes.program import Program

__all__ = ["CASES", "KIND", "PROMISE", "Attributes"]

PROMISE = 1.5
"""How many times slower the first case, attribute-heavy code, may be at most."""

CASES: dict[str, str] = {
    "attributes": """
class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def moved(self, dx, dy):
        return Point(self.x + dx, self.y + dy)

    def step(self):
        self.x += 1
        self.y = self.x + self.y
        return self.x * self.x + self.y * self.y


class Path:
    def __init__(self):
        self.points = []
        self.total = 0

    def add(self, point):
        self.points.append(point)
        self.total += point.x + point.y


def handler(event, context):
    path = Path()
    point = Point(1, 2)
    for n in range(2000):
        point = point.moved(1, 0)
        point.step()
        path.add(point)
    return path.total
""",
    "reading attributes": """
class Box:
    def __init__(self):
        self.a = 1
        self.b = 2


def handler(event, context):
    box = Box()
    total = 0
    for n in range(10000):
        total += box.a + box.b + n.real
    return total
""",
    "writing attributes from outside": """
class Box:
    pass


def handler(event, context):
    box = Box()
    box.n = 0
    for n in range(10000):
        box.last = n
        box.n += 1
    return box.n
""",
    "items": """
def handler(event, context):
    counts = {}
    for n in range(10000):
        key = n % 100
        counts[key] = counts.get(key, 0) + 1
        counts[key] += 1
    return counts
""",
    "exceptions": """
def handler(event, context):
    missed = 0
    for n in range(5000):
        try:
            try:
                {}["x"]
            except KeyError:
                missed += 1
        finally:
            missed += 1
    return missed
""",
    "text": """
def handler(event, context):
    out = []
    for n in range(5000):
        word = f"item-{n}"
        out.append(word.upper().replace("-", "_").split("_")[0].strip().lower())
    return len("".join(sorted(out)))
""",
}


class _Host:
    builtins: Mapping[str, object] = {}
    modules: Mapping[str, Mapping[str, object]] = {}
    memory_exceeded = False

    def write(self, stream: str, text: str) -> None:
        raise AssertionError("nothing here prints")

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        raise AssertionError("nothing here logs")

    def remaining(self) -> float:
        return 60.0


@dataclass(frozen=True, slots=True)
class Attributes:
    """What each case takes restricted, as a multiple of what the same code takes unrestricted."""

    ratios: dict[str, float]

    def as_json(self) -> dict[str, float]:
        """For `--json`."""
        return self.ratios

    def table(self) -> list[str]:
        """For people."""
        first = next(iter(CASES))
        return [
            "the language layer: time restricted, as a multiple of the same code unrestricted",
            *(
                f"  {name:34} {ratio:.2f}" + (f"  (at most {PROMISE:g})" if name == first else "")
                for name, ratio in self.ratios.items()
            ),
        ]


async def _measure(options: Options) -> Attributes:
    return Attributes({name: await asyncio.to_thread(_ratio, source) for name, source in CASES.items()})


def _ratio(source: str, rounds: int = 40) -> float:
    """Of one call's time: medians, taken in turn so that both see the same noise."""
    plain_globals: dict[str, Any] = {"__name__": "function"}
    exec(compile(source, "function.py", "exec", dont_inherit=True), plain_globals)
    plain: Callable[[object, object], Any] = plain_globals["handler"]
    restricted = load(Program(source=source), _Host()).handler
    if plain(None, None) != restricted(None, None):
        raise AssertionError("the policy changed what the code means")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for taken, function in zip(times, (plain, restricted), strict=True):
            began = time.perf_counter()
            function(None, None)
            taken.append(time.perf_counter() - began)
    return statistics.median(times[1]) / statistics.median(times[0])


KIND = Kind("attributes", "what the restricted language costs, case by case", _measure)
