"""When a pool has more workers, and when fewer: they are started, spaced out while they die, and let go when idle.

A worker is started in place of one that ended, for as many as a function asked to keep, and where calls wait for too
long. The rule is `scaling.py`; what it has to know is looked at here, on the timer of the queue, which is not armed
where nothing waits or no worker may come. A first look that finds the wait too long counts what processors are used
for from then on, a second one a few milliseconds later decides. While more workers would be of no use, looks
become fewer.

A worker goes when it has been idle for long enough, by `scaling.py` as well, or earlier where there are too many idle
ones of all functions (`warm.py`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.link import Link, LinkEnd
from nexlet_sandboxes.outcomes import Outcome, SandboxError
from nexlet_sandboxes.processor import processors
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.rush import Rush
from nexlet_sandboxes.scaling import more, stays, surplus, wait_ns

if TYPE_CHECKING:
    from nexlet_sandboxes.pool import Pool
    from nexlet_sandboxes.zygote import WorkerProcess

__all__ = ["Growth"]

FIRST_LOOK_NS: Final = 2_000_000
"""The head of the queue has waited this long (nanoseconds) before anybody asks whether there should be more workers."""

CALM_NS: Final = 10_000_000
"""Nanoseconds until the next look where the wait is short enough."""

PAUSE_NS: Final = 5_000_000
"""Nanoseconds between two looks while it is too long, about what a start takes ..."""

LONGEST_PAUSE_NS: Final = 200_000_000
"""... and twice as long after each one that found more workers to be of no use, up to this."""

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
        self._target_ns = int(pool.limits.wait * 1e9)
        self._batch = pool.program.batch
        self._run_ns = 0.0
        self._rush: Rush | None = None
        self._look_due = self._pause_ns = 0
        self._starts: set[asyncio.Task[None]] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_due = 0
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
        waits = self._starts or self._retry_timer is not None or self._held
        return bool(self.links) and not waits and self.room > 0

    @property
    def _kept(self) -> int:
        """So many are kept ready: one where there was one, so that no call pays for the end of the last."""
        return 0 if self._pool.draining else max(self._pool.limits.min_workers, 1)

    @property
    def _held(self) -> bool:
        """None is started that would only stand still while its time for loading passes."""
        budget = self._pool.budget
        return budget is not None and budget.held

    def look_due_ns(self, received_ns: int) -> int:
        """When to `look` next, where the head of the queue came at `received_ns`."""
        return max(received_ns + FIRST_LOOK_NS, self._look_due)

    def look(self, now: int) -> None:
        """Calls wait: see whether there should be more workers. Nothing happens before it is due."""
        if now < self._look_due or not self.may_grow:
            return
        self._look_due = now + CALM_NS
        if self._pool.single_use:
            self.prepare()
            return
        # Nobody joins a batch that runs, however small: what waits is as many batches as it takes, whole ones.
        batch, links = self._batch, self.links
        ahead = -(-self._pool.pending // batch) * batch - len(links) * batch
        ahead += sum(max(len(link.fifo), batch) for link in links if link.fifo)
        # One that has been at its call for longer than the last ones took will take at least as long.
        runs = self.runs_ns() or [0.0] * len(self.links)
        pairs = zip(runs, self.links, strict=True)
        wait = wait_ns(ahead, [max(run, link.running_ns(now) / self._batch) for run, link in pairs])
        if wait <= self._target_ns:
            self.calm()
            return
        if self._rush is None:
            self._rush = Rush(now, self.links)
            self._pause_ns = PAUSE_NS
        else:
            budget = self._pool.budget
            share, takes = self._rush.measured(now, self.links)
            if takes:
                wait = min(wait, wait_ns(ahead, [takes] * len(self.links)))
            count = more(
                wait,
                self._target_ns,
                start=int(self.start_times.quantile(0.5) * 1e9),
                lasted=now - self._rush.since_ns,
                workers=len(self.links),
                room=self.room,
                share=share,
                processors=min(processors(), budget.processors) if budget is not None else processors(),
            )
            if count:
                self.begin(count)
            self._pause_ns = PAUSE_NS if count else min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        self._look_due = now + self._pause_ns

    def calm(self) -> None:
        """Nothing waits for too long any more."""
        self._rush = None

    def runs_ns(self) -> list[float]:
        """Of each worker, how long a call takes it by the last ones; of one that has run none, as long as the others.

        Empty where none has run any yet. A call of a batch takes its part: where calls wait, batches are full.
        """
        known = [run for link in self.links if (run := link.run_ns)]
        if known:
            self._run_ns = sum(known) / len(known)
        return [(link.run_ns or self._run_ns) / self._batch for link in self.links] if self._run_ns else []

    def too_many(self) -> int:
        """With so many calls, waiting and under way, the last in line waits for too long; 0 where none may come."""
        if len(self.links) >= self._pool.limits.max_workers:
            return 0
        return len(self.links) * self._batch + 1 + int(self._target_ns * sum(1 / run for run in self.runs_ns()))

    def keep_up(self) -> None:
        """Start what is missing of those that are to be there."""
        if not self._pool.pending:
            self.calm()
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

    def begin(self, count: int = 1) -> None:
        """Start some in the background, unless one is on its way or the pool must wait before the next try."""
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
        for _ in range(min(count, self.room)):
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
        self._see_to_idle()
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
        if self._idle_timer is None:
            self._see_to_idle()

    def _see_to_idle(self) -> None:
        workers, limits = len(self.links), self._pool.limits
        if workers > limits.min_workers:
            self._arm_idle_timer(stays(workers, limits.idle))

    def _arm_idle_timer(self, delay: float) -> None:
        """Have a look at those that are idle within `delay` seconds. One too early costs a look."""
        due = time.monotonic_ns() + int(delay * 1e9)
        if self._idle_timer is not None:
            if self._idle_due <= due:
                return
            self._idle_timer.cancel()
        self._idle_due = due
        self._idle_timer = asyncio.get_running_loop().call_later(delay, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        self._idle_timer = None
        now = time.monotonic_ns()
        limits = self._pool.limits
        idle = sorted((link for link in self.links if not link.fifo), key=lambda link: link.since_ns)
        gone, due = surplus([now - link.since_ns for link in idle], len(self.links), limits.min_workers, limits.idle)
        for link in idle[:gone]:
            self.links.remove(link)
            self.discard(link)
        if due:
            self._arm_idle_timer(max(0.001, due / 1e9))
        if gone:
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
