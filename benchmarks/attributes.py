"""What the policy costs: the same source, compiled under it and as plain Python, in the same process.

`python -m benchmarks.attributes` prints a line for each kind of code. The first is what the promise is about:
attribute-heavy code at most 1.5 times slower.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from nexlet_sandboxes.language import load
from nexlet_sandboxes.program import Program

__all__ = ["CASES", "main", "measure"]

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


def measure(source: str, rounds: int = 40) -> tuple[float, float]:
    """Seconds for one call, plain and under the policy: medians, taken in turn so that both see the same noise."""
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
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    """Print each case; 1 if the first is over its promise."""
    slowest = 0.0
    for number, (name, source) in enumerate(CASES.items()):
        plain, restricted = measure(source)
        ratio = restricted / plain
        if number == 0:
            slowest = ratio
        print(f"{name:34} {plain * 1e6:8.0f} us plain  {restricted * 1e6:8.0f} us restricted  {ratio:5.2f} x")
    return int(slowest > 1.5)


if __name__ == "__main__":
    sys.exit(main())
