"""What a worker costs: time until it is ready, memory while it waits, and what its locks cost a call.

`python -m benchmarks workers`

The first worker of a function is preceded by one that compiles the program for all of them; every other one (after a
timeout, for a queue that grows, for a function that was scaled to zero) is started as it is measured here.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.kinds import Kind, Options
from benchmarks.processes import proportional_mib
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.link import Link
from nexlet_sandboxes.outcomes import Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote

__all__ = ["KIND", "LOCKS_US", "PROMISES", "Locks", "Start", "Workers", "measure_starts"]

PROMISES: dict[str, tuple[float, float | None]] = {"strict": (2.0, 5.0), "isolated": (6.0, None)}
"""Milliseconds from the request to the zygote until a worker has loaded an empty program, which was compiled before:
the median at most, and the 99th percentile."""

LOCKS_US = 10.0
"""Microseconds that a warm call in a strict worker may be dearer than the same call in an unlocked one."""

EMPTY = Program("def handler(event, context):\n    pass\n")


@dataclass(frozen=True, slots=True)
class Start:
    """Milliseconds from the request to the zygote until a worker has loaded an empty program.

    Attributes:
        profile: of the workers.
        count: how many were started, one after another.
        median_ms, p99_ms: of these.
        first_ms: median for a function's first worker, the compiling in a process of its own included.
        missing: why none could be started; "" where they could.
    """

    profile: str
    count: int = 0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    first_ms: float = 0.0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Locks:
    """A warm call in a worker with all locks beside the same call in one without, in turn, one at a time.

    Attributes:
        count: calls of each.
        locked_us, unlocked_us: microseconds from the pool's taking a call to its end, the median.
        dearer_us: the median of what each locked call took more than the unlocked one after it.
        missing: why there is none; "" where there is.
    """

    count: int = 0
    locked_us: float = 0.0
    unlocked_us: float = 0.0
    dearer_us: float = 0.0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Workers:
    """All of it.

    Attributes:
        starts: a line for each profile.
        idle: how many idle strict workers memory was measured over.
        idle_mib: proportional memory (PSS) of each, in MiB; None where the kernel does not let us look.
        zygote_mib: and of the zygote.
        locks: what they cost a warm call.
    """

    starts: list[Start] = field(default_factory=list)
    idle: int = 0
    idle_mib: float | None = None
    zygote_mib: float | None = None
    locks: Locks = field(default_factory=Locks)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def table(self) -> list[str]:
        """For people."""
        lines = ["a worker: from the request to the zygote until an empty program is loaded, and memory while it waits"]
        for start in self.starts:
            if start.missing:
                lines.append(f"  {start.profile:9} cannot be had here: {start.missing}")
                continue
            median, p99 = PROMISES.get(start.profile, (None, None))
            promise = ", ".join(
                f"{name} {limit:g} ms" for name, limit in (("median", median), ("p99", p99)) if limit is not None
            )
            lines.append(
                f"  {start.profile:9} {start.count} times, median {start.median_ms:.2f} ms, p99 {start.p99_ms:.2f} ms"
                f", a function's first {start.first_ms:.2f} ms" + (f"  (at most {promise})" if promise else "")
            )
        locks = self.locks
        if locks.missing:
            lines.append(f"  locks: cannot be had here: {locks.missing}")
        else:
            lines.append(
                f"  a warm call, {locks.count} times in turn, median: strict {locks.locked_us:.1f} us, "
                f"unlocked {locks.unlocked_us:.1f} us, dearer by {locks.dearer_us:.1f} us  "
                f"(at most {LOCKS_US:g} us)"
            )
        if self.idle_mib is None:
            lines.append("  memory: the kernel lets only root look at workers")
        else:
            lines.append(
                f"  {self.idle} idle strict workers: {self.idle_mib:.2f} MiB each, proportional  "
                f"(at most 1.5 MiB); the zygote {self.zygote_mib:.1f} MiB"
            )
        return lines


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


async def _measure(options: Options) -> Workers:
    return await _workers()


async def _workers(
    *,
    count: int = 200,
    idle: int = 200,
    calls: int = 5000,
    profiles: Sequence[str] = ("strict", "isolated", "process"),
) -> Workers:
    """Start `count` workers of each profile one after another, then look at `idle` strict ones that wait.

    Args:
        calls: how many are made to a strict worker and to an unlocked one, for what the locks cost.
    """
    zygote = await Zygote.start()
    try:
        starts = [await measure_starts(zygote, profile, count) for profile in profiles]
        locks = await _locks(zygote, calls)
        each, own = await _memory(zygote, idle)
    finally:
        await zygote.close()
    return Workers(starts, idle, each, own, locks)


async def measure_starts(zygote: Zygote, profile: str, count: int) -> Start:
    """Start `count` workers of this profile one after another, and a few that are their functions' first."""
    limits = Limits(max_workers=1)
    firsts, ready = [], []
    gc.collect()
    try:
        for _ in range(25):
            pool = Pool(zygote, EMPTY, limits, _Nobody(), profile=profile)
            began = time.perf_counter()
            await pool.start()
            firsts.append((time.perf_counter() - began) * 1000)
            await pool.close()
        for _ in range(count + 5):
            began = time.perf_counter()
            link = await _worker(zygote, pool)
            ready.append((time.perf_counter() - began) * 1000)
            link.close()
            await link.gone()
    except SandboxError as error:
        return Start(profile, missing=str(error))
    ready = sorted(ready[5:])  # the first ones warm up
    p99 = ready[int(len(ready) * 0.99)]
    return Start(profile, count, statistics.median(ready), p99, statistics.median(firsts[5:]))


async def _worker(zygote: Zygote, pool: Pool) -> Link:
    link = Link(await zygote.spawn(pool.profile, pool.limits.memory), pool)
    await link.load(EMPTY, pool.limits, pool.prefix, pool.compiled, timeout=pool.limits.load_timeout)
    return link


class _Waiting(_Nobody):
    """A sink that hands over the end of the one call there is."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[int]

    def finished(self, call: Call, result: Result) -> None:
        if result.outcome is not Outcome.OK:
            raise AssertionError(result)
        self.ended.set_result(time.perf_counter_ns())


async def _locks(zygote: Zygote, calls: int) -> Locks:
    limits, pools = Limits(max_workers=1), []
    loop = asyncio.get_running_loop()
    try:
        for profile in ("strict", "unsafe-dev"):
            sink = _Waiting()
            pools.append((sink, Pool(zygote, EMPTY, limits, sink, profile=profile)))
            await pools[-1][1].start()
        taken: list[list[int]] = [[], []]
        gc.collect()
        for _ in range(calls + 100):
            for (sink, pool), one in zip(pools, taken, strict=True):
                sink.ended = loop.create_future()
                began = time.perf_counter_ns()
                pool.submit(Call(b"bench", b"", received_ns=time.monotonic_ns()))
                one.append(await sink.ended - began)
    except SandboxError as error:
        return Locks(missing=str(error))
    finally:
        for _, pool in pools:
            await pool.close()
    locked, unlocked = (one[100:] for one in taken)  # the first ones warm up
    dearer = [first - second for first, second in zip(locked, unlocked, strict=True)]
    return Locks(calls, _median_us(locked), _median_us(unlocked), _median_us(dearer))


def _median_us(nanoseconds: list[int]) -> float:
    return statistics.median(nanoseconds) / 1000


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
        return statistics.fmean(proportional_mib(int(pid)) for pid in children), proportional_mib(zygote)
    except PermissionError:
        return None, None  # neither is dumpable: only root may look


KIND = Kind("workers", "what a worker costs: time until it is ready, memory, and its locks", _measure)
