"""One invocation on its way: the `Call` that goes in, the `Result` that comes out, and the `Sink` that takes it.

These are the objects of the hot path: one `Call` and one `Result` for each message, with slots and nothing derived.
"""

from __future__ import annotations

from typing import Final, Protocol

from nexlet_sandboxes.asking import Asks
from nexlet_sandboxes.outcomes import Outcome

__all__ = ["NEVER_NS", "Call", "Result", "Sink"]

NEVER_NS: Final = 1 << 62
"""The deadline of a call whose caller has none: far beyond any CLOCK_MONOTONIC."""


class Call:
    """One message to be handled.

    Attributes:
        subject, reply: as bytes, as they came; `reply` is empty when nobody waits.
        headers: the raw `NATS/1.0` block, or empty.
        payload: the body.
        pattern: index into the program's patterns, of the trigger that matched.
        attempt: 1, or more when it was delivered before.
        received_ns: CLOCK_MONOTONIC when it came in.
        timeout_ns: how long it may run; 0 for the function's own limit.
        deadline_ns: CLOCK_MONOTONIC after which its caller does not wait any more: from then on it is not begun, and
            what runs is ended. `NEVER_NS` where the caller said nothing.
        size: bytes of the message; filled in by the pool.
        id: given by the pool, unique within it, increasing.
        tag: whatever the sink wants to find again.
        asks: what it has asked of the nexlet; None where that is nothing.
    """

    __slots__ = (
        "asks",
        "attempt",
        "deadline_ns",
        "headers",
        "id",
        "pattern",
        "payload",
        "received_ns",
        "reply",
        "size",
        "subject",
        "tag",
        "timeout_ns",
    )

    def __init__(
        self,
        subject: bytes,
        payload: bytes,
        reply: bytes = b"",
        headers: bytes = b"",
        pattern: int = 0,
        received_ns: int = 0,
        tag: object = None,
        attempt: int = 1,
        timeout_ns: int = 0,
        deadline_ns: int = NEVER_NS,
    ) -> None:
        self.subject = subject
        self.payload = payload
        self.reply = reply
        self.headers = headers
        self.pattern = pattern
        self.received_ns = received_ns
        self.attempt = attempt
        self.timeout_ns = timeout_ns
        self.deadline_ns = deadline_ns
        self.tag = tag
        self.asks: Asks | None = None
        self.id = 0
        self.size = 0


class Result:
    """How it ended.

    Attributes:
        outcome, code: the word, and what HTTP would say.
        body, headers: of the reply: bytes, and header lines each with its line end. Only where the outcome is `ok`
            (both), or `rejected_by_function` (the text, as body).
        error: one line, for the `error` header and the event; "" where there is none.
        traceback: the author's frames, for the log; "" where there is none.
        queue_ns: from `received_ns` until it began or was given up.
        run_ns, cpu_ns: what it took.
        peak_memory_bytes: the worker's peak so far.
    """

    __slots__ = (
        "body",
        "code",
        "cpu_ns",
        "error",
        "headers",
        "outcome",
        "peak_memory_bytes",
        "queue_ns",
        "run_ns",
        "traceback",
    )

    def __init__(
        self,
        outcome: Outcome,
        code: int,
        queue_ns: int = 0,
        run_ns: int = 0,
        cpu_ns: int = 0,
        peak_memory_bytes: int = 0,
        error: str = "",
    ) -> None:
        self.outcome = outcome
        self.code = code
        self.body = b""
        self.headers = b""
        self.error = error
        self.traceback = ""
        self.queue_ns = queue_ns
        self.run_ns = run_ns
        self.cpu_ns = cpu_ns
        self.peak_memory_bytes = peak_memory_bytes


class Sink(Protocol):
    """Takes what comes out of a pool. Called from the event loop; nothing here may block or raise."""

    def finished(self, call: Call, result: Result) -> None:
        """A call ended. Called exactly once for each call that was submitted."""
        ...

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        """A line of output: `stream` is "stdout" or "stderr", `level` 0 for what was printed.

        `call_id` is the invocation it belongs to as the worker says, 0 for none.
        """
        ...

    def measured(self, call_id: int, data: bytes) -> None:
        """A metric of the function: a JSON object."""
        ...

    def flush(self) -> None:
        """The end of a batch: whatever `finished` held back to send together goes out now."""
        ...

    def changed(self) -> None:
        """Workers came or went, or the pool's health changed."""
        ...
