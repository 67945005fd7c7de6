"""The loop of a worker process: load one program, then answer invocations, one after another, until the socket ends.

One `recv` takes many frames and one `send` gives many answers. Two promises bound how long an answer may wait for
company. Before a call begins, what is unsent goes out if the batch is 100 microseconds old; and a timer signal sends it
after a millisecond whatever the running call does, as long as it runs Python at all. What a call inside C code strands
all the same is known to the nexlet: the loop writes the id of the call it begins into the marker, a page of memory
that the nexlet can read, so it tells apart what finished, what ran, and what never began.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from nexlet_sandboxes.frames import (
    INVOKE_EXTRA,
    INVOKE_FIGURES,
    MARKER_SIZE,
    MAX_BODY,
    MAX_COMPILED,
    RESULT,
    RESULT_EXTRA,
    Ending,
    Kind,
    Splitter,
    Stream,
    frame,
)
from nexlet_sandboxes.language import Loaded, load, translate
from nexlet_sandboxes.language.explain import Explainer
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.worker import contract
from nexlet_sandboxes.worker.asking import Asker
from nexlet_sandboxes.worker.batches import FIRST, Batches
from nexlet_sandboxes.worker.context import Context, Log, Metrics
from nexlet_sandboxes.worker.contract import BUILTINS
from nexlet_sandboxes.worker.endings import WRITES_JSON, Unserialisable, encode, raised, too_large
from nexlet_sandboxes.worker.event import Event, Reply, encode_headers
from nexlet_sandboxes.worker.grants import Calls
from nexlet_sandboxes.worker.output import Output

__all__ = ["Worker"]

BATCH_NS: Final = 100_000
"""Before a call begins, answers of a batch begun this long ago are sent (nanoseconds)."""

STRANDED_S: Final = 0.001
"""After this long the timer sends what a long call is holding back (seconds)."""

AGAIN_S: Final = 0.02
"""And again after this long (seconds), until it has come to that. A signal that comes just before a call begins to
sleep is only looked at when the sleep is over: nothing interrupts that but another signal."""

SLOW_NS: Final = 2_000_000
"""After a call this long (nanoseconds), what was read along with it goes back: it was sent ahead in the belief that
calls are quick, and another worker may be free. About what the nexlet takes to start one."""

NEVER_NS: Final = 1 << 62
MAX_U32: Final = (1 << 32) - 1

RECEIVE: Final = 256 * 1024
BRIEF_NS: Final = 50_000
"""A call shorter than this (nanoseconds) is not worth asking the kernel about: it cannot have touched much memory, and
its processor time is taken to be the time it took, which is what a call that never waits takes."""


class Worker:
    """One process, one program. Implements the language layer's `Host`: what the author's code may call on.

    Made in the zygote, once, for all the workers to come; in each of them it is told its marker and serves.

    Attributes:
        sock: to the nexlet.
        marker: where it writes what it is at.
        builtins, modules: names the author finds without, and modules with, an import.
        rehearse: goes through a worker's life, for one that waits for its program.
        out: what is to be sent, in whole frames.
        output: what is printed and logged; None before a program is loaded.
        deadline: when what runs is ended from outside (CLOCK_MONOTONIC, nanoseconds).
        first_deadline: likewise when the time of the first one of a batch is over.
        running: the invocations of the batch that runs; empty where they run one at a time.
        peak_kib: the most memory that it has had so far.
        max_reply: bytes.
        slow_ns: after a call that took longer, what was read along with it goes back.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.marker = memoryview(bytearray(MARKER_SIZE)).cast("Q")
        self.out: list[bytes] = []
        self._sending = False
        self._armed = False
        self._batch_began = 0
        self.deadline = self.first_deadline = 0
        self.peak_kib = 0
        self.max_reply = 0
        self.slow_ns = 0
        self.output: Output | None = None
        self._splitter = Splitter(MAX_BODY)
        self._asker: Asker | None = None
        self.running: tuple[int, ...] = ()
        self.memory_exceeded = False
        self.rehearse: Callable[[], None] = lambda: None
        authoring: Mapping[str, object] = {name: getattr(contract, name) for name in contract.__all__}
        self.builtins: Mapping[str, object] = {name: authoring[name] for name in BUILTINS}
        self.modules: Mapping[str, Mapping[str, object]] = {"nexlet_functions.authoring": authoring}

    # What the language layer asks of its host.

    def write(self, stream: str, text: str) -> None:
        """`print`."""
        assert self.output is not None
        self.output.write(Stream.STDERR if stream == "stderr" else Stream.STDOUT, text)

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        """`context.log` and the `logging` module."""
        assert self.output is not None
        self.marker[WRITES_JSON] = 1
        try:
            self.output.log(level, message, fields)
        finally:
            self.marker[WRITES_JSON] = 0

    def remaining(self) -> float:
        """Seconds until the running invocation is ended from outside."""
        return (self.deadline - time.monotonic_ns()) / 1e9

    def remaining_to_first(self) -> float:
        """Seconds until the first caller of the running batch gives up, or all of it is ended from outside."""
        return (self.first_deadline - time.monotonic_ns()) / 1e9

    # The loop.

    def serve(self) -> None:
        """Load what the first frame says, then answer until the nexlet closes the socket.

        SIGALRM has to come to `on_timer`.
        """
        splitter = self._splitter
        frames = self._frames(splitter)
        try:
            kind, _, _, length, buffer, start, end = next(frames)
            while kind == Kind.REHEARSE:
                del buffer
                self.rehearse()
                kind, _, _, length, buffer, start, end = next(frames)
            sys.unraisablehook = self._on_unraisable
            if kind != Kind.LOAD:
                return
            said = orjson.loads(buffer[start : start + length])
            compiled = buffer[start + length : end]
            del buffer
        except (MemoryError, orjson.JSONDecodeError):
            # What the nexlet writes is JSON. That there is no memory for it orjson says as if it were none.
            self._refuse_memory("the sources alone take more memory than the limit", "")
            return
        loaded = self._load(said, compiled)
        del said, compiled
        if loaded is None:
            return
        try:
            (self._answer if loaded[2].batch == 1 else self._answer_batches)(splitter, *loaded)
        except MemoryError:
            # Not in the handler: the invocation alone is more than there is room for.
            call = self.marker[FIRST] or self.marker[0] or splitter.unfinished
            self.out.append(RESULT.pack(RESULT_EXTRA, Kind.RESULT, Ending.MEMORY, 0, call, 0, 0, self.peak_kib, 0))
            self.flush()

    def _frames(self, splitter: Splitter) -> Any:
        while data := self.sock.recv(RECEIVE):
            yield from splitter.feed(data)

    def _load(self, said: dict[str, Any], compiled: bytes) -> tuple[Loaded, Context, Program] | None:
        limits = said.pop("limits")
        self.deadline = time.monotonic_ns() + limits["load_timeout_ns"]
        self.max_reply = limits["max_reply"]
        self.slow_ns = SLOW_NS if limits["hand_back"] else NEVER_NS
        self.output = Output(self._later, rate=limits["log_rate"], max_line=limits["max_log_line"])
        said["patterns"] = tuple(said["patterns"])
        said["modules"] = {name: tuple(names) for name, names in said["modules"].items()}
        program = Program(**said)
        if limits["max_ask"]:
            self._asker = Asker(self.sock, self._splitter, self._at_once, max_size=limits["max_ask"])
        context = Context(
            workload_id=program.workload_id,
            name=program.name,
            namespace=program.namespace,
            environment=program.environment,
            log=Log(self.log),
            metrics=Metrics(self._metric),
            remaining=self.remaining if program.batch == 1 else self.remaining_to_first,
            calls=Calls(self._asker, self._invocation, self._encoded),
        )
        try:
            if limits["translate"]:
                form = translate(program)
                self._later(frame(Kind.READY, form if len(form) <= MAX_COMPILED else b""))
                self.flush()
                return None
            loaded = load(program, self, handler=True, compiled=compiled)
        except LoadRefused as refused:
            self.output.end()
            said_of_it = [
                {name: getattr(problem, name) for name in problem.__dataclass_fields__} for problem in refused.problems
            ]
            self._later(frame(Kind.REFUSED, orjson.dumps(said_of_it)))
            self.flush()
            return None
        except MemoryError:
            self.output.end()
            self._refuse_memory("the module took more memory than its limit while loading", program.filename)
            return None
        self.output.end()
        self.peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._later(frame(Kind.READY))
        self.flush()
        return loaded, context, program

    def _refuse_memory(self, message: str, place: str) -> None:
        self._later(frame(Kind.REFUSED, orjson.dumps([{"message": message, "place": place, "code": "load-memory"}])))
        self.flush()

    def _answer(self, splitter: Splitter, loaded: Loaded, context: Context, program: Program) -> None:
        # Everything the loop touches for each message is a local here: this is the hot path.
        handler, out, marker, output = loaded.handler, self.out, self.marker, self.output
        assert output is not None
        receive = self.sock.recv if self._asker is None else self._asker.receive
        feed, unpack, pack = splitter.feed, INVOKE_FIGURES.unpack_from, RESULT.pack
        now_ns, cpu_ns = time.monotonic_ns, time.process_time_ns
        prefix, patterns, max_reply = program.run_prefix, program.patterns, self.max_reply
        # Members of an enumeration are ten times as far away as locals.
        invoke_kind, result_kind, extra = int(Kind.INVOKE), int(Kind.RESULT), RESULT_EXTRA
        ok, out_of_memory, slow_ns = int(Ending.OK), int(Ending.MEMORY), self.slow_ns
        cpu_before, brief = cpu_ns(), 0
        output.prefix = prefix
        while True:
            data = receive(RECEIVE)
            if not data:
                return
            after = now_ns()
            self._batch_began = after
            slow = False
            # For a call that never comes to tell what it spent. Once a batch: brief calls before it count as its.
            marker[2] = cpu_before + brief
            for kind, _, pattern, call, buffer, start, end in feed(data):
                if kind != invoke_kind:
                    if kind == Kind.ANSWER:
                        continue  # to a call whose invocation has ended
                    return
                subjects, replies, headers, attempt, allowed_us, expires, until = unpack(buffer, start)
                at = start + INVOKE_EXTRA
                if out:
                    if after - self._batch_began > BATCH_NS:
                        self.flush()
                        self._batch_began = after
                    elif not self._armed:
                        self._armed = True
                        signal.setitimer(signal.ITIMER_REAL, STRANDED_S, AGAIN_S)
                began = after
                if slow:
                    out.append(pack(extra, result_kind, Ending.RETURNED, 0, call, 0, 0, self.peak_kib, 0))
                    continue
                if expires < began:
                    out.append(pack(extra, result_kind, Ending.EXPIRED, 0, call, 0, 0, self.peak_kib, 0))
                    continue
                marker[1] = began
                marker[0] = call
                allowed = began + allowed_us * 1000
                if allowed < until:  # nearly always: `until`, the caller's own deadline, is mostly far away
                    until = allowed
                self.deadline = until
                output.call = call
                split_subject = at + subjects
                split_reply = split_subject + replies
                split_headers = split_reply + headers
                event = Event(
                    buffer[at:split_subject],
                    buffer[split_headers:end],
                    buffer[split_reply:split_headers],
                    buffer[split_subject:split_reply],
                    attempt,
                    prefix,
                    call,
                    patterns[pattern],
                )
                ending, code, first, second = ok, 0, b"", b""
                try:
                    value = handler(event, context)
                    if type(value) is Reply:
                        first = encode_headers(value.headers)
                        value = value.data
                    second = encode(value, marker)
                    size = len(first) + len(second)
                    if size > max_reply:
                        raise too_large(size, max_reply)
                except BaseException as error:  # noqa: BLE001  # SystemExit and the like are the author's faults, too
                    ending, code, first, second = raised(error, loaded)
                del event
                value = None
                if self.memory_exceeded:
                    ending, code, first, second = Ending.MEMORY, 0, b"", b""
                output.end()
                after = now_ns()
                if after > until and ending != out_of_memory:
                    # Nobody was quick enough to end it, which is no reason for an answer that came too late.
                    ending, code, first, second = Ending.LATE, 0, b"", b""
                ran = cpu = after - began
                if ran < BRIEF_NS:
                    brief += ran
                else:
                    slow = ran > slow_ns
                    self.peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                    # What was spent since the last look, less what the brief calls in between took.
                    cpu_now = cpu_ns()
                    cpu = max(0, min(ran, cpu_now - cpu_before - brief))
                    cpu_before, brief = cpu_now, 0
                    marker[2] = cpu_now
                size = len(first)
                out.append(
                    pack(
                        extra + size + len(second),
                        result_kind,
                        ending,
                        code,
                        call,
                        (ran // 1000) & MAX_U32,
                        (cpu // 1000) & MAX_U32,
                        self.peak_kib,
                        size,
                    )
                )
                if size:
                    out.append(first)
                if second:
                    out.append(second)
                if ending == out_of_memory:
                    # The heap is in pieces: this process is not fit for another call, and the nexlet replaces it.
                    self.flush()
                    return
            self.flush()
            marker[0] = 0

    def _answer_batches(self, splitter: Splitter, loaded: Loaded, context: Context, program: Program) -> None:
        assert self.output is not None
        self.output.prefix = program.run_prefix
        receive = self.sock.recv if self._asker is None else self._asker.receive
        Batches(self, self.output, loaded, context, program).answer(splitter, receive)

    # Sending.

    def _later(self, data: bytes) -> None:
        """Send with the next batch, or within a millisecond."""
        self.out.append(data)
        if not self._armed:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, STRANDED_S, AGAIN_S)

    def _at_once(self, data: bytes) -> None:
        """Send now, with everything that waits."""
        self.out.append(data)
        self.flush()

    def _invocation(self, event: object) -> int:
        """The number of the invocation that something is asked for; 0 for all of a batch together."""
        last, first = self.marker[0], self.marker[FIRST]
        if event is None:
            return 0 if first and first != last else last
        if type(event) is not Event:
            raise TypeError(f"event is one that the handler was given, not {type(event).__name__}")
        if event._call != last and event._call not in self.running:
            raise ValueError("event is of an invocation that has ended")
        return event._call

    def _encoded(self, value: object) -> bytes:
        try:
            return encode(value, self.marker)
        except Unserialisable as refused:
            said = str(refused).replace("the return value", "the data").replace("; return ", "; give ")
            raise TypeError(said) from None

    def _metric(self, data: bytes) -> None:
        assert self.output is not None
        if self.output.allows(len(data) + 1):
            self._later(frame(Kind.METRIC, data, call=self.output.call))

    def flush(self) -> None:
        out = self.out
        if not out or self._sending:
            return
        # The timer's handler runs between any two bytecodes, of this method too: the flag keeps it from sending in the
        # middle of what is being sent. It may also run at the end of the author's stack or memory, so what is unsent
        # is only forgotten once it is sent. The list is emptied in place because the loop holds it.
        self._sending = True
        try:
            self.sock.sendall(b"".join(out))
            out.clear()
        finally:
            self._sending = False

    def _on_unraisable(self, unraisable: Any) -> None:
        """What a generator raises while it is closed by nobody in particular: there is no one to raise it to."""
        raised = unraisable.exc_value
        if isinstance(raised, MemoryError):
            self.memory_exceeded = True
        elif raised is not None and self.output is not None:
            self.output.write(Stream.STDERR, f"ignored in a generator that was closed: {Explainer().summary(raised)}\n")

    def on_timer(self, number: int, stack: object) -> None:
        """Send what a call holds back."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._armed = False
        self.flush()
