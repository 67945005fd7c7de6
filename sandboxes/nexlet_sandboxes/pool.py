"""The workers of one function: a queue before them, deadlines over them, and replacements for those that die.

`Pool` takes calls and never blocks; each ends in exactly one `Sink.finished`. A call waits in one queue until a worker
has room. A worker is sent ahead only as much work as it gets through in about a millisecond, by how long the last
calls ran, so a fast function gets its frames in batches while a slow one gets them one at a time and a second worker
soon. No task, future or timer is made for a call: there is one timer for the queue and one for each worker, armed when
there is something to wait for and looked at when it fires.

What happens to the calls of a worker that dies follows from what it was at (`WorkerProcess.running_call`): the one it
ran ends by its cause, those before it ran and lost their answer (502, never run again), those behind it never began
and go back to the head of the queue.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from nexlet_models.problems import Problem
from nexlet_sandboxes.asking import Answerer
from nexlet_sandboxes.backlog import Backlog
from nexlet_sandboxes.budget import Budget
from nexlet_sandboxes.calls import NEVER_NS, Call, Result, Sink
from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.link import Link, LinkEnd
from nexlet_sandboxes.lograte import LogRate
from nexlet_sandboxes.outcomes import CODES, LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.profiles import DEFAULT, PROFILES
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.warm import Warm
from nexlet_sandboxes.zygote import Zygote

__all__ = ["Pool", "PoolStats"]

GROW_AFTER_NS: Final = 2_000_000
"""The head of the queue has waited this long: one more worker, if there may be one. About what a start takes."""

UNWELL_AFTER: Final = 3
"""So many deaths in a row, with no call answered in between, and the pool is unwell: starts are spaced out."""

BACK_OFF: Final = (0.1, 30.0)
"""Seconds before the first spaced start, doubled with every further death, up to the second figure."""

LOOK_EVERY_NS: Final = 10_000_000
"""Nanoseconds between two looks through the queue for callers who have given up: all of it has to be looked at, since
their deadlines are in no order."""

TELL_DROPPED: Final = 1.0
"""Seconds at most until the author reads how many lines were dropped."""

LEVEL_WARNING: Final = 30


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at this moment, and its counts since it began."""

    workers: int
    busy: int
    starting: int
    pending: int
    pending_bytes: int
    in_flight: int
    cold_starts: int
    deaths: dict[str, int]
    log_lines_dropped: int
    unwell: bool


