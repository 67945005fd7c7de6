"""How long after its deadline an invocation is answered: `python -m benchmarks deadlines`."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench, open_bench
from benchmarks.kinds import Kind, Options

__all__ = ["KIND", "PROMISE_MS", "Deadlines", "measure_on"]

PROMISE_MS = 50.0
"""Milliseconds from the deadline to the requester's 504, at most."""

TIMEOUT_MS = 100.0

LOOPING = """
def handler(event, context):
    while event.text == "loop":
        pass
"""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Milliseconds from the deadline until the requester has its 504: the way there and back is in them.

    Attributes:
        count: how many invocations never ended by themselves.
        median_ms, p99_ms: of these.
    """

    count: int
    median_ms: float
    p99_ms: float

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        return [
            "from the deadline of an invocation that does not end until the requester has its 504",
            f"  {self.count} times, median {self.median_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
            f"  (at most {PROMISE_MS:g} ms)",
        ]


async def measure_on(bench: Bench, *, count: int = 100) -> Deadlines:
    """Have `count` invocations run over their time, one after another, each in a worker that was ready before.

    Raises:
        RuntimeError: one of them was answered something else.
    """
    request = {
        "source": LOOPING,
        "triggers": ["deadline"],
        "limits": {"timeout": f"{TIMEOUT_MS:g}ms"},
        "workers": {"max": 1},
    }
    await bench.start_workload("deadlines", request)
    late = []
    for _ in range(count):
        await bench.client.request("deadline", b"", timeout=10)
        began = time.perf_counter()
        answer = await bench.client.request("deadline", b"loop", timeout=10)
        late.append((time.perf_counter() - began) * 1000 - TIMEOUT_MS)
        code = (answer.headers or {}).get("Nats-Service-Error-Code")
        if code != "504":
            raise RuntimeError(f"an invocation over its time was answered {code}")
    await bench.stop_workload("deadlines")
    late.sort()
    return Deadlines(count, statistics.median(late), late[int(len(late) * 0.99)])


async def _measure(options: Options) -> Deadlines:
    async with open_bench(floors=()) as bench:
        return await measure_on(bench)


KIND = Kind("deadlines", "how long after its deadline an invocation is answered", _measure)
