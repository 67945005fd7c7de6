"""What a worker costs: time until it is ready, and memory while it waits: `python -m benchmarks workers`."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.outcomes import SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote

__all__ = ["PROMISES", "Start", "Workers", "measure"]

PROMISES: dict[str, tuple[float, float | None]] = {"strict": (2.0, 5.0), "isolated": (6.0, None)}
"""Milliseconds from the request to the zygote until READY: the median at most, and the 99th percentile."""

EMPTY = Program("def handler(event, context):\n    pass\n")


@dataclass(frozen=True, slots=True)
class Start:
    """Milliseconds from the request to the zygote until a worker has loaded an empty program.

    Attributes:
        profile: of the workers.
        count: how many were started, one after another.
        median_ms, p99_ms: of these.
        missing: why none could be started; "" where they could.
    """

    profile: str
    count: int = 0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Workers:
    """All of it.

    Attributes:
        starts: a line for each profile.
        idle: how many idle strict workers memory was measured over.
        idle_mib: proportional memory (PSS) of each, in MiB; None where the kernel does not let us look.
        zygote_mib: and of the zygote.
    """

    starts: list[Start] = field(default_factory=list)
    idle: int = 0
    idle_mib: float | None = None
    zygote_mib: float | None = None

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


class _Nobody:
    """A sink: no call is ever submitted here, and an empty program says nothing."""

    def finished(self, call: Call, result: Result) -> None:
        raise AssertionError("nothing was submitted")

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        raise AssertionError(line)

    def measured(self, call_id: int, data: bytes) -> None:
        raise AssertionError(data)

    def flush(self) -> None:
        pass

    def changed(self) -> None:
        pass


async def measure(
    *, count: int = 200, idle: int = 200, profiles: Sequence[str] = ("strict", "isolated", "process")
) -> Workers:
    """Start `count` workers of each profile one after another, then look at `idle` strict ones that wait."""
    zygote = await Zygote.start()
    try:
        starts = [await _starts(zygote, profile, count) for profile in profiles]
        each, own = await _memory(zygote, idle)
    finally:
        await zygote.close()
    return Workers(starts, idle, each, own)


async def _starts(zygote: Zygote, profile: str, count: int) -> Start:
    limits = Limits(max_workers=1)
    ready = []
    gc.collect()
    for _ in range(count + 5):
        pool = Pool(zygote, EMPTY, limits, _Nobody(), profile=profile)
        began = time.perf_counter()
        try:
            await pool.start()
        except SandboxError as error:
            return Start(profile, missing=str(error))
        ready.append((time.perf_counter() - began) * 1000)
        await pool.close()
    ready = sorted(ready[5:])  # the first ones warm up
    return Start(profile, count, statistics.median(ready), ready[int(len(ready) * 0.99)])


async def _memory(zygote: Zygote, idle: int) -> tuple[float | None, float | None]:
    limits = Limits(max_workers=1)
    pools = []
    try:
        for _ in range(idle):
            pool = Pool(zygote, EMPTY, limits, _Nobody(), profile="strict")
            pools.append(pool)
            await pool.start()
        assert zygote.pid is not None
        return _shares(zygote.pid)
    finally:
        for pool in pools:
            await pool.close()


def _shares(zygote: int) -> tuple[float | None, float | None]:
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    try:
        return statistics.fmean(_pss_mib(int(pid)) for pid in children), _pss_mib(zygote)
    except PermissionError:
        return None, None  # neither is dumpable: only root may look


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")
