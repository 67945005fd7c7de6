"""How long a start takes, one after another and side by side: `python -m benchmarks deploys`."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass

from benchmarks.bench import TEN_LINES, Bench, open_bench
from benchmarks.kinds import Kind, Options

__all__ = ["KIND", "Deploys", "deploy_and_ask", "measure_on"]


@dataclass(frozen=True, slots=True)
class Deploys:
    """Milliseconds from STARTWORKLOAD to its answer, and seconds for many at once.

    Attributes:
        count: how many, one after another.
        median_ms, worst_ms: of these.
        first_ms: median from STARTWORKLOAD to the function's first answer.
        together: how many side by side.
        together_s: until the last of them was answered.
        answered_at_once: of these, how many answered a request that was sent the moment the start's answer came.
    """

    count: int
    median_ms: float
    worst_ms: float
    first_ms: float
    together: int
    together_s: float
    answered_at_once: int

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        return [
            "STARTWORKLOAD to its answer, a ten-line function",
            f"  one after another: {self.count}, median {self.median_ms:.1f} ms, worst {self.worst_ms:.1f} ms, "
            f"to the function's first answer {self.first_ms:.1f} ms",
            f"  side by side: {self.together} in {self.together_s:.2f} s, "
            f"{self.answered_at_once} of them answered a request sent with the start's answer",
        ]


async def measure_on(bench: Bench, *, count: int = 50, together: int = 100) -> Deploys:
    """Deploy a ten-line function `count` times, then `together` of them side by side."""
    taken, first = zip(*[await deploy_and_ask(bench, f"deploy-{number}") for number in range(count)], strict=True)

    async def start_and_ask(number: int) -> bool:
        await bench.start_workload(f"together-{number}", _request(f"together-{number}"))
        return await _ask(bench, f"together-{number}")

    began = time.perf_counter()
    answered = await asyncio.gather(*(start_and_ask(number) for number in range(together)))
    seconds = time.perf_counter() - began
    for number in range(together):
        await bench.stop_workload(f"together-{number}")
    return Deploys(
        count, statistics.median(taken), max(taken), statistics.median(first), together, seconds, sum(answered)
    )


async def deploy_and_ask(bench: Bench, name: str) -> tuple[float, float]:
    """Deploy a function, ask it, stop it.

    Returns:
        Milliseconds from STARTWORKLOAD to its answer, and to the function's.

    Raises:
        RuntimeError: that was not the answer.
    """
    began = time.perf_counter()
    await bench.start_workload(name, _request(name))
    started = time.perf_counter()
    if not await _ask(bench, name):
        raise RuntimeError(f"{name} gave a wrong answer")
    answered = time.perf_counter()
    await bench.stop_workload(name)
    return (started - began) * 1000, (answered - began) * 1000


async def _ask(bench: Bench, subject: str) -> bool:
    # No responders would say so at once: the subscription must be live before the start's answer.
    answer = await bench.client.request(subject, b'{"lines":[{"price":"2.50","qty":2}]}', timeout=10)
    return answer.data == b'{"total":"5.00"}'


def _request(subject: str) -> dict[str, object]:
    return {"source": TEN_LINES, "triggers": [subject]}


async def _measure(options: Options) -> Deploys:
    async with open_bench(floors=()) as bench:
        return await measure_on(bench)


KIND = Kind("deploys", "how long a start takes, one after another and side by side", _measure)
