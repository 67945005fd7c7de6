"""What is heard of one invocation on the feeds: the event about it, what it printed and logged, its metrics.

Listening begins before the message is sent, so that nothing is missed, and whose invocation it is is known only when
its answer is here: until then everything is kept that may be of it, the newest of very much.
"""

from __future__ import annotations

import asyncio
import json as json_
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nexlet_functions.cli.watching import LogRecord
from nexlet_models.errors import MalformedMessage
from nexlet_models.events import INVOCATION_HEADER, EventName, WorkloadTriggeredEvent

if TYPE_CHECKING:
    from nexlet_functions.cli.nodes import Session

__all__ = ["Heard", "Hearing"]

KEPT: Final = 20_000
"""Messages that are kept until it is known which of them are ours."""

PATIENCE: Final = 0.5
"""Seconds from an answer to the event about it. It is sent with the answer; but where an operator has events published
for failures only, none comes."""


@dataclass(slots=True)
class Heard:
    """What there was.

    Attributes:
        event: about the invocation; None where none came.
        logs, metrics: in order; None where we may not listen.
        traceback: the last line of the log, where it is one.
        missing: what was not to be heard, and why; "" where nothing is missing.
    """

    event: WorkloadTriggeredEvent | None = None
    logs: list[LogRecord] | None = None
    metrics: list[dict[str, Any]] | None = None
    traceback: str = ""
    missing: str = ""


@dataclass(slots=True)
class _Message:
    subject: str
    payload: bytes
    headers: bytes


@dataclass(slots=True)
class _Feeds:
    """Which of them we hear."""

    events: bool = True
    logs: bool = True
    metrics: bool = True
    refused: list[str] = field(default_factory=list)


class Hearing:
    """Listens for the invocation that a message on `subject` leads to."""

    def __init__(self, subject: str) -> None:
        self._subject = json_.dumps(subject, ensure_ascii=False).encode()
        self._kept: deque[_Message] = deque(maxlen=KEPT)
        self._too_many = False
        self._feeds = _Feeds()
        self._wanted = b""
        self._event: WorkloadTriggeredEvent | None = None
        self._has_ended = asyncio.Event()

    async def begin(self, to: Session) -> None:
        """Subscribe to what may be subscribed to. When this returns, nothing of that is missed."""
        from nexlet_functions.natsio.errors import SubscriptionRefused
        from nexlet_models import subjects

        feeds = (("events", subjects.all_events), ("logs", subjects.all_logs), ("metrics", subjects.all_metrics))
        results = await asyncio.gather(*(to.listen(feed, self) for _, feed in feeds), return_exceptions=True)
        for (name, _), result in zip(feeds, results, strict=True):
            if isinstance(result, SubscriptionRefused):
                setattr(self._feeds, name, False)
                self._feeds.refused.append(name)
            elif isinstance(result, BaseException):
                raise result

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        tokens = subject.split(".")
        if tokens[3] == "events":
            # Events have a namespace's subject, and are many: those about other subjects are not looked into.
            if tokens[-1] != EventName.WORKLOAD_TRIGGERED or self._subject not in payload:
                return
        elif INVOCATION_HEADER.encode() not in headers:
            return
        if self._wanted and self._wanted not in (payload if tokens[3] == "events" else headers):
            return
        self._too_many = self._too_many or len(self._kept) == KEPT
        self._kept.append(_Message(subject, payload, headers))
        if self._wanted:
            self._look()

    async def of(self, invocation_id: str) -> Heard:
        """All about that invocation, whose answer is here."""
        self._wanted = invocation_id.encode()
        self._look()
        if self._feeds.events or self._feeds.logs:
            # It goes out behind all that the function said.
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._has_ended.wait()
            except TimeoutError:
                pass  # told below, as something that is missing
        return self._heard(invocation_id)

    def outcomes(self) -> list[str]:
        """How invocations ended that messages on our subject led to, ours or another's."""
        found = [_event(one.payload) for one in self._kept if one.subject.split(".")[3] == "events"]
        return [event.outcome or "" for event in found if event is not None]

    def _look(self) -> None:
        for one in self._kept:
            if one.subject.split(".")[3] == "events" and self._wanted in one.payload:
                event = _event(one.payload)
                if event is not None and (event.invocation_id or "").encode() == self._wanted:
                    self._event = event
                    self._has_ended.set()

    def _heard(self, invocation_id: str) -> Heard:
        from nexlet_functions.natsio.protocol import decode_headers

        heard = Heard(
            event=self._event,
            logs=[] if self._feeds.logs else None,
            metrics=[] if self._feeds.metrics else None,
            missing=self._missing(),
        )
        for one in self._kept:
            _, _, _, kind, *rest = one.subject.split(".")
            if kind == "events" or decode_headers(one.headers).get(INVOCATION_HEADER) != invocation_id:
                continue
            text = one.payload.decode("utf-8", "replace")
            if kind == "logs" and heard.logs is not None and len(rest) == 2:
                heard.logs.append(LogRecord(rest[0], rest[1], text))
            elif kind == "metrics" and heard.metrics is not None:
                try:
                    metric = json_.loads(text)
                except (ValueError, RecursionError):
                    continue  # a nexlet sends JSON; whatever this is, it is none of its metrics
                heard.metrics.append(metric)
        if heard.logs and heard.logs[-1].stream == "stderr" and heard.logs[-1].text.startswith(_TRACEBACK):
            heard.traceback = heard.logs.pop().text
        return heard

    def _missing(self) -> str:
        if self._feeds.refused:
            return f"the server does not let us listen to {' and '.join(self._feeds.refused)}"
        if self._too_many:
            return "more came on the feeds than could be kept: something may be missing of what was logged"
        if self._event is None:
            return "no event came about it: what it took is not known (are events published for failures only?)"
        return ""


_TRACEBACK: Final = "Traceback (most recent call last):"


def _event(payload: bytes) -> WorkloadTriggeredEvent | None:
    try:
        return WorkloadTriggeredEvent.from_json(payload)
    except MalformedMessage:
        return None  # another program's
