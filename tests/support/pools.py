"""A sink that keeps what a pool tells, and ways to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence

from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote

__all__ = ["KeepingSink", "Sandbox", "call", "limits", "open_pool", "run"]

MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Sandbox:
    """A zygote, and the profile that a test's workers have."""

    zygote: Zygote
    profile: str


class KeepingSink:
    """Keeps everything in the order it came."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.order: list[int] = []
        self.lines: list[tuple[int, str, int, bytes]] = []
        self.metrics: list[tuple[int, bytes]] = []
        self.flushes = 0
        self.flushed = 0  # of the results
        self._changed = asyncio.Event()

    def finished(self, call: Call, result: Result) -> None:
        assert call.id not in self.results, "a call ended twice"
        self.results[call.id] = result
        self.order.append(call.id)
        self._changed.set()

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        self.lines.append((call_id, stream, level, line))
        self._changed.set()

    def measured(self, call_id: int, data: bytes) -> None:
        self.metrics.append((call_id, data))
        self._changed.set()

    def flush(self) -> None:
        self.flushes += 1
        self.flushed = len(self.results)

    def changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait until `condition` holds; it is looked at whenever the pool told something."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def call(payload: bytes = b"", *, subject: bytes = b"test.subject", **more: object) -> Call:
    """A call that came in now."""
    made = Call(subject, payload, received_ns=time.monotonic_ns())
    for name, value in more.items():
        setattr(made, name, value)
    return made


def limits(**changes: object) -> Limits:
    """Limits for tests: one worker unless asked for more, everything else as a function has it by default."""
    return dataclasses.replace(Limits(max_workers=1), **changes)  # type: ignore[arg-type]  # a test names real fields


@contextlib.asynccontextmanager
async def open_pool(sandbox: Sandbox, source: str, limits: Limits, **program: object) -> AsyncIterator[Pool]:
    """A started pool over `source`; its sink is a `KeepingSink`."""
    made = Program(source, **program)  # type: ignore[arg-type]  # a test names real fields
    pool = Pool(sandbox.zygote, made, limits, KeepingSink(), profile=sandbox.profile)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def run(pool: Pool, *calls: Call | bytes) -> list[Result]:
    """Submit calls as one batch and wait for all of them; results in the order of the calls."""
    made: Sequence[Call] = [one if isinstance(one, Call) else call(one) for one in calls]
    sink = pool.sink
    assert isinstance(sink, KeepingSink)
    for one in made:
        pool.enqueue(one)
    pool.flush()
    await sink.until(lambda: all(one.id in sink.results for one in made))
    return [sink.results[one.id] for one in made]
