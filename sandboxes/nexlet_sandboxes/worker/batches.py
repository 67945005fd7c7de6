"""The loop of a worker whose handler takes many events at a call: what lies ready, and an outcome for each.

A batch is what the socket gave, cut at the program's `batch`: it never waits for company. Invocations in it are
neighbours: one that has waited too long to be run ends the batch before it. So does a message that is delivered again,
which is run alone: what it failed with may have been another one's fault, and that is not to happen to it twice. All of
a batch begin together, and the marker says so with two words, the first and the last of them, so that the nexlet knows
of all of them that they ran should this process die. Their answers leave before the next batch begins.

What is of the invocation in a plain worker is here of the batch: the time that is left is that of the first caller who
gives up, output and metrics go by the first event, and what it asks for is asked for by all of them together unless it
says for which.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nexlet_sandboxes.calls import NEVER_NS
from nexlet_sandboxes.frames import (
    INVOKE_EXTRA,
    INVOKE_FIGURES,
    RESULT,
    RESULT_EXTRA,
    Ending,
    Kind,
    Splitter,
)
from nexlet_sandboxes.language import Loaded
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.worker.context import Context
from nexlet_sandboxes.worker.endings import Said, Unserialisable, encode, raised, too_large
from nexlet_sandboxes.worker.event import Event, Reply, encode_headers
from nexlet_sandboxes.worker.output import Output

if TYPE_CHECKING:
    from nexlet_sandboxes.worker.loop import Worker

__all__ = ["FIRST", "Batches"]

FIRST: Final = 4
"""The word of the marker with the first invocation of the running batch; word 0 has the last one."""

RECEIVE: Final = 256 * 1024
SENT_AT_ONCE: Final = 256 * 1024
"""Bytes of answers that are put together for one write: large ones are not held twice."""

BRIEF_NS: Final = 50_000
"""As in the loop of single invocations: a shorter batch is not worth asking the kernel about."""

MAX_U32: Final = (1 << 32) - 1

# Members of an enumeration are ten times as far away as names of the module.
_INVOKE: Final = int(Kind.INVOKE)
_RESULT: Final = int(Kind.RESULT)
_OK: Final = Ending.OK

Taken = tuple[int, int, bytes, int, int]
"""An invocation that is to be run: its id, the index of its pattern, and the buffer with its place in it."""


class Batches:
    """Answers in batches, in the place of a worker's own loop."""

    def __init__(self, worker: Worker, output: Output, loaded: Loaded, context: Context, program: Program) -> None:
        self._worker = worker
        self._output = output
        self._loaded = loaded
        self._context = context
        self._program = program
        self._marker = worker.marker
        self._cpu_before = time.process_time_ns()
        self._brief = 0
        self._slow = False

    def answer(self, splitter: Splitter, receive: Any) -> None:
        """Answer until the nexlet closes the socket, or until memory runs out."""
        worker, marker, most = self._worker, self._marker, self._program.batch
        out, unpack, feed = worker.out, INVOKE_FIGURES.unpack_from, splitter.feed
        batch: list[Taken] = []
        while data := receive(RECEIVE):
            self._slow = False
            now = time.monotonic_ns()
            for kind, _, pattern, call, buffer, start, end in feed(data):
                if kind != _INVOKE:
                    if kind == Kind.ANSWER:
                        continue  # to a batch that has ended
                    return
                _, _, _, attempt, _, expires, _ = unpack(buffer, start)
                again, expired = attempt > 1, expires < now
                if batch and (again or expired):
                    if not self._run(batch):
                        return
                    now = time.monotonic_ns()
                    expired = expires < now
                if self._slow or expired:
                    ending = Ending.RETURNED if self._slow else Ending.EXPIRED
                    out.append(RESULT.pack(RESULT_EXTRA, _RESULT, ending, 0, call, 0, 0, worker.peak_kib, 0))
                    continue
                batch.append((call, pattern, buffer, start, end))
                if again or len(batch) == most:
                    if not self._run(batch):
                        return
                    now = time.monotonic_ns()
            if batch and not self._run(batch):
                return
            worker.flush()
            marker[0] = marker[FIRST] = 0

    def _run(self, batch: list[Taken]) -> bool:
        """Run a batch, send its answers and empty it; False where this process is not fit for another one."""
        worker, marker = self._worker, self._marker
        worker.flush()
        marker[2] = self._cpu_before + self._brief
        marker[1] = began = time.monotonic_ns()
        # In this order: whatever is read of it, what is behind the last one has not begun.
        marker[FIRST] = batch[0][0]
        marker[0] = batch[-1][0]
        worker.running = tuple(call for call, _, _, _, _ in batch)
        answered = 0
        try:
            untils, said = self._said(batch, began)
            self._output.end()
            after = time.monotonic_ns()
            ran, cpu = self._spent(began, after)
            # A call's own figures: it took as long as the batch, and a share of its processor time.
            figures = (ran // 1000) & MAX_U32, (cpu // len(batch) // 1000) & MAX_U32, worker.peak_kib
            unsent = 0
            for (call, _, _, _, _), until, (ending, code, first, second) in zip(batch, untils, said, strict=True):
                if after > until:
                    ending, code, first, second = Ending.LATE, 0, b"", b""
                size = len(first) + len(second)
                head = RESULT.pack(RESULT_EXTRA + size, _RESULT, ending, code, call, *figures, len(first))
                worker.out += (head, first, second)  # whole or not at all, should memory be short
                answered += 1
                unsent += size
                if unsent > SENT_AT_ONCE:
                    worker.flush()
                    unsent = 0
        except MemoryError:
            call = batch[answered][0]
            self._output.end()
            worker.out.append(RESULT.pack(RESULT_EXTRA, _RESULT, Ending.MEMORY, 0, call, 0, 0, worker.peak_kib, 0))
            worker.flush()
            return False
        finally:
            worker.running = ()
        worker.flush()
        batch.clear()
        return True

    def _said(self, batch: Sequence[Taken], began: int) -> tuple[list[int], list[Said]]:
        """When the time of each is over, and what it answers.

        Raises:
            MemoryError: one of them has run out of it, and so have all.
        """
        worker, program, loaded = self._worker, self._program, self._loaded
        untils: list[int] = []
        limit, patience = NEVER_NS, 0
        events: list[Event] = []
        prefix, patterns, unpack = program.run_prefix, program.patterns, INVOKE_FIGURES.unpack_from
        for call, pattern, buffer, start, end in batch:
            subjects, replies, headers, attempt, allowed_us, _, until = unpack(buffer, start)
            allowed = began + allowed_us * 1000
            untils.append(min(allowed, until))
            limit, patience = min(limit, allowed), max(patience, until)
            subject = start + INVOKE_EXTRA
            reply = subject + subjects
            block = reply + replies
            payload = block + headers
            events.append(
                Event(
                    buffer[subject:reply],
                    buffer[payload:end],
                    buffer[block:payload],
                    buffer[reply:block],
                    attempt,
                    prefix,
                    call,
                    patterns[pattern],
                )
            )
        # As the nexlet has it: that one of the callers has given up is no reason to end what others wait for.
        worker.deadline = min(limit, patience)
        worker.first_deadline = min(untils)
        self._output.call = batch[0][0]
        try:
            outcomes = self._outcomes(loaded.handler(events, self._context), len(batch))
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like are the author's faults, too
            ending, code, first, second = raised(error, loaded)
            # One traceback is enough for whoever reads the log: it is the first one's.
            rest = b"" if ending is Ending.ERROR else second
            said = [(ending, code, first, second), *[(ending, code, first, rest)] * (len(batch) - 1)]
        else:
            said = [self._one(outcome) for outcome in outcomes]
        if worker.memory_exceeded or any(ending is Ending.MEMORY for ending, _, _, _ in said):
            raise MemoryError
        return untils, said

    def _outcomes(self, returned: object, count: int) -> Sequence[object]:
        """What the handler says of each event.

        Raises:
            Unserialisable: it does not say so of each.
        """
        if returned is None:
            return (None,) * count
        wanted = f"a handler with batch: {self._program.batch} returns None, or a list with an outcome for each event"
        if type(returned) is not list and type(returned) is not tuple:
            raise Unserialisable(f"{wanted}; it returned {_article(type(returned).__name__)}")
        if len(returned) != count:
            raise Unserialisable(f"{wanted}; it returned {len(returned)} for {count}")
        return returned

    def _one(self, outcome: object) -> Said:
        if issubclass(type(outcome), BaseException):
            ending, code, first, second = raised(outcome, self._loaded)  # type: ignore[arg-type]  # just looked at
            # One that was never raised has no traceback.
            return ending, code, first, b"" if ending is Ending.ERROR and second == first else second
        first = b""
        try:
            if type(outcome) is Reply:
                first = encode_headers(outcome.headers)
                outcome = outcome.data
            second = encode(outcome, self._marker)
            size = len(first) + len(second)
            if size > self._worker.max_reply:
                raise too_large(size, self._worker.max_reply)
        except BaseException as error:  # noqa: BLE001  # as above
            return raised(error, self._loaded)
        return _OK, 0, first, second

    def _spent(self, began: int, after: int) -> tuple[int, int]:
        """How long the batch ran and what processor time it took, in nanoseconds."""
        ran = after - began
        if ran < BRIEF_NS:
            self._brief += ran
            return ran, ran
        self._worker.peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu_now = time.process_time_ns()
        cpu = max(0, min(ran, cpu_now - self._cpu_before - self._brief))
        self._cpu_before, self._brief = cpu_now, 0
        self._marker[2] = cpu_now
        self._slow = ran > self._worker.slow_ns
        return ran, cpu


def _article(name: str) -> str:
    return f"an {name}" if name.startswith(tuple("aeiouAEIOU")) else f"a {name}"
