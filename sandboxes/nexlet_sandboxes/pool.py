"""The calls of one function: a queue, and workers that get them out of it as they have room.

`Pool` takes calls and never blocks; each ends in exactly one `Sink.finished`. A call waits in one queue until a worker
has room. A worker is sent ahead only as much work as it gets through in about a millisecond, by how long the last
calls ran, so a fast function gets its frames in batches while a slow one gets them one at a time and a second worker
soon. No task, future or timer is made for a call: there is one timer for the queue and one for each worker, armed when
there is something to wait for and looked at when it fires.

What happens to the calls of a worker that dies follows from what it was at (`WorkerProcess.running_call`): the one it
ran, or all of the batch, ends by its cause, those before it ran and lost their answer (502, never run again), those
behind it never began and go back to the head of the queue.

When workers are started and let go is `growth.py`; how those of a renewed program take over, `renewal.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from nexlet_models.problems import Problem
from nexlet_sandboxes.asking import Answerer
from nexlet_sandboxes.backlog import Backlog
from nexlet_sandboxes.budget import Budget
from nexlet_sandboxes.calls import NEVER_NS, Call, Result, Sink
from nexlet_sandboxes.growth import Growth
from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.link import Link, LinkEnd
from nexlet_sandboxes.lograte import LogRate
from nexlet_sandboxes.outcomes import CODES, LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.profiles import DEFAULT, PROFILES
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.renewal import Renewal
from nexlet_sandboxes.reserve import Reserve
from nexlet_sandboxes.warm import Warm
from nexlet_sandboxes.zygote import Zygote

__all__ = ["Pool", "PoolStats"]

LOOK_EVERY_NS: Final = 10_000_000
"""Nanoseconds between two looks through the queue for callers who have given up: all of it has to be looked at, since
their deadlines are in no order."""

MOST_FETCHED: Final = 512
"""So many calls at most are fetched to see whether there should be more workers. Where they are done too soon for that,
they are so quick that workers are not what they wait for."""

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
        single_use: each call has a worker of its own, by the profile.
        draining, closed: it takes no more calls; nothing of it runs any more.
        others_wait: asked after each piece of what its workers said; where it says yes, the loop has a turn before the
            next one. None, as it is at first: it gives way to nobody.
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
        reserve: Reserve | None = None,
        answerer: Answerer | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            backlog: room for waiting calls, shared with other pools; None: as much as the limits say.
            budget: processor time, likewise; None: no bound.
            warm: how many workers may stand idle, likewise; None: as many as do.
            reserve: workers that wait for a program, likewise; None: each is forked when it is needed.
            answerer: answers what the function asks for; None: it was granted nothing.

        Raises:
            SandboxError: there is no such profile, or it does not go with the program's batches.
        """
        if profile not in PROFILES:
            raise SandboxError(f"there is no sandbox profile {profile!r}; there are: {', '.join(sorted(PROFILES))}")
        self.zygote = zygote
        self.program = program
        self.limits = limits
        self.profile = profile
        self.single_use = PROFILES[profile].single_use
        if self.single_use and program.batch > 1:
            raise SandboxError(
                f"the profile {profile!r} runs each invocation in a process of its own, and batch: {program.batch} "
                "several in one: leave batch out, or choose another profile"
            )
        self.sink = sink
        self.prefix = program.run_prefix or f"{secrets.token_urlsafe(9)}."
        self._timeout_ns = int(limits.timeout * 1e9)
        self._queue_timeout_ns = int(limits.queue_timeout * 1e9)
        self._pending: deque[Call] = deque()
        self._pending_bytes = 0
        self._backlog = backlog or Backlog(2 * limits.max_pending, 2 * limits.max_pending_bytes)
        self.answerer = answerer
        self.budget = budget
        self.warm = warm
        self.reserve = reserve
        self._next_id = 0
        self._dirty: list[Link] = []
        self._refused = False
        self._queue_timer: asyncio.TimerHandle | None = None
        self._queue_due = 0
        self._next_deadline = NEVER_NS
        self._looked_ns = 0
        self._drained: asyncio.Future[None] | None = None
        self.draining = False
        self.closed = False
        self.others_wait: Callable[[], bool] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.compiled = b""
        self._log_rate = LogRate(limits.log_rate, time.monotonic_ns())
        self._dropped = self._dropped_in_all = 0
        self._dropped_timer: asyncio.TimerHandle | None = None
        self.lateness = Histogram()
        self._growth = Growth(self)
        self._links = self._growth.links
        self._leaving = self._growth.leaving
        self._renewal = Renewal(self, self._growth)

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
                self.compiled = await self._growth.translate()
            await self._growth.open(compiling=self._loop.time() - began)
        except BaseException:
            await self.close()
            raise
        self.workers_changed()

    async def check(self) -> tuple[Problem, ...]:
        """Everything that is wrong with the sources, looked at in a worker of its own. Nothing of them is run.

        Raises:
            SandboxError: no worker could be made, or it ended without a word.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._growth.translate()
        except LoadRefused as refused:
            return refused.problems
        return ()

    async def renew(self, program: Program) -> None:
        """Have calls run by workers that have loaded `program`, from now on: the same sources, another environment.

        A first worker of it is loaded, then those that are here get no more calls, and end when they have finished what
        they were sent. No call is lost. Where all the workers that there may be are at work, the new one has its turn
        when the first of them has finished.

        Raises:
            LoadRefused: it raised or took too long to load; everything is as before.
            SandboxError: no worker could be made; likewise.
        """
        await self._renewal.renew(program)

    async def drain(self, grace: float) -> None:
        """Take no more calls, finish what is here within `grace` seconds, then close.

        What is not finished by then ends `unavailable`.
        """
        self.draining = True
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
        self.draining = self.closed = True
        for timer in (self._queue_timer, self._dropped_timer):
            if timer is not None:
                timer.cancel()
        self._tell_dropped()
        links = [*self._growth.close(), *self._renewal.close()]
        now = time.monotonic_ns()
        for link in links:
            for call in link.close():
                self._finish(call, Outcome.UNAVAILABLE, now, error="the function was stopped before it ended")
        pending, self._pending = self._pending, deque()
        for call in pending:
            self._waits_no_more(call)
            self._finish(call, Outcome.UNAVAILABLE, now, error="the function was stopped before it began")
        self.sink.flush()
        await self._renewal.closed()
        await self._growth.closed()
        await asyncio.gather(*(link.gone() for link in links))

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
        if self.draining:
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
                    if self.single_use:
                        self._growth.prepare()
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
        if self.single_use:
            self._growth.prepare()
        elif not self._links:
            self._growth.begin()
        if hurried or len(self._pending) == 1:
            self._arm_queue_timer()

    def refuse(self, call: Call, code: int, error: str) -> None:
        """End a call of a batch, in place of `enqueue`, which is not as a call has to be."""
        self._next_id = call.id = self._next_id + 1
        self._refused = True
        self.sink.finished(call, Result(Outcome.REJECTED, code, error=error))

    def capacity(self) -> int:
        """How many calls it gets through without letting them wait for long.

        What its workers have and what they are sent when they have answered, and a batch, which is mostly one, for each
        worker more that it may have: for calls that are fetched and not pushed. While there may be more, it is enough
        to show that they are wanted, also when half of it is done and more is fetched.
        """
        more = self.limits.max_workers - len(self._links)
        batch = self.program.batch
        through = sum(2 * max(link.window, batch) - 1 for link in self._links) + more * batch
        return max(through, min(2 * self._growth.too_many(), MOST_FETCHED, self.limits.max_pending))

    def stats(self) -> PoolStats:
        """Figures for metrics, heartbeats and tests."""
        return PoolStats(
            workers=len(self._links) + len(self._leaving),
            busy=sum(1 for link in self._links if link.fifo) + len(self._leaving),
            starting=self._growth.starting,
            pending=len(self._pending),
            pending_bytes=self._pending_bytes,
            in_flight=sum(len(link.fifo) for link in (*self._links, *self._leaving)),
            cold_starts=self._growth.cold_starts,
            deaths=dict(self._growth.deaths),
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
            self._growth.starting,
            self._growth.cold_starts,
            self._growth.died,
            self._growth.deaths_in_row,
            self._dropped_in_all,
        )

    def calls(self) -> Iterator[Call]:
        """Those that have not ended."""
        for link in (*self._leaving, *self._links):
            yield from link.fifo
        yield from self._pending

    def sockets(self) -> Iterator[int]:
        """The descriptors of what its workers say it over."""
        for link in (*self._leaving, *self._links):
            yield link.process.sock.fileno()

    @property
    def taken(self) -> int:
        """How many calls it was given so far."""
        return self._next_id

    @property
    def busy(self) -> bool:
        """Whether it has calls that have not ended."""
        return bool(self._pending or self._leaving or any(link.fifo for link in self._links))

    @property
    def asleep(self) -> bool:
        """Whether it has nothing to do, and nobody to do it: what is left is its program."""
        return not (self._links or self._pending or self._growth.starting or self._leaving)

    @property
    def unwell(self) -> bool:
        """Workers die one after another."""
        return self._growth.unwell

    @property
    def last_failure(self) -> str:
        """Why the last worker died that did, in one line; "" where none has."""
        return self._growth.last_failure

    @property
    def start_times(self) -> Histogram:
        """From asking for a worker until the program was loaded in it."""
        return self._growth.start_times

    @property
    def pending(self) -> int:
        """How many calls wait for a worker."""
        return len(self._pending)

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

    def refill(self, link: Link) -> None:
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
        self._growth.deaths_in_row = 0
        if self.single_use:
            self._links.remove(link)
            self._growth.discard(link)
            self.workers_changed()
        if self._pending:
            for other in self._links:
                self.refill(other)
            if self._pending:
                self._arm_queue_timer()
        self.sink.flush()
        if not link.fifo:
            if self._leaving and link in self._leaving:
                self._growth.discard(link)
                self._renewal.left(link)
            if self._drained is not None:
                self._look_drained()
            else:
                self._growth.idle()

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
        if self._dropped_timer is None and not self.closed:
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
        now = time.monotonic_ns()
        calls = end.calls
        for index, call in enumerate(calls[: end.began]):
            if index >= end.began - end.running:
                run = max(0, now - end.since_ns)
                waited = max(0, end.since_ns - call.received_ns)
                result = Result(
                    end.outcome, CODES[end.outcome], waited, run, end.cpu_ns, end.peak_memory_bytes, end.reason
                )
            else:
                result = Result(Outcome.CRASH, CODES[Outcome.CRASH], error="it ran, and its answer was lost")
            self.sink.finished(call, result)
        self.returned(list(calls[end.began :]))
        self._growth.lost(link, end)
        self._renewal.lost(link)
        self.sink.flush()
        self.sink.changed()
        self.workers_changed()

    def workers_changed(self) -> None:
        """Workers came or went: give them what waits, and see that there are as many as there should be."""
        if self.closed:
            return
        if self._drained is not None:
            self._look_drained()
        for link in self._links:
            self.refill(link)
        self._growth.keep_up()
        if self._pending:
            self._arm_queue_timer()

    # Time.

    def _arm_queue_timer(self) -> None:
        """Have the queue looked at when there may have to be more workers, or its head has waited too long.

        A timer that fires too early costs a look; only one that would fire too late is set anew.
        """
        assert self._loop is not None
        now = time.monotonic_ns()
        due = self._pending[0].received_ns + self._queue_timeout_ns
        if self._next_deadline < due:
            due = max(self._next_deadline, self._looked_ns + LOOK_EVERY_NS)
        if self._growth.may_grow:
            due = min(due, max(now, self._growth.look_due_ns(self._pending[0].received_ns)))
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
            self._growth.calm()
            return
        self._growth.look(now)
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

    def _look_drained(self) -> None:
        assert self._drained is not None
        if not self._drained.done() and not self.busy:
            self._drained.set_result(None)
