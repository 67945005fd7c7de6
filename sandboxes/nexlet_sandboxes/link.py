"""One worker process as the pool sees it: frames out in batches, answers in, a deadline over the call at its head.

Everything that comes out of the worker is checked here: lengths, kinds, ids, header lines. The first thing that is not
as the protocol says ends the worker; its word decides about its own calls and nothing else.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import orjson

from nexlet_models.problems import Problem
from nexlet_sandboxes.answers import checked_headers, fill_unhappy, one_line, problems_of
from nexlet_sandboxes.asking import ASK, Ask, Asks, Status, unpack
from nexlet_sandboxes.calls import NEVER_NS, Call, Result
from nexlet_sandboxes.frames import (
    INVOKE,
    INVOKE_EXTRA,
    MAX_COMPILED,
    RESULT_EXTRA,
    RESULT_FIGURES,
    Ending,
    Frame,
    FrameError,
    Kind,
    Splitter,
    frame,
)
from nexlet_sandboxes.lograte import LogRate
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Exit, LayerUnavailable, WorkerProcess

if TYPE_CHECKING:
    from nexlet_sandboxes.pool import Pool

__all__ = ["Link", "LinkEnd"]

RECEIVE: Final = 32 * 1024
"""Bytes read for one wake-up: what a flooding worker gets of the loop before the others have their turn. About two
hundred small answers; with 256 KiB an idle function beside one with large answers waited 4 ms more in the median."""

PIECE: Final = 32
"""Frames after which, of a function that gives way, it is asked whether others wait: some 0.3 ms."""

AHEAD_NS: Final = 1_000_000
"""A worker is sent so much work ahead (nanoseconds, by how long its last calls ran) ..."""

MAX_WINDOW: Final = 256
"""... and so many calls at most."""

AHEAD_BYTES: Final = 1024 * 1024
"""... and so many bytes of messages, unless it is idle: what is sent ahead is memory that waits in a socket."""

BEGINS_WITHIN_NS: Final = 1_000_000_000
"""A worker's word about when it began a call is taken where it is no further (nanoseconds) from when the call was sent,
or the one before it answered: on a busy machine it gets its turn late, and its time counts from then. One that lies
gains no more."""

UNREAD: Final = 64 * 1024
"""Bytes beyond its invocations that may still lie here unsent when a worker asks for something: one of ours has read
the answer before, so there is next to nothing else."""

MAX_REFUSAL: Final = 256 * 1024
MAX_LINE_SLACK: Final = 64
MAX_ASK_SLACK: Final = 1024

FOR_ITSELF_NS: Final = 20_000_000
"""A call is answered so long (nanoseconds) before the time of its invocation is over, or a tenth of that time before if
it has little: what the function does about one that timed out takes time, too."""

TOO_LOUD: Final = 2
"""A worker keeps its own output within `log_rate`. One that sends this many times as much is not what we started."""

OVER_MEMORY: Final = "over its memory limit"

_STREAMS: Final = ("stdout", "stderr")

# Looked up for each message; a member of an enumeration is ten times as far away as a name of the module.
_OK: Final = Outcome.OK
_RESULT: Final = int(Kind.RESULT)
_INVOKE: Final = int(Kind.INVOKE)
_PACK_INVOKE: Final = INVOKE.pack
_MAX_U32: Final = 0xFFFFFFFF
_LONGEST_NS: Final = _MAX_U32 * 1000
"""Of a time that a frame can say, which says it in microseconds: more than an hour."""
_ENDED_OK: Final = int(Ending.OK)
_RETURNED: Final = int(Ending.RETURNED)


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """How a worker ended, and what it leaves.

    Attributes:
        outcome: of what it ran: `timeout`, `memory` or `crash`.
        reason: one line.
        calls: what it had not answered, in order.
        began: so many of them, from the first on, had begun. Those behind them had not.
        running: so many of those, the last ones, were running: one, the calls of a batch, or none.
        since_ns: when these began, as far as is known.
        peak_memory_bytes: of the process; 0 where nobody knows.
        cpu_ns: processor time of each of those that ran, as far as that is known.
    """

    outcome: Outcome
    reason: str
    calls: tuple[Call, ...]
    began: int
    running: int
    since_ns: int
    peak_memory_bytes: int = 0
    cpu_ns: int = 0


class Link:
    """The nexlet's end of one worker.

    Attributes:
        fifo: calls it was sent and has not answered, oldest first.
        window: how many it may have at a time.
        ahead: bytes of these messages.
        since_ns: when the head of `fifo` began, as far as is known; of an idle worker, when it became so.
    """

    __slots__ = (
        "_ahead",
        "_answers",
        "_ask",
        "_asked",
        "_batch",
        "_closed",
        "_drops",
        "_frames",
        "_gone",
        "_loading",
        "_loop",
        "_may_return",
        "_out",
        "_peak",
        "_pool",
        "_ran_us",
        "_reason",
        "_run_us",
        "_splitter",
        "_talk",
        "_timer",
        "_timer_due",
        "_translating",
        "_writing",
        "ahead",
        "fifo",
        "process",
        "since_ns",
        "window",
    )

    def __init__(self, process: WorkerProcess, pool: Pool) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self.process = process
        self.fifo: deque[Call] = deque()
        self.ahead = 0
        self._batch = self.window = 1
        self._ahead = 0
        self.since_ns = time.monotonic_ns()
        self._out: list[bytes | memoryview] = []
        self._writing = False
        self._run_us = 1000.0
        self._ran_us = 0
        self._peak = 0
        self._splitter = Splitter(MAX_REFUSAL)
        self._frames: Iterator[Frame] | None = None  # that were read, and whose turn is yet to come
        self._talk = LogRate(pool.limits.log_rate * TOO_LOUD, self.since_ns)
        self._answers = self._drops = self._may_return = self._asked = 0
        self._ask: Ask | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0
        self._loading: asyncio.Future[bytes] | None = None
        self._translating = False
        self._closed = False
        self._reason = ""
        self._gone: asyncio.Future[None] = self._loop.create_future()
        process.on_exit = self._on_exit
        if pool.budget is not None:
            pool.budget.add(process)
        self._loop.add_reader(process.sock, self.on_readable)

    # Loading.

    async def translate(self, program: Program, limits: Limits, *, timeout: float) -> bytes:
        """Have the worker compile `program` and give the compiled form back; nothing of it is run, and the worker ends.

        Returns:
            What `load` takes; b"" where it is too large to be kept.

        Raises:
            LoadRefused: with everything that is wrong with the sources; or it took longer than `timeout` seconds.
            SandboxError: the worker ended without a word.
        """
        self._splitter = Splitter(max(MAX_REFUSAL, MAX_COMPILED))
        return await self._load(program, limits, "", b"", timeout, translate=True)

    async def load(
        self, program: Program, limits: Limits, prefix: str, compiled: bytes = b"", *, timeout: float
    ) -> None:
        """Have the worker load `program`, from its compiled form where there is one.

        Args:
            timeout: seconds.

        Raises:
            LoadRefused: it was refused, raised, or did not end in time.
            SandboxError: the worker ended without a word.
        """
        self._batch = self.window = program.batch
        await self._load(program, limits, prefix, compiled, timeout)
        # What a ready worker says is as large as a reply may be, and a line of output at most.
        answerer = self._pool.answerer
        asks = answerer.max_size + MAX_ASK_SLACK if answerer is not None else 0
        self._splitter = Splitter(max(limits.max_reply + 64 * 1024, asks))

    async def _load(
        self,
        program: Program,
        limits: Limits,
        prefix: str,
        compiled: bytes,
        timeout: float,
        *,
        translate: bool = False,
    ) -> bytes:
        said = {
            "source": program.source,
            "filename": program.filename,
            "files": dict(program.files),
            "handler": program.handler,
            "environment": dict(program.environment),
            "workload_id": program.workload_id,
            "name": program.name,
            "namespace": program.namespace,
            "patterns": program.patterns or ("",),
            "modules": dict(program.modules),
            "run_prefix": prefix,
            "batch": program.batch,
            "limits": {
                "translate": translate,
                "load_timeout_ns": int(limits.load_timeout * 1e9),
                "max_reply": limits.max_reply,
                "max_ask": self._pool.answerer.max_size if self._pool.answerer is not None else 0,
                # A single worker runs its calls in order: there is nobody to hand them back for.
                "hand_back": limits.max_workers > 1,
                "log_rate": limits.log_rate,
                "max_log_line": limits.max_log_line,
            },
        }
        try:
            body = orjson.dumps(said)
        except TypeError:
            # All of it is text, numbers and mappings: what JSON cannot say of those is half of a surrogate pair.
            problem = Problem(
                message="the sources or the environment hold a lone surrogate, which is no character",
                place=program.filename,
                advice="save them as UTF-8",
                code="syntax-error",
            )
            raise LoadRefused([problem]) from None
        self._loading = self._loop.create_future()
        self._translating = translate
        self._out.append(frame(Kind.LOAD, body + compiled, call=len(body)))
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                form = await self._loading
        except TimeoutError:
            problem = Problem(
                message=f"loading did not end within {limits.load_timeout:g} s",
                place=program.filename,
                advice="work belongs into the handler; what runs at import must be quick (limit load_timeout)",
                code="load-timeout",
            )
            raise LoadRefused([problem]) from None
        finally:
            self._loading = None
        if self._closed and not translate:
            # It was ready, and died before this task had its turn.
            raise SandboxError(f"the worker ended as soon as it was ready: {self._reason}")
        return form

    # What is known of it.

    @property
    def answers(self) -> int:
        """How many calls it has answered, those that it handed back included."""
        return self._answers

    @property
    def ran_ns(self) -> int:
        """How long all that it ran took together, where its batches were full."""
        return self._ran_us * 1000 // self._batch

    @property
    def run_ns(self) -> float:
        """How long a call takes it, by the last ones, a microsecond at least; 0.0 before the first."""
        return max(self._run_us, 1.0) * 1000 if self._answers else 0.0

    def running_ns(self, now: int) -> int:
        """For how long it has been at the call that it says it is at; 0 where it says none.

        Its word: it decides about how many workers its own function has of those that it may have.
        """
        return max(0, now - self.process.began_ns) if self.process.running_call else 0

    # Out.

    def has_room(self, size: int) -> bool:
        """Whether it may be sent one more call, of `size` bytes."""
        waiting = len(self.fifo)
        return not waiting or (waiting < self.window and self.ahead + size <= AHEAD_BYTES)

    def send(self, call: Call, timeout_ns: int, queue_timeout_ns: int) -> bool:
        """Queue a call for the next `flush`; whether this is the first since the last one.

        Args:
            timeout_ns: how long it may run, where the call itself does not say.
            queue_timeout_ns: how long after it came it may begin.
        """
        subject, reply, headers, payload = call.subject, call.reply, call.headers, call.payload
        received_ns, deadline_ns, fifo, out = call.received_ns, call.deadline_ns, self.fifo, self._out
        if call.timeout_ns:
            timeout_ns = call.timeout_ns
        expires_ns = received_ns + queue_timeout_ns
        size = call.size
        first = not out
        out += (
            _PACK_INVOKE(
                INVOKE_EXTRA + size,
                _INVOKE,
                0,
                call.pattern,
                call.id,
                len(subject),
                len(reply),
                len(headers),
                call.attempt,
                timeout_ns // 1000 if timeout_ns < _LONGEST_NS else _MAX_U32,
                expires_ns if expires_ns < deadline_ns else deadline_ns,
                deadline_ns,
            ),
            subject,
            reply,
            headers,
            payload,
        )
        if not fifo:
            self.since_ns = now = time.monotonic_ns()
            if self._timer is None:
                self._arm_timer(now + timeout_ns, now)
        if deadline_ns != NEVER_NS:
            self._arm_timer(deadline_ns, time.monotonic_ns())
        fifo.append(call)
        self.ahead += size
        return first and not self._writing

    def flush(self) -> None:
        """Write what is queued; what the socket does not take waits until it does."""
        if self._batch > 1 and self.fifo:
            # The batch is complete. What comes while a slow one runs is for whoever is free first.
            self.window = self._ahead
        if self._closed or self._writing or not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            sent = self.process.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it ended: the end of the stream is read, and says so to everybody
        if sent < len(data):
            self._out.append(memoryview(data)[sent:])  # not copied for each piece that the socket takes
            self._writing = True
            self._loop.add_writer(self.process.sock, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self.process.sock)
        self._writing = False
        self.flush()

    # In.

    def on_readable(self) -> None:
        """Read once and settle what came; where the function gives way, in pieces while others wait."""
        if self._frames is None:  # else `_go_on` is to come
            self._take_turn(self._pool.others_wait)

    def _pass(self) -> None:
        # What is called soon comes before what has come over sockets: only after those have been looked at.
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._frames is not None:
            self._take_turn(self._pool.others_wait)

    def _take_turn(self, others_wait: Callable[[], bool] | None) -> None:
        """Settle what was read; read before that where nothing is in hand."""
        frames = self._frames
        if frames is None:
            try:
                data = self.process.sock.recv(RECEIVE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._on_end_of_stream()
                return
            frames = self._splitter.feed(data)
        self._frames = None
        try:
            if others_wait is None:
                answers = self._read(frames)
            else:
                answers = self._read(islice(frames, PIECE))
                while self._splitter.cutting and not self._closed:
                    if others_wait():
                        self._frames = frames
                        self._loop.call_soon(self._pass)
                        break
                    answers += self._read(islice(frames, PIECE))
        except FrameError as error:
            # Its marker is as little to be believed as its frames: the oldest call has had its run. Of a batch it is
            # believed where it says that more have.
            began = self._began()[0] if self._batch > 1 else 1
            self._fail(Outcome.CRASH, f"the worker broke the frame protocol: {error}", began=max(began, 1))
            return
        if answers and self._ask is not None and self._ask.call not in self.fifo:
            self._drop_ask()  # its invocation has ended without the answer
        if answers and not self._closed:
            # A call of a batch runs as long as the batch does: so many batches.
            window = int(AHEAD_NS / 1000 / max(self._run_us, 1.0)) * self._batch
            self._ahead = window = MAX_WINDOW if window > MAX_WINDOW else window
            self.window = window or self._batch
            self._pool.answered(self)

    def _read(self, frames: Iterable[Frame]) -> int:
        """Settle these frames; how many calls were answered."""
        returned: list[Call] = []
        try:
            answers, ran = self._take(frames, returned)
        finally:
            # Also where a later frame ends the worker: whoever was given back is still to be served.
            if returned:
                self._pool.returned(returned)
        if answers:
            # What it was sent before we read that something ran may yet come back; what is sent from now on may not.
            self._may_return = len(self.fifo) if ran else self._may_return - answers
            self._answers += answers
        return answers

    def _take(self, frames: Iterable[Frame], returned: list[Call]) -> tuple[int, bool]:
        """Settle `frames`: how many calls were answered, and whether one of them ran."""
        fifo, finished = self.fifo, self._pool.sink.finished
        unpack = RESULT_FIGURES.unpack_from
        now = time.monotonic_ns()
        answers, ran_us, ran = 0, 0, False
        for kind, flag, aux, number, buffer, start, end in frames:
            if kind != _RESULT:
                self._other(kind, flag, aux, number, buffer[start:end], now)
                if self._drops > self._answers + answers + 2:
                    raise FrameError("more counts of dropped lines than it had invocations")
                continue
            at = start + RESULT_EXTRA
            if at > end:
                raise FrameError("a result that is shorter than its header")
            if not fifo or (call := fifo[0]).id != number:
                raise FrameError(f"an answer to invocation {number:x}, which it was not asked")
            run_us, cpu_us, peak_kib, first = unpack(buffer, start)
            split = at + first
            if split > end:
                raise FrameError("a result that is shorter than it says")
            if flag == _RETURNED:
                if not ran and self._may_return <= answers:
                    raise FrameError("an invocation handed back, though nothing before it was slow")
                returned.append(fifo.popleft())
                self.ahead -= call.size
                answers += 1
                continue
            ran = True
            ran_us += run_us
            self._run_us += (run_us - self._run_us) * 0.125
            self._peak = peak = peak_kib * 1024
            run_ns = run_us * 1000
            queue_ns = now - run_ns - call.received_ns
            result = Result(_OK, 200, queue_ns if queue_ns > 0 else 0, run_ns, cpu_us * 1000, peak)
            if flag == _ENDED_OK:
                if first:
                    result.headers = checked_headers(buffer[at:split])
                result.body = buffer[split:end]
            elif not fill_unhappy(
                result, flag, aux, buffer[at:split], buffer[split:end], memory=self._pool.limits.memory
            ):
                # Its heap is in pieces and it ends by itself; nothing behind this call, or its batch, was begun.
                fifo.popleft()
                self.since_ns = now
                finished(call, result)
                self._fail(Outcome.MEMORY, result.error, began=self._began()[0] if self._batch > 1 else 0)
                return answers + 1, True
            # Not a moment earlier: what is not as the protocol says leaves the call where its end is found.
            fifo.popleft()
            self.ahead -= call.size
            answers += 1
            finished(call, result)
        if answers:
            # Output alone is no sign that the call at the head has only begun.
            self.since_ns = now
            self._ran_us += ran_us
        return answers, ran

    def _other(self, kind: int, flag: int, aux: int, number: int, body: bytes, now: int) -> None:
        pool = self._pool
        if kind in (Kind.LOG, Kind.METRIC) and not self._talk.allows(len(body) + 1, now):
            raise FrameError(f"{TOO_LOUD} times as much output as its limit lets it send")
        if kind == Kind.DROPPED:
            self._drops += 1
            pool.dropped(number)
        elif kind == Kind.LOG:
            if flag > 1 or len(body) > pool.limits.max_log_line + MAX_LINE_SLACK:
                raise FrameError("a line of output that is longer than its limit, or for no stream")
            if pool.may_log(len(body) + 1):
                pool.sink.logged(number, _STREAMS[flag], aux, body)
        elif kind == Kind.METRIC:
            if len(body) > pool.limits.max_log_line:
                raise FrameError("a metric longer than a line of output may be")
            try:
                if not isinstance(orjson.loads(body), dict):
                    raise FrameError("a metric that is no JSON object")
            except orjson.JSONDecodeError:
                raise FrameError("a metric that is not JSON") from None
            if pool.may_log(len(body)):
                pool.sink.measured(number, body)
        elif kind == Kind.ASK:
            self._take_ask(flag, number, body, now)
        elif self._loading is not None and not self._loading.done():
            if kind == Kind.READY:
                if body and not self._translating:
                    raise FrameError("a compiled form that it was not asked for")
                self._loading.set_result(body)
            elif kind == Kind.REFUSED:
                if len(body) > MAX_REFUSAL:  # a compiled form may be larger; JSON of that size takes many times as much
                    raise FrameError(f"a refusal of {len(body)} bytes, more than the {MAX_REFUSAL} that are allowed")
                self._loading.set_exception(LoadRefused(problems_of(body)))
            elif kind == Kind.FAILED:
                self._loading.set_exception(LayerUnavailable(one_line(body)))
            else:
                raise FrameError(f"a frame of kind {kind} from a worker that is loading")
        else:
            raise FrameError(f"a frame of kind {kind}")

    # What the function asks for.

    def _take_ask(self, verb: int, number: int, body: bytes, now: int) -> None:
        pool, fifo = self._pool, self.fifo
        if pool.answerer is None:
            raise FrameError("a call, though it was granted nothing")
        running = self._running() if fifo else ()
        # The number 0 stands for all of a batch.
        together = not number and self._batch > 1
        calls = running if together else [call for call in running if call.id == number]
        if not calls:
            raise FrameError(f"a call of invocation {number:x}, which it does not run")
        call = calls[0]
        if self._ask is not None:
            if self._ask.call in running:
                raise FrameError("a call while another one is under way")
            self._drop_ask()
        if len(body) < ASK.size:
            raise FrameError("a call that is shorter than its header")
        numbered, wait_ms = ASK.unpack_from(body)
        self._asked = (self._asked + 1) & 0xFFFFFFFF
        if numbered != self._asked:
            raise FrameError(f"a call with the number {numbered}, where {self._asked} comes next")
        if self._writing and sum(map(len, self._out)) > self.ahead + UNREAD:
            raise FrameError("calls whose answers it does not read")
        asks = call.asks
        if asks is None:
            asks = call.asks = Asks()
        asks.count += 1
        most, count = pool.limits.max_calls * len(running), asks.count
        if len(running) > 1:
            count = sum(each.asks.count for each in running if each.asks is not None)
        if count > most * TOO_LOUD + 1:
            raise FrameError(f"{TOO_LOUD} times as many calls as its limit lets it make")
        deadline = self._head_due() - min(FOR_ITSELF_NS, self._timeout_ns(call) // 10)
        if wait_ms:
            deadline = min(deadline, now + wait_ms * 1_000_000)
        ask = self._ask = Ask(self._answer_ask, calls, asks, verb, numbered, unpack(body, ASK.size), deadline)
        if count > most:
            who = "one invocation" if len(running) == 1 else f"a batch of {len(running)}"
            text = f"more than the {most} calls that {who} may make: limits.max_calls in the Nexfile"
            ask.answer(Status.DENIED, text.encode())
        else:
            pool.answerer.asked(ask)

    def _answer_ask(self, ask: Ask, status: int, body: bytes) -> None:
        if self._ask is not ask or self._closed:
            return  # nobody waits for it any more
        self._ask = None
        self._out.append(frame(Kind.ANSWER, body, flag=status, call=ask.number))
        self.flush()

    def _drop_ask(self) -> None:
        ask, self._ask = self._ask, None
        if ask is not None and ask.on_drop is not None:
            ask.on_drop()

    # Time and end.

    def _arm_timer(self, due_ns: int, now: int) -> None:
        """Have the head looked at no later than `due_ns`. A timer that fires too early costs a look."""
        if self._timer is not None:
            if self._timer_due <= due_ns:
                return
            self._timer.cancel()
        self._timer_due = due_ns
        self._timer = self._loop.call_later(max(0, due_ns - now) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self.fifo or self._closed:
            return
        due = self._head_due()
        if due <= time.monotonic_ns():
            # What it wrote may lie in the socket still, if the loop was busy: read before judging.
            while self._readable_now():
                pass
            if self._closed or not self.fifo:
                return
            due = self._head_due()
        now = time.monotonic_ns()
        if due > now:
            # Those behind it with deadlines of their own may have to be ended earlier, once they are the head.
            later = (call.deadline_ns for call in self.fifo if call.deadline_ns > now)
            self._arm_timer(min(due, min(later, default=due)), now)
            return
        self._pool.lateness.add(now - due)
        running = self._running()
        if due == max(call.deadline_ns for call in running):
            whose = "its caller" if len(running) == 1 else "any of its callers"
            self._fail(Outcome.TIMEOUT, f"took longer than {whose} gave it")
        else:
            limit = min(map(self._timeout_ns, running)) / 1e9
            self._fail(Outcome.TIMEOUT, f"took longer than its limit of {limit:g} s")

    def _timeout_ns(self, call: Call) -> int:
        return call.timeout_ns or int(self._pool.limits.timeout * 1e9)

    def _head_due(self) -> int:
        """When the time of the call at the head is over: its limit, or the end of its caller's patience before that.

        Of a batch: when that of the first one is that has run for its limit, or when all their callers have given up.
        That one of them has is no reason to end what others wait for.
        """
        if self._batch == 1:
            head = self.fifo[0]
            return min(self._head_began() + self._timeout_ns(head), head.deadline_ns)
        running = self._running()
        limit = self._head_began() + min(map(self._timeout_ns, running))
        return min(limit, max(call.deadline_ns for call in running))

    def _began(self) -> tuple[int, int]:
        """How many of the calls here have begun, by the word of the worker, and at which of these its batch begins."""
        process = self.process
        last, first = process.running_call, process.running_first if self._batch > 1 else 0
        began = at = 0
        for number, call in enumerate(self.fifo):
            if call.id == first:
                at = number
            if call.id == last:
                began = number + 1
                break
        else:
            return 0, 0
        # Of a batch whose first one is answered already, all that have begun are what is left.
        return began, at if first else began - 1

    def _running(self) -> Sequence[Call]:
        """The calls that it is at: those of its batch, or the one at the head."""
        began, at = self._began() if self._batch > 1 else (1, 0)
        return [self.fifo[number] for number in range(at, began)] or [self.fifo[0]]

    def _head_began(self) -> int:
        process = self.process
        head = self.fifo[0].id
        if process.running_call == head or (self._batch > 1 and process.running_first == head):
            since, slack = self.since_ns, BEGINS_WITHIN_NS
            return max(since - slack, min(process.began_ns, since + slack))
        return self.since_ns

    def _readable_now(self) -> bool:
        before = len(self.fifo)
        if self._frames is not None:
            self._take_turn(None)
        self._take_turn(None)
        return not self._closed and len(self.fifo) < before

    def _on_end_of_stream(self) -> None:
        self._loop.remove_reader(self.process.sock)
        if self.process.exited is None:
            # The zygote's word how it ended is on its way; without it after a second there is none.
            self.process.kill()
            self._loop.call_later(1.0, self._settle, None)
        else:
            self._settle(self.process.exited)

    def _on_exit(self, how: Exit) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
        if self._closed:
            return
        # Its last answers may still be in the socket.
        while self._readable_now():
            pass
        self._settle(how)

    def _settle(self, how: Exit | None) -> None:
        if self._closed:
            return
        # A worker that lies about it gets what anyone gets who takes too much memory.
        ran_out_in_json = how is not None and how.code == -signal.SIGSEGV and self.process.writes_json
        if how is not None and (how.out_of_memory or ran_out_in_json):
            self._fail(Outcome.MEMORY, OVER_MEMORY)
            return
        reason = how.reason() if how is not None else "for an unknown reason"
        self._fail(Outcome.CRASH, f"the worker died: {reason}")

    def _fail(self, outcome: Outcome, reason: str, *, began: int | None = None) -> None:
        """End the worker and hand its calls back to the pool.

        Args:
            began: how many of them have begun; None: what its marker says.
        """
        said, at = self._began()
        if began is None:
            began = said
            if not began and outcome is Outcome.TIMEOUT:
                began = 1  # it never said so (stopped from outside, or starved): its time is up all the same
        running = began - at if began == said else min(began, 1)
        since_ns = self._head_began() if self.fifo else self.since_ns
        spent, peak = self.process.usage()
        # What it says it had spent before is its word: it decides about its own figure, within the time there was.
        cpu_ns = max(0, min(spent - self.process.spent_before_ns, time.monotonic_ns() - since_ns)) // max(1, running)
        self._reason = reason
        loading = self._loading
        calls = self.close()
        if loading is not None:
            if not loading.done():
                loading.set_exception(_not_loaded(outcome, reason))
            return
        end = LinkEnd(outcome, reason, calls, began, running, since_ns, peak or self._peak, cpu_ns)
        self._pool.ended(self, end)

    def close(self) -> tuple[Call, ...]:
        """Kill the process, let go of it, and give back the calls it had not answered. Safe to repeat."""
        if self._closed:
            return ()
        self._closed = True
        self._frames = None
        self._loop.remove_reader(self.process.sock)
        if self._writing:
            self._loop.remove_writer(self.process.sock)
        if self._timer is not None:
            self._timer.cancel()
        self._drop_ask()
        calls = tuple(self.fifo)
        self.fifo.clear()
        self._out.clear()
        if self._pool.budget is not None:
            self._pool.budget.remove(self.process)
        self.process.kill()
        if self.process.exited is not None and not self._gone.done():
            self._gone.set_result(None)
        return calls

    async def gone(self) -> None:
        """Wait until the process has ended, then give back its descriptors; where nobody can wait, at once."""
        try:
            await self._gone
        finally:
            self.process.close()


def _not_loaded(outcome: Outcome, reason: str) -> SandboxError:
    if outcome is Outcome.MEMORY:
        # Killed by the kernel: the worker could not say so itself.
        return LoadRefused([Problem("the module took more memory than its limit while loading", code="load-memory")])
    return SandboxError(f"{reason} while it loaded")
