"""What comes back of one invocation in a test: how it ended, what it answered, what it printed, what it took."""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexlet_sandboxes.outcomes import Outcome

if TYPE_CHECKING:
    from nexlet_functions.testing.events import SampleEvent
    from nexlet_functions.testing.granted import Sent
    from nexlet_functions.testing.outside import HttpSent

__all__ = ["Invocation", "LogLine", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to a function.

    Attributes:
        subject: without wildcards.
        payload: the bytes.
        headers: by name.
        reply: where an answer would go; "" for a message that nobody waits for. Of one of a stream, what it is
            acknowledged on.
        attempt: which delivery this is.
        pattern: which of the function's triggers takes it.
        stream: that it is from; "" for none.
        sequence: its number there, where the test says which.
        scheduled: whether it is a run by schedule.
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    reply: str
    attempt: int
    pattern: int = 0
    stream: str = ""
    sequence: int | None = None
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output.

    Attributes:
        stream: "stdout" or "stderr".
        text: as it goes out on the log feed; a line of `context.log` is JSON.
    """

    stream: str
    text: str

    def json(self) -> Any:
        """A line of `context.log`, as an object: `level`, `message` and the fields.

        Raises:
            ValueError: it was printed, and is not JSON.
        """
        return json_.loads(self.text)


@dataclass(frozen=True, slots=True)
class Invocation:
    """How one invocation ended.

    Attributes:
        outcome: `Outcome.OK`, or what went wrong.
        code: what the requester reads, as HTTP's: 200, 400, 500, 504; 0 where nobody was answered.
        data: the reply's body.
        headers: the reply's headers, those that the function set.
        error: one line; "" where all went well.
        traceback: of an exception, the function's own lines; "" where there is none.
        logs: what it printed and logged.
        metrics: what it gave to `context.metrics`.
        invocation_id: as the function saw it.
        duration_ms, cpu_ms, queue_ms: what it took.
        peak_memory_bytes: the worker's, so far.
        answered: whether there was an answer to be seen: over NATS nobody gets one where nobody waits, or where the
            trigger says `reply: false`. `data` and `headers` are empty then.
        published: messages that it published, in order.
        requested: requests that somebody answered (see `replies` of `load_function`). Over NATS a request does not say
            which invocation it is of: those of others that ran at the same time are among them.
        called: calls by HTTP that were granted (see `http` of `load_function`).
    """

    outcome: Outcome
    code: int
    data: bytes
    headers: Mapping[str, str]
    error: str
    traceback: str
    logs: tuple[LogLine, ...] = field(repr=False)
    metrics: tuple[Mapping[str, Any], ...] = field(repr=False)
    invocation_id: str = field(repr=False)
    duration_ms: float = field(repr=False)
    cpu_ms: float = field(repr=False)
    queue_ms: float = field(repr=False)
    peak_memory_bytes: int = field(repr=False)
    answered: bool = field(default=True, repr=False)
    published: tuple[Sent, ...] = field(default=(), repr=False)
    requested: tuple[Sent, ...] = field(default=(), repr=False)
    called: tuple[HttpSent, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.outcome is Outcome.OK

    @property
    def text(self) -> str:
        """The reply as UTF-8."""
        return self.data.decode()

    def json(self) -> Any:
        """The reply as JSON.

        Raises:
            AssertionError: the function did not return; the text says how it ended.
            ValueError: what it returned is not JSON.
        """
        if not self.ok:
            raise AssertionError(f"the function ended {self.outcome} ({self.code}): {self.error}\n{self.traceback}")
        return json_.loads(self.data)

    def differences(self, event: SampleEvent) -> list[str]:
        """What came back otherwise than the event expects, a line each: `assert not result.differences(event)`."""
        if not self.answered:
            return event.differences(outcome=self.outcome.value, error=self.error)
        return event.differences(
            outcome=self.outcome.value, code=self.code, data=self.data, headers=self.headers, error=self.error
        )
