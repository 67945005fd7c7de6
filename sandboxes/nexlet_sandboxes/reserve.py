"""A few workers that are locked and wait for whoever needs one next, so that a first message waits for a load alone.

Until it is sent its program, a worker is the same for all functions but for what the zygote is told when it forks it:
the profile, the memory that it may grow by, and the layers that this machine is without. That is its `Kind`, and a pool
gets a worker of the very kind it asks for, from here or from the zygote. All other locks, its user and its control
group are its own from its fork on. From its program on it is that function's, ends with it, and never comes back here.

The kinds that wait are those that were asked for last, so none do before the first function has come. They are made a
little after others were taken: by then the message that needed one is mostly answered, and does not share the processor
with the forks. One that cannot be made is not tried for again: who needs one next asks, and is told why there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from nexlet_sandboxes.frames import Kind as FrameKind
from nexlet_sandboxes.frames import frame
from nexlet_sandboxes.outcomes import SandboxError

if TYPE_CHECKING:
    from nexlet_sandboxes.zygote import Exit, WorkerProcess, Zygote

__all__ = ["RESERVE", "Kind", "Reserve"]

RESERVE: Final = 2
"""Workers that wait by default: what a deployment takes, which has one compile and another one load. 1.7 MiB each."""

REFILL_S: Final = 0.01
"""Seconds from when one was taken until others are made: about what a first answer takes."""


REHEARSES: Final = 32 * 1024 * 1024
"""Bytes that a worker may grow by, from which on one that waits rehearses meanwhile (`worker.rehearsal`). That leaves
some hundred KiB of its memory otherwise than a fresh one's is; where it has that much, no function misses them."""

_REHEARSE: Final = frame(FrameKind.REHEARSE)


class Kind(NamedTuple):
    """All that is the function's in the locks of a worker that has no program yet.

    Attributes:
        profile: its name.
        memory: bytes it may grow by.
        without: layers that are left out.
    """

    profile: str
    memory: int
    without: frozenset[str]


class Reserve:
    """The workers that wait, of all pools that share it.

    Attributes:
        most: how many may wait; 0 for none.
        taken: workers that pools got, by where they came from: `reserve`, or `forked` when they were asked for.
    """

    def __init__(self, zygote: Zygote, most: int = RESERVE) -> None:
        """None wait, and none are made before the first was asked for."""
        self.most = most
        self.taken: Counter[str] = Counter(reserve=0, forked=0)
        self._zygote = zygote
        self._asked: deque[Kind] = deque(maxlen=most)
        self._waiting: dict[WorkerProcess, Kind] = {}  # longest first
        self._timer: asyncio.TimerHandle | None = None
        self._filling: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many do."""
        return len(self._waiting)

    async def take(self, profile: str, memory: int) -> WorkerProcess:
        """A worker that has no program, for the caller alone: one that waits, or a new one.

        Args:
            profile, memory: as for `Zygote.spawn`.

        Raises:
            LayerUnavailable, ZygoteError: as `Zygote.spawn`.
        """
        kind = Kind(profile, memory, self._zygote.without)
        self._asked.append(kind)
        if self.most and self._timer is None and not self._closed:
            self._refill_later()
        for worker, waits in self._waiting.items():
            if waits == kind:
                del self._waiting[worker]
                worker.on_exit = None
                self.taken["reserve"] += 1
                return worker
        worker = await self._zygote.spawn(profile, memory)
        self.taken["forked"] += 1
        return worker

    async def close(self) -> None:
        """End those that wait, and have no more wait. Who asks still gets new ones."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        for worker in tuple(self._waiting):
            self._end(worker)

    def _refill_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REFILL_S, self._refill)

    def _refill(self) -> None:
        self._timer = None
        if self._filling is None or self._filling.done():
            self._filling = asyncio.get_running_loop().create_task(self._fill(), name="fill the reserve")
        else:
            self._refill_later()  # somebody has taken one meanwhile

    async def _fill(self) -> None:
        # As many as are missing now, and no more: where each ends at once for want of a layer, some always are.
        for kind in self._settle():
            try:
                worker = await self._zygote.spawn(kind.profile, kind.memory, without=kind.without)
            except SandboxError:
                return  # see the module
            if worker.exited is None:
                if kind.memory >= REHEARSES:
                    with contextlib.suppress(OSError):  # it has ended, which is told in a moment
                        worker.sock.send(_REHEARSE)
                self._waiting[worker] = kind
                worker.on_exit = functools.partial(self._ended, worker)
            else:
                worker.close()

    def _settle(self) -> list[Kind]:
        """What is missing of the kinds that were asked for last. What nobody asks for any more makes room for it."""
        missing = Counter(kind for kind in self._asked if kind.without == self._zygote.without)
        for worker, kind in tuple(self._waiting.items()):
            if missing[kind]:
                missing[kind] -= 1
            else:
                self._end(worker)
        return list(missing.elements())

    def _ended(self, worker: WorkerProcess, how: Exit) -> None:
        """It is of no use any more: killed from outside, or gone with its zygote."""
        if self._waiting.pop(worker, None) is not None:
            worker.close()

    def _end(self, worker: WorkerProcess) -> None:
        del self._waiting[worker]
        worker.on_exit = None
        worker.kill()
        worker.close()
