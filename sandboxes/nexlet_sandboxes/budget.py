"""Processor time that the workers of several pools may take together, held by measuring them and stopping them.

A control group does this better, where an operator delegates one (`kernel/cgroups.py`), and bounds each worker by
itself; a `Budget` needs nothing of the machine and bounds all workers of a namespace. The kernel counts what a process
has used, whatever the process says; a look at it is one system call. Used time is taken out of a bucket that fills at
the rate allowed. While it is overdrawn all its workers stand still (SIGSTOP), as those of a control group over its
`cpu.max` do: deadlines go on, so what is stopped for long ends as a timeout, and what waits behind it waits.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from nexlet_sandboxes.processor import processors, used_ns

if TYPE_CHECKING:
    from nexlet_sandboxes.growth import Growth
    from nexlet_sandboxes.zygote import WorkerProcess

__all__ = ["Budget"]

LOOK_S: Final = (0.02, 0.2)
"""Seconds between two looks: the first while processor time is used, growing to the second while none is."""

BURST_S: Final = 0.1
"""So many seconds' worth may be saved up; `cpu.max` of a control group has the same by default."""


class Budget:
    """A rate of processor time, shared by the workers of the pools that have it.

    Attributes:
        processors: how many processors' worth; may be changed while it is in use.
        held: whether its workers stand still.
        held_ns: for how long they did so far.
    """

    def __init__(self, processors: float) -> None:
        """Nothing runs, and the bucket is full."""
        self.processors = processors
        self.held = False
        self.held_ns = 0
        self._left = processors * BURST_S * 1e9
        self._workers: dict[WorkerProcess, int] = {}
        self._pools: set[Growth] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = LOOK_S[0]
        self._looked = time.monotonic_ns()

    def join(self, pool: Growth) -> None:
        """`pool` is told, by `budget_changed`, when its workers may go on."""
        self._pools.add(pool)

    def leave(self, pool: Growth) -> None:
        """It is told nothing more. Its workers have to be removed one by one."""
        self._pools.discard(pool)

    def add(self, worker: WorkerProcess) -> None:
        """Count what this process uses from now on."""
        self._workers[worker] = used_ns(worker.pid)
        if self.held:
            worker.stop()
        if self._timer is None:
            self._looked = time.monotonic_ns()
            self._arm()

    def remove(self, worker: WorkerProcess) -> None:
        """It is about to end: count what it has used since the last look. Safe to repeat."""
        before = self._workers.pop(worker, None)
        if before is not None:
            self._left -= max(0, used_ns(worker.pid) - before)
        if not self._workers and self._timer is not None and not self.held:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        now = time.monotonic_ns()
        passed, self._looked = now - self._looked, now
        used, most = 0, passed * processors()
        for worker, before in self._workers.items():
            at = used_ns(worker.pid)
            # Beyond what the machine has it is another process that came by the number of one that has just ended.
            if 0 < at - before <= most:
                used += at - before
                self._workers[worker] = at
        self._left = min(self._left - used + passed * self.processors, self.processors * BURST_S * 1e9)
        self._pause = LOOK_S[0] if used or self.held else min(LOOK_S[1], self._pause * 2)
        if self.held:
            self.held_ns += passed
        if self.held is not (self._left < 0):
            self.held = not self.held
            for worker in self._workers:
                (worker.stop if self.held else worker.go_on)()
            if not self.held:
                for pool in tuple(self._pools):
                    pool.budget_changed()
        self._timer = None
        if self._workers or self.held:
            self._arm()
