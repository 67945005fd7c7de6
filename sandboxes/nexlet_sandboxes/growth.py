"""When a pool has more workers, and when fewer: they are started, spaced out while they die, and let go when idle.

A worker is started where calls wait, in place of one that ended, and for as many as a function asked to keep. It goes
when it has been idle for `limits.idle`, or earlier where there are too many idle ones of all functions (`warm.py`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.link import Link, LinkEnd
from nexlet_sandboxes.outcomes import Outcome, SandboxError
from nexlet_sandboxes.program import Program

if TYPE_CHECKING:
    from nexlet_sandboxes.pool import Pool
    from nexlet_sandboxes.zygote import WorkerProcess

__all__ = ["GROW_AFTER_NS", "Growth"]

GROW_AFTER_NS: Final = 2_000_000
"""The head of the queue has waited this long: one more worker, if there may be one. About what a start takes."""

UNWELL_AFTER: Final = 3
"""So many deaths in a row, with no call answered in between, and the pool is unwell: starts are spaced out."""

BACK_OFF: Final = (0.1, 30.0)
"""Seconds before the first spaced start, doubled with every further death, up to the second figure."""


class Growth:
    """The workers of one pool.

    Attributes:
        links: those that get calls.
        leaving: those of a program that was renewed: they finish what they were sent.
        cold_starts: how many were made ready.
        start_times: from asking for a worker until the program was loaded in it.
        deaths: how many died, by what of; `died` is all of them together.
        deaths_in_row: with no call answered in between.
        last_failure: why the last one died, in one line.
    """

    def __init__(self, pool: Pool) -> None:
        """There are none."""
        self._pool = pool
        self.links: list[Link] = []
        self.leaving: list[Link] = []
        self.cold_starts = 0
        self.start_times = Histogram()
        self.deaths: dict[str, int] = {}
        self.died = 0
        self.deaths_in_row = 0
        self.last_failure = ""
        self._starts: set[asyncio.Task[None]] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        if pool.budget is not None:
            pool.budget.join(self)
        if pool.warm is not None:
            pool.warm.join(self)

    # How many there are to be.

    @property
    def starting(self) -> int:
        """So many are on their way."""
        return len(self._starts)

    @property
    def unwell(self) -> bool:
        """They die one after another."""
        return self.deaths_in_row >= UNWELL_AFTER

    @property
    def room(self) -> int:
        """So many more there may be."""
        return self._pool.limits.max_workers - len(self.links) - len(self.leaving) - len(self._starts)

    @property
    def may_grow(self) -> bool:
        """Whether a queue may have one more, beside those that there are."""
        return bool(self.links) and self.room > 0 and not self._starts and not self._held

    @property
    def _kept(self) -> int:
        """So many are kept ready: one where there was one, so that no call pays for the end of the last."""
        return 0 if self._pool.draining else max(self._pool.limits.min_workers, 1)

    @property
    def _held(self) -> bool:
        """None is started that would only stand still while its time for loading passes."""
        budget = self._pool.budget
        return budget is not None and budget.held

    def look(self, waited_ns: int) -> None:
        """The head of the queue has waited for so long."""
        if self._pool.single_use:
            self.prepare()
        elif waited_ns >= GROW_AFTER_NS:
            self.begin()

    def keep_up(self) -> None:
        """Start what is missing of those that are to be there."""
        if self._pool.single_use:
            self.prepare()
        elif len(self.links) < self._kept or (self._pool.pending and not self.links):
            self.begin()

    def prepare(self) -> None:
        """Where each call takes a worker of its own: one for every call that waits, and spares, side by side."""
        free = sum(not link.fifo for link in self.links) + len(self._starts)
        for _ in range(min(self._pool.pending + self._kept - free, self.room)):
            self.begin()

    def budget_changed(self) -> None:
        """They may run again, so that more of them may be of use."""
        if not self._pool.draining:
            self._pool.workers_changed()

    # Starting.

    def begin(self) -> None:
        """Start one in the background, unless one is on its way or the pool must wait before the next try."""
        pool = self._pool
        if (self._starts and not pool.single_use) or self._retry_timer is not None or pool.closed or self._held:
            return
        if self.room <= 0:
            return
        if self.unwell:
            first, longest = BACK_OFF
            delay = min(longest, first * 2.0 ** min(self.deaths_in_row - UNWELL_AFTER, 20))
            self._retry_timer = asyncio.get_running_loop().call_later(delay, self._retry)
            return
        self._start_now()

    def wait_no_more(self) -> None:
        """The program is another one: what is known of the last says nothing about the next start."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    def _retry(self) -> None:
        self._retry_timer = None
        if not self._pool.closed and not self._starts and self.room > 0:
            self._start_now()

    def _start_now(self) -> None:
        name = f"start worker {self._pool.program.name}"
        task = asyncio.get_running_loop().create_task(self._start_one(), name=name)
        self._starts.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        self._pool.workers_changed()

    async def _start_one(self) -> None:
        try:
            await self.open()
        except SandboxError as error:
            # It loaded once, when the function was deployed: that it does not now is a death like any other.
            problems = getattr(error, "problems", ())
            self._count("load")
            self.deaths_in_row += 1
            self.last_failure = problems[0].message if problems else str(error)
            self._pool.sink.changed()

    async def open(self, *, compiling: float = 0.0) -> None:
        """One more. `compiling`: seconds of the time for loading that compiling has taken.

        Raises:
            LoadRefused: the program raised, or took too long to load.
            SandboxError: no worker could be made.
        """
        pool = self._pool
        program = pool.program
        link = await self.load(program, compiling=compiling)
        if pool.closed or program is not pool.program:
            self.discard(link)
        else:
            self.admit(link)

    async def load(self, program: Program, *, compiling: float = 0.0) -> Link:
        """A worker that has loaded `program`, and gets no calls yet. The rest is as with `open`."""
        pool = self._pool
        began = time.monotonic_ns()
        link = Link(await self._process(), pool)
        left = max(0.001, pool.limits.load_timeout - compiling)
        try:
            await link.load(program, pool.limits, pool.prefix, pool.compiled, timeout=left)
        except BaseException:
            self.discard(link)
            raise
        self.cold_starts += 1
        self.start_times.add(time.monotonic_ns() - began)
        return link

    async def _process(self) -> WorkerProcess:
        """A locked process that has no program yet."""
        pool = self._pool
        if pool.reserve is not None:
            return await pool.reserve.take(pool.profile, pool.limits.memory)
        return await pool.zygote.spawn(pool.profile, pool.limits.memory)

    async def translate(self) -> bytes:
        """The compiled form of the program, made in a process that ends with it; b"" where it is too large.

        Raises:
            LoadRefused: with everything that is wrong with the sources; or it took too long.
            SandboxError: no worker could be made, or it ended without a word.
        """
        pool = self._pool
        link = Link(await self._process(), pool)
        try:
            return await link.translate(pool.program, pool.limits, timeout=pool.limits.load_timeout)
        finally:
            link.close()
            await link.gone()

    def admit(self, link: Link) -> None:
        """Let it have calls from now on."""
        pool = self._pool
        self.links.append(link)
        pool.refill(link)
        if pool.warm is not None:
            pool.warm.started()
        if not link.fifo:
            self.idle()
        pool.sink.changed()

    # Ending.

    def lost(self, link: Link, end: LinkEnd) -> None:
        """One died."""
        self._count(end.outcome.value)
        if end.outcome is Outcome.CRASH:
            self.deaths_in_row += 1
            self.last_failure = end.reason
        self._track(link)

    def _count(self, reason: str) -> None:
        self.deaths[reason] = self.deaths.get(reason, 0) + 1
        self.died += 1

    def discard(self, link: Link) -> None:
        """End one that gets no more calls."""
        link.close()
        self._track(link)

    def _track(self, link: Link) -> None:
        task = asyncio.get_running_loop().create_task(link.gone())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def spare(self) -> list[Link]:
        """Those that nobody needs at the moment, beyond those that are to be kept; longest idle first."""
        if self._pool.single_use or self._pool.pending:
            return []
        idle = sorted((link for link in self.links if not link.fifo), key=lambda link: link.since_ns)
        return idle[: max(0, len(self.links) - self._pool.limits.min_workers)]

    def retire(self, link: Link) -> None:
        """End one that is `spare`."""
        self.links.remove(link)
        self.discard(link)
        self._pool.sink.changed()

    def idle(self) -> None:
        """One has nothing to do: see to it that it goes in time, where it is not to be kept."""
        if self._idle_timer is None and len(self.links) > self._pool.limits.min_workers:
            self._arm_idle_timer(self._pool.limits.idle)

    def _arm_idle_timer(self, delay: float) -> None:
        self._idle_timer = asyncio.get_running_loop().call_later(delay, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        self._idle_timer = None
        now = time.monotonic_ns()
        idle_ns = int(self._pool.limits.idle * 1e9)
        spare = len(self.links) - self._pool.limits.min_workers
        for link in [link for link in self.links if not link.fifo and now - link.since_ns >= idle_ns][: max(0, spare)]:
            self.links.remove(link)
            self.discard(link)
            spare -= 1
        if spare > 0 and self.links:
            oldest = min(link.since_ns for link in self.links)
            self._arm_idle_timer(max(0.001, (oldest + idle_ns - now) / 1e9))
        self._pool.sink.changed()

    def close(self) -> list[Link]:
        """Start none any more, and give back those that there are. The caller closes them, and awaits `closed`."""
        pool = self._pool
        if pool.budget is not None:
            pool.budget.leave(self)
        if pool.warm is not None:
            pool.warm.leave(self)
        for timer in (self._idle_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        for task in self._starts:
            task.cancel()
        links = [*self.leaving, *self.links]
        self.leaving.clear()
        self.links.clear()
        return links

    async def closed(self) -> None:
        """Wait until those have ended that were starting or ending."""
        await asyncio.gather(*self._starts, return_exceptions=True)
        await asyncio.gather(*self._closing)
