"""Many functions on one machine: `python -m benchmarks scale`.

They are deployed a few at a time, left alone until their workers have gone, looked at for what they cost meanwhile, and
then woken one after another: what a first message waits for that finds no worker.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.bench import TEN_LINES, Bench, open_bench
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load
from benchmarks.processes import descendants

__all__ = ["KIND", "NUMBERS", "Scale", "Scales"]

NUMBERS = (100, 1000)
SIDE_BY_SIDE = 4
IDLE = "2s"
IDLE_SECONDS = 20.0
WOKEN = 200
MIB = 1024


@dataclass(frozen=True, slots=True)
class Scale:
    """So many functions.

    Attributes:
        functions: how many.
        start_s: from the first request to start one to the last answer.
        nexlet_mib, all_mib: proportional memory with all of them idle: of the nexlet, and with its other processes.
        grown_mib: of that, what came with them: the rest is there without any function.
        idle_percent: of one core, that the nexlet and its other processes use meanwhile.
        first_p50_ms, first_p99_ms: from a request to its answer where no worker was there.
    """

    functions: int
    start_s: float
    nexlet_mib: float
    all_mib: float
    grown_mib: float
    idle_percent: float
    first_p50_ms: float
    first_p99_ms: float


@dataclass(frozen=True, slots=True)
class Scales:
    """One number of functions after another."""

    scales: list[Scale]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) for one in self.scales]

    def table(self) -> list[str]:
        """For people."""
        return [
            "functions that are deployed, left alone until they have no worker, and then asked one after another",
            "  functions    start s   nexlet MiB   all MiB   grown MiB   idle CPU %   first answer p50, p99 ms",
            *(
                f"  {one.functions:9}   {one.start_s:8.2f}   {one.nexlet_mib:10.1f}   {one.all_mib:7.1f}   "
                f"{one.grown_mib:9.1f}   {one.idle_percent:10.2f}   {one.first_p50_ms:.2f}, {one.first_p99_ms:.2f}"
                for one in self.scales
            ),
        ]


async def _measure(options: Options) -> Scales:
    async with open_bench(floors=()) as bench:
        return Scales([await _scale(bench, number, IDLE_SECONDS) for number in NUMBERS])


async def _scale(bench: Bench, number: int, idle_seconds: float) -> Scale:
    nexlet = bench.processes["nexlet"]
    before = _memory(nexlet)
    names = [f"scale-{at}" for at in range(number)]
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def start(name: str) -> None:
        async with room:
            # Each has a source of its own: nothing that was compiled is used twice.
            request = {"source": f"{TEN_LINES}# {name}\n", "triggers": [name], "limits": {"idle": IDLE}}
            await bench.start_workload(name, request)

    began = time.monotonic()
    await asyncio.gather(*map(start, names))
    started = time.monotonic() - began
    await _until_idle(nexlet)
    own, both = _proportional(nexlet), _memory(nexlet)
    used = bench.cpu_seconds()
    await asyncio.sleep(idle_seconds)
    idle = sum(bench.cpu_seconds()[name] - used[name] for name in ("nexlet", "workers"))
    first = await asyncio.to_thread(_wake, bench.url, names[:WOKEN])
    for name in names:
        await bench.stop_workload(name)
    return Scale(
        functions=number,
        start_s=started,
        nexlet_mib=own,
        all_mib=both,
        grown_mib=both - before,
        idle_percent=100 * idle / idle_seconds,
        first_p50_ms=statistics.median(first),
        first_p99_ms=sorted(first)[int(0.99 * len(first))],
    )


async def _until_idle(nexlet: int) -> None:
    """Until the zygote alone is left of the nexlet's other processes."""
    async with asyncio.timeout(60):
        while True:
            if len(descendants(nexlet)) <= 1:
                return
            await asyncio.sleep(0.1)


def _wake(url: str, subjects: list[str]) -> list[float]:
    with Load(url) as load:
        return [
            load.requests(subject, count=1, in_flight=1, payload=b'{"lines": []}').percentile(0.5)
            for subject in subjects
        ]


def _memory(nexlet: int) -> float:
    return sum(_proportional(pid) for pid in [nexlet, *descendants(nexlet)])


def _proportional(pid: int) -> float:
    """MiB; of what several processes share, each has its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / MIB


KIND = Kind(
    "scale", "a hundred and a thousand functions: starts, memory, idle processor, waking", _measure, short=False
)