class Pool:
    """Runs the calls of one program. See the module for how.

    Attributes:
        compiled: the program's compiled form, for the workers to come; b"" before `start`, or if it is too large. Set
            before `start`, by whoever has kept it, it spares that the compiling.
        start_times: from asking for a worker until the program was loaded in it.
        lateness: how long after its deadline each call was ended that was over its time.
    """

    def __init__(
        self,
        zygote: Zygote,
        program: Program,
        limits: Limits,
        sink: Sink,
        *,
        profile: str = DEFAULT,
        backlog: Backlog | None = None,
        budget: Budget | None = None,
        warm: Warm | None = None,
        answerer: Answerer | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            backlog: room for waiting calls, shared with other pools; None: as much as the limits say.
            budget: processor time, likewise; None: no bound.
            warm: how many workers may stand idle, likewise; None: as many as do.
            answerer: answers what the function asks for; None: it was granted nothing.

        Raises:
            SandboxError: there is no such profile.
        """
        if profile not in PROFILES:
            raise SandboxError(f"there is no sandbox profile {profile!r}; there are: {', '.join(sorted(PROFILES))}")
        self.zygote = zygote
        self.program = program
        self.limits = limits
        self.profile = profile
        self._single_use = PROFILES[profile].single_use
        self.sink = sink
        self.prefix = program.run_prefix or f"{secrets.token_urlsafe(9)}."
        self._timeout_ns = int(limits.timeout * 1e9)
        self._queue_timeout_ns = int(limits.queue_timeout * 1e9)
        self._links: list[Link] = []
        # Workers of a program that was renewed: they finish what they were sent. Where there may be no more workers,
        # the first one of the new program waits until one of them has.
        self._leaving: list[Link] = []
        self._successor: Link | None = None
        self._renewals: set[asyncio.Task[Link]] = set()
        self._pending: deque[Call] = deque()
        self._pending_bytes = 0
        self._backlog = backlog or Backlog(2 * limits.max_pending, 2 * limits.max_pending_bytes)
        self.answerer = answerer
        self.budget = budget
        if budget is not None:
            budget.join(self)
        self.warm = warm
        if warm is not None:
            warm.join(self)
        self._next_id = 0
        self._dirty: list[Link] = []
        self._refused = False
        self._queue_timer: asyncio.TimerHandle | None = None
        self._queue_due = 0
        self._next_deadline = NEVER_NS
        self._looked_ns = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._starts: set[asyncio.Task[None]] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._deaths_in_row = 0
        self._deaths: dict[str, int] = {}
        self._died = 0
        self._cold_starts = 0
        self._drained: asyncio.Future[None] | None = None
        self._draining = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.compiled = b""
        self._log_rate = LogRate(limits.log_rate, time.monotonic_ns())
        self._dropped = self._dropped_in_all = 0
        self._dropped_timer: asyncio.TimerHandle | None = None
        self.last_failure = ""
        self.start_times = Histogram()
        self.lateness = Histogram()

    # Life.

    async def start(self) -> None:
        """Compile the program, and load it in a first worker; as many more as `min_workers` asks for follow later.

        It is compiled in a process of its own, for all the workers that it will have: they are ready sooner, and have
        none of the memory that compiling takes.

        Raises:
            LoadRefused: the program is refused, raised, or took too long to load.
            SandboxError: no worker could be made. Nothing is left behind in either case.
        """
        self._loop = asyncio.get_running_loop()
        began = self._loop.time()
        try:
            if not self.compiled:
                self.compiled = await self._translate()
            await self._open_link(compiling=self._loop.time() - began)
        except BaseException:
            await self.close()
            raise
        self._replace()

    async def check(self) -> tuple[Problem, ...]:
        """Everything that is wrong with the sources, looked at in a worker of its own. Nothing of them is run.

        Raises:
            SandboxError: no worker could be made, or it ended without a word.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._translate()
        except LoadRefused as refused:
            return refused.problems
        return ()

    async def _translate(self) -> bytes:
        link = Link(await self.zygote.spawn(self.profile, self.limits.memory), self)
        try:
            return await link.translate(self.program, self.limits, timeout=self.limits.load_timeout)
        finally:
            link.close()
            await link.gone()

    async def renew(self, program: Program) -> None:
        """Have calls run by workers that have loaded `program`, from now on: the same sources, another environment.

        A first worker of it is loaded, then those that are here get no more calls, and end when they have finished what
        they were sent. No call is lost. Where all the workers that there may be are at work, the new one has its turn
        when the first of them has finished.

        Raises:
            LoadRefused: it raised or took too long to load; everything is as before.
            SandboxError: no worker could be made; likewise.
        """
        loading = asyncio.get_running_loop().create_task(self._load_link(program))
        self._renewals.add(loading)
        try:
            link = await loading
        except asyncio.CancelledError:
            if self._closed and loading.cancelled():
                return  # `close` did that
            loading.cancel()
            raise
        finally:
            self._renewals.discard(loading)
        if self._draining:
            self._discard(link)
            return
        self.program = program
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if self._successor is not None:  # renewed again, before it had its turn
            self._discard(self._successor)
            self._successor = None
        for old in tuple(self._links):
            if not old.fifo:
                self.retire(old)
            elif not self._single_use:  # one that is used once goes with its call
                self._links.remove(old)
                self._leaving.append(old)
        if len(self._links) + len(self._leaving) < self.limits.max_workers:
            self._admit(link)
        elif self._single_use:
            self._discard(link)  # it has shown that it loads; each call that ends makes room for another
        else:
            self._successor = link
        self._replace()

    async def drain(self, grace: float) -> None:
        """Take no more calls, finish what is here within `grace` seconds, then close.

        What is not finished by then ends `unavailable`.
        """
        self._draining = True
        if self.busy:
            self._drained = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(grace):
                    await self._drained
            except TimeoutError:
                pass  # `close` answers what is left
        await self.close()

    async def close(self) -> None:
        """End every worker now. Calls that are here end `unavailable`. Returns when the processes are gone."""
        self._draining = self._closed = True
        if self.budget is not None:
            self.budget.leave(self)
        if self.warm is not None:
            self.warm.leave(self)
        for timer in (self._queue_timer, self._idle_timer, self._retry_timer, self._dropped_timer):
            if timer is not None:
                timer.cancel()
        self._tell_dropped()
        for task in (*self._starts, *self._renewals):
            task.cancel()
        links, self._links, self._leaving = [*self._leaving, *self._links], [], []
        if self._successor is not None:
            links.append(self._successor)
            self._successor = None
        now = time.monotonic_ns()
        for link in links:
            for call in link.close():
                self._finish(call, Outcome.UNAVAILABLE, now, error="the function was stopped before it ended")
        pending, self._pending = self._pending, deque()
        for call in pending:
            self._waits_no_more(call)
            self._finish(call, Outcome.UNAVAILABLE, now, error="the function was stopped before it began")
        self.sink.flush()
        await asyncio.gather(*self._starts, *self._renewals, return_exceptions=True)
        await asyncio.gather(*(link.gone() for link in links), *self._closing)

    # Calls.

    def submit(self, call: Call) -> None:
        """Take one call: `enqueue` and `flush`."""
        self.enqueue(call)
        self.flush()

    def enqueue(self, call: Call) -> None:
        """Take a call of a batch; `flush` must follow when the batch is at its end. Never blocks.

        Each call ends in exactly one `Sink.finished`, perhaps within this very one.
        """
        self._next_id = call.id = self._next_id + 1
        if self._draining:
            self._refused = True
            self._finish(call, Outcome.UNAVAILABLE, call.received_ns, error="the function is stopping")
            return
        size = call.size = len(call.payload) + len(call.headers) + len(call.subject) + len(call.reply)
        if call.deadline_ns <= call.received_ns:
            self._refused = True
            self._expire(call, call.received_ns)
            return
        if not self._pending:
            for link in self._links:
                if link.has_room(size):
                    if link.send(call, self._timeout_ns, self._queue_timeout_ns):
                        self._dirty.append(link)
                    if self._single_use:
                        self._prepare()
                    return
        limits = self.limits
        if len(self._pending) >= limits.max_pending or self._pending_bytes + size > limits.max_pending_bytes:
            self._refused = True
            waiting = f"{len(self._pending)} invocations ({self._pending_bytes} bytes) are waiting already"
            self._finish(call, Outcome.REJECTED, call.received_ns, error=waiting)
            return
        if not self._backlog.admits(len(self._pending), self._pending_bytes, size):
            self._refused = True
            waiting = "too many invocations, of all functions together, are waiting already"
            self._finish(call, Outcome.REJECTED, call.received_ns, error=waiting)
            return
        self._pending.append(call)
        self._pending_bytes += size
        self._backlog.add(size)
        hurried = call.deadline_ns < self._next_deadline
        if hurried:
            self._next_deadline = call.deadline_ns
        if self._single_use:
            self._prepare()
        elif not self._links:
            self._begin_start()
        if hurried or len(self._pending) == 1:
            self._arm_queue_timer()

    def refuse(self, call: Call, code: int, error: str) -> None:
        """End a call of a batch, in place of `enqueue`, which is not as a call has to be."""
        self._next_id = call.id = self._next_id + 1
        self._refused = True
        self.sink.finished(call, Result(Outcome.REJECTED, code, error=error))

    def capacity(self) -> int:
        """How many calls it gets through without letting them wait for long.

        What its workers have and what they are sent when they have answered, and one for each worker more that it may
        have: for calls that are fetched and not pushed.
        """
        return sum(2 * link.window - 1 for link in self._links) + self.limits.max_workers - len(self._links)

    def stats(self) -> PoolStats:
        """Figures for metrics, heartbeats and tests."""
        return PoolStats(
            workers=len(self._links) + len(self._leaving),
            busy=sum(1 for link in self._links if link.fifo) + len(self._leaving),
            starting=len(self._starts),
            pending=len(self._pending),
            pending_bytes=self._pending_bytes,
            in_flight=sum(len(link.fifo) for link in (*self._links, *self._leaving)),
            cold_starts=self._cold_starts,
            deaths=dict(self._deaths),
            log_lines_dropped=self._dropped_in_all,
            unwell=self.unwell,
        )

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one whenever `stats` tells something else, or a call has come, begun or ended, since the last look.

        For whoever looks at many pools, most of them idle: it costs a fraction of what `stats` does. What a call
        changes, it changes when it comes, when a worker gets it, and when it ends: the first is counted, and between
        the others it waits or is in flight.
        """
        in_flight = 0
        for link in self._links:
            in_flight += len(link.fifo)
        for link in self._leaving:
            in_flight += len(link.fifo)
        return (
            self._next_id,
            len(self._pending),
            in_flight,
            len(self._links),
            len(self._leaving),
            len(self._starts),
            self._cold_starts,
            self._died,
            self._deaths_in_row,
            self._dropped_in_all,
        )

    @property
    def busy(self) -> bool:
        """Whether it has calls that have not ended."""
        return bool(self._pending or self._leaving or any(link.fifo for link in self._links))

    @property
    def asleep(self) -> bool:
        """Whether it has nothing to do, and nobody to do it: what is left is its program."""
        return not (self._links or self._pending or self._starts or self._leaving)

    @property
    def unwell(self) -> bool:
        """Workers die one after another."""
        return self._deaths_in_row >= UNWELL_AFTER

    def invocation_id(self, call: Call) -> str:
        """As the event and the function's own `event.invocation_id` say it."""
        return f"{self.prefix}{call.id:x}"

    def flush(self) -> None:
        """Write what was enqueued, a batch to each worker, and let the sink do so with what ended at once."""
        dirty = self._dirty
        if dirty:
            for link in dirty:
                link.flush()
            dirty.clear()
        if self._refused:
            self._refused = False
            self.sink.flush()

    def _refill(self, link: Link) -> None:
        """Give a worker what waits, as far as it has room, in one write."""
        pending = self._pending
        while pending and link.has_room(pending[0].size):
            call = pending.popleft()
            self._waits_no_more(call)
            link.send(call, self._timeout_ns, self._queue_timeout_ns)
        link.flush()

    def _waits_no_more(self, call: Call) -> None:
        self._pending_bytes -= call.size
        self._backlog.remove(call.size)

    def _expire(self, call: Call, now: int) -> None:
        waited = (now - call.received_ns) // 1_000_000
        by = ", as long as its caller gave it" if call.deadline_ns <= now else ""
        self._finish(call, Outcome.EXPIRED, now, error=f"waited {waited} ms for a worker{by}, and was not run")

    def _finish(self, call: Call, outcome: Outcome, now: int, *, error: str = "") -> None:
        self.sink.finished(call, Result(outcome, CODES[outcome], max(0, now - call.received_ns), error=error))

    # What a link tells.

    def answered(self, link: Link) -> None:
        """A batch of answers was read from `link`."""
        self._deaths_in_row = 0
        if self._single_use:
            self._links.remove(link)
            link.close()
            self._track(link)
            self._replace()
        if self._pending:
            for other in self._links:
                self._refill(other)
            if self._pending:
                self._arm_queue_timer()
        self.sink.flush()
        if not link.fifo:
            if self._leaving and link in self._leaving:
                self._discard(link)
                self._left(link)
            if self._drained is not None:
                self._look_drained()
            elif self._idle_timer is None and len(self._links) > self.limits.min_workers:
                self._arm_idle_timer(self.limits.idle)

    def returned(self, calls: list[Call]) -> None:
        """A worker hands back calls it did not begin, in their order: they are the next in line."""
        for call in reversed(calls):
            self._pending.appendleft(call)
            self._pending_bytes += call.size
            self._backlog.add(call.size)
            if call.deadline_ns < self._next_deadline:
                self._next_deadline = call.deadline_ns

    def may_log(self, size: int) -> bool:
        """Whether output of `size` bytes is passed on; what is not is counted, and the count is told in time."""
        if self._log_rate.allows(size, time.monotonic_ns()):
            return True
        self.dropped(1)
        return False

    def dropped(self, lines: int) -> None:
        """So many lines were kept back. The author reads the number within a second, in one line."""
        self._dropped += lines
        self._dropped_in_all += lines
        if self._dropped_timer is None and not self._closed:
            assert self._loop is not None
            self._dropped_timer = self._loop.call_later(TELL_DROPPED, self._tell_dropped)

    def _tell_dropped(self) -> None:
        self._dropped_timer = None
        if self._dropped:
            note = f"{self._dropped} lines dropped: output over the limit log_rate"
            self._dropped = 0
            self.sink.logged(0, "stderr", LEVEL_WARNING, note.encode())

    def ended(self, link: Link, end: LinkEnd) -> None:
        """A worker is gone, or was killed: settle its calls and see to a replacement."""
        if link in self._links:
            self._links.remove(link)
        elif link is self._successor:
            self._successor = None
        now = time.monotonic_ns()
        calls = end.calls
        at = next((index for index, call in enumerate(calls) if call.id == end.running), None)
        if at is None and end.outcome is Outcome.TIMEOUT:
            # It never said that it began (stopped from outside, or starved): its time is up all the same.
            at = 0
        for index, call in enumerate(calls[: at + 1] if at is not None else ()):
            if index == at:
                run = max(0, now - end.since_ns)
                waited = max(0, end.since_ns - call.received_ns)
                result = Result(
                    end.outcome, CODES[end.outcome], waited, run, end.cpu_ns, end.peak_memory_bytes, end.reason
                )
            else:
                result = Result(Outcome.CRASH, CODES[Outcome.CRASH], error="it ran, and its answer was lost")
            self.sink.finished(call, result)
        self.returned(list(calls[at + 1 :] if at is not None else calls))
        self._count_death(end.outcome.value)
        if end.outcome is Outcome.CRASH:
            self._deaths_in_row += 1
            self.last_failure = end.reason
        self._track(link)
        if link in self._leaving:
            self._left(link)
        self.sink.flush()
        self.sink.changed()
        self._replace()

    def _count_death(self, reason: str) -> None:
        self._deaths[reason] = self._deaths.get(reason, 0) + 1
        self._died += 1

    def _left(self, link: Link) -> None:
        """One of those that were to finish has."""
        self._leaving.remove(link)
        if self._successor is not None:
            successor, self._successor = self._successor, None
            self._admit(successor)
        self.sink.changed()
        self._replace()

    def _discard(self, link: Link) -> None:
        link.close()
        self._track(link)

    def _track(self, link: Link) -> None:
        assert self._loop is not None
        task = self._loop.create_task(link.gone())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # Workers.

    def _replace(self) -> None:
        if self._closed:
            return
        if self._drained is not None:
            self._look_drained()
        for link in self._links:
            self._refill(link)
        if self._single_use:
            self._prepare()
        elif len(self._links) < self._kept or (self._pending and not self._links):
            self._begin_start()
        if self._pending:
            self._arm_queue_timer()

    @property
    def _kept(self) -> int:
        """So many workers are kept ready: one where there was one, so that no call pays for the end of the last."""
        return 0 if self._draining else max(self.limits.min_workers, 1)

    def _prepare(self) -> None:
        """Where each call takes a worker of its own: one for every call that waits, and spares, side by side."""
        free = sum(not link.fifo for link in self._links) + len(self._starts)
        for _ in range(min(len(self._pending) + self._kept - free, self._room)):
            self._begin_start()

    def _begin_start(self) -> None:
        """Start a worker in the background, unless one is on its way or the pool must wait before the next try."""
        if (self._starts and not self._single_use) or self._retry_timer is not None or self._closed or self._held:
            return
        if self._room <= 0:
            return
        assert self._loop is not None
        if self.unwell:
            first, longest = BACK_OFF
            delay = min(longest, first * 2.0 ** min(self._deaths_in_row - UNWELL_AFTER, 20))
            self._retry_timer = self._loop.call_later(delay, self._retry)
            return
        self._start_now()

    @property
    def _room(self) -> int:
        """So many workers more there may be."""
        return self.limits.max_workers - len(self._links) - len(self._leaving) - len(self._starts)

    @property
    def _held(self) -> bool:
        """No worker is started that would only stand still while its time for loading passes."""
        return self.budget is not None and self.budget.held

    def budget_changed(self) -> None:
        """Its workers may run again, so that more of them may be of use."""
        if not self._draining:
            self._replace()

    def _retry(self) -> None:
        self._retry_timer = None
        if not self._closed and not self._starts and self._room > 0:
            self._start_now()

    def _start_now(self) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._start_one(), name=f"start worker {self.program.name}")
        self._starts.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starts.discard(task)
        if not self._closed:
            self._replace()

    async def _start_one(self) -> None:
        try:
            await self._open_link()
        except SandboxError as error:
            # It loaded once, when the function was deployed: that it does not now is a death like any other.
            problems = getattr(error, "problems", ())
            self.last_failure = problems[0].message if problems else str(error)
            self._count_death("load")
            self._deaths_in_row += 1
            self.sink.changed()

    async def _open_link(self, *, compiling: float = 0.0) -> None:
        """One more worker. `compiling`: seconds of the time for loading that compiling has taken."""
        program = self.program
        link = await self._load_link(program, compiling=compiling)
        if self._closed or program is not self.program:
            self._discard(link)
        else:
            self._admit(link)

    async def _load_link(self, program: Program, *, compiling: float = 0.0) -> Link:
        began = time.monotonic_ns()
        process = await self.zygote.spawn(self.profile, self.limits.memory)
        link = Link(process, self)
        left = max(0.001, self.limits.load_timeout - compiling)
        try:
            await link.load(program, self.limits, self.prefix, self.compiled, timeout=left)
        except BaseException:
            self._discard(link)
            raise
        self._cold_starts += 1
        self.start_times.add(time.monotonic_ns() - began)
        return link

    def _admit(self, link: Link) -> None:
        self._links.append(link)
        self._refill(link)
        if self.warm is not None:
            self.warm.started()
        if not link.fifo and self._idle_timer is None and len(self._links) > self.limits.min_workers:
            self._arm_idle_timer(self.limits.idle)
        self.sink.changed()

    # Time.

    def _arm_queue_timer(self) -> None:
        """Have the queue looked at when its head may have a second worker or has waited too long.

        A timer that fires too early costs a look; only one that would fire too late is set anew.
        """
        assert self._loop is not None
        now = time.monotonic_ns()
        due = self._pending[0].received_ns + self._queue_timeout_ns
        if self._next_deadline < due:
            due = max(self._next_deadline, self._looked_ns + LOOK_EVERY_NS)
        if self._links and self._room > 0 and not self._starts and not self._held:
            due = min(due, max(now, self._pending[0].received_ns + GROW_AFTER_NS))
        if self._queue_timer is not None:
            if self._queue_due <= due:
                return
            self._queue_timer.cancel()
        self._queue_due = due
        self._queue_timer = self._loop.call_later(max(0, due - now) / 1e9, self._on_queue_timer)

    def _on_queue_timer(self) -> None:
        self._queue_timer = None
        pending = self._pending
        now = time.monotonic_ns()
        while pending and pending[0].received_ns + self._queue_timeout_ns <= now:
            call = pending.popleft()
            self._waits_no_more(call)
            self._expire(call, now)
        if self._next_deadline <= now:
            self._expire_hurried(now)
        self.sink.flush()
        if self._drained is not None:
            self._look_drained()
        if not pending:
            return
        waited_ns = now - pending[0].received_ns
        if self._single_use:
            self._prepare()
        elif waited_ns >= GROW_AFTER_NS and len(self._links) < self.limits.max_workers:
            self._begin_start()
        self._arm_queue_timer()

    def _expire_hurried(self, now: int) -> None:
        """Answer those whose callers have given up, wherever in the queue they are."""
        self._looked_ns = now
        self._next_deadline = NEVER_NS
        waiting = list(self._pending)
        self._pending.clear()
        for call in waiting:
            if call.deadline_ns <= now:
                self._waits_no_more(call)
                self._expire(call, now)
                continue
            self._pending.append(call)
            if call.deadline_ns < self._next_deadline:
                self._next_deadline = call.deadline_ns

    def _arm_idle_timer(self, delay: float) -> None:
        assert self._loop is not None
        self._idle_timer = self._loop.call_later(delay, self._on_idle_timer)

    def spare(self) -> list[Link]:
        """Workers that nobody needs at the moment, beyond those that are to be kept; longest idle first."""
        if self._single_use or self._pending:
            return []
        idle = sorted((link for link in self._links if not link.fifo), key=lambda link: link.since_ns)
        return idle[: max(0, len(self._links) - self.limits.min_workers)]

    def retire(self, link: Link) -> None:
        """End a worker that is `spare`."""
        self._links.remove(link)
        self._discard(link)
        self.sink.changed()

    def _on_idle_timer(self) -> None:
        self._idle_timer = None
        now = time.monotonic_ns()
        idle_ns = int(self.limits.idle * 1e9)
        spare = len(self._links) - self.limits.min_workers
        for link in [link for link in self._links if not link.fifo and now - link.since_ns >= idle_ns][: max(0, spare)]:
            self._links.remove(link)
            link.close()
            self._track(link)
            spare -= 1
        if spare > 0 and self._links:
            oldest = min(link.since_ns for link in self._links)
            self._arm_idle_timer(max(0.001, (oldest + idle_ns - now) / 1e9))
        self.sink.changed()

    def _look_drained(self) -> None:
        assert self._drained is not None
        if not self._drained.done() and not self.busy:
            self._drained.set_result(None)
