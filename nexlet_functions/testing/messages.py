"""The message of an invocation in a test, made of what the test says of it, as the function's triggers would bring it.

A message of a stream has what the stream says of it in the subject that it is acknowledged on; a run by schedule has a
subject of its own, and a header that says when it was due. Which of the function's triggers it is follows from that.
"""

from __future__ import annotations

import json as json_
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nexlet_functions.functions.deadlines import deadline_ns
from nexlet_functions.nexfile import FunctionFolder
from nexlet_functions.testing.events import SampleEvent
from nexlet_functions.testing.granted import header_block
from nexlet_functions.testing.invocation import Message
from nexlet_models.scheduled import SCHEDULED_TIME
from nexlet_models.start_request import StreamTrigger, TimedTrigger
from nexlet_models.subjects import matches

__all__ = ["INBOX", "Messages"]

INBOX = "_INBOX.test"
"""Where answers go that nobody said a place for."""


class Messages:
    """Makes the messages of one function."""

    def __init__(self, folder: FunctionFolder, patterns: tuple[str, ...]) -> None:
        """Nothing is made yet.

        Args:
            patterns: what the subjects of the function's triggers match, in their order.
        """
        self._name = folder.name
        self._triggers = folder.start.triggers
        self._patterns = patterns

    def make(
        self,
        event: SampleEvent | None = None,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        reply: str = INBOX,
        attempt: int = 1,
        stream: str = "",
        sequence: int | None = None,
        scheduled_time: datetime | str | None = None,
    ) -> Message:
        """See `AsyncFunction.invoke`."""
        if json is not None and data is not None:
            raise ValueError("json and data: one of the two")
        if scheduled_time is not None:
            if event is not None or json is not None or data is not None or stream or sequence is not None:
                raise ValueError("a run by schedule has no payload, and is from no stream")
            return self._run(subject, headers or {}, scheduled_time)
        event = event or SampleEvent("")
        payload = event.payload
        if json is not None:
            payload = json_.dumps(json, ensure_ascii=False).encode()
        elif data is not None:
            payload = data.encode() if isinstance(data, str) else data
        joined = {**event.headers, **(headers or {})}
        deadline_ns(header_block(joined), 0)  # raises here for what the sender would be told
        subject = subject or event.subject or self._only_subject(stream)
        number = self._taken_by(subject, stream)
        trigger = self._triggers[number] if self._triggers else None
        if not isinstance(trigger, StreamTrigger):
            if sequence is not None:
                raise ValueError(f"sequence: what comes on {subject!r} is from no stream")
            timed = isinstance(trigger, TimedTrigger)
            return Message(subject, payload, joined, reply, attempt, number, scheduled=timed)
        if not reply.startswith("$JS.ACK."):
            reply = self._acknowledgement(trigger, attempt, 1 if sequence is None else sequence)
        return Message(subject, payload, joined, reply, attempt, number, trigger.stream, sequence)

    def _run(self, subject: str, headers: Mapping[str, str], due: datetime | str) -> Message:
        timed = [
            (number, trigger)
            for number, trigger in enumerate(self._triggers)
            if isinstance(trigger, TimedTrigger) and subject in ("", trigger.pattern)
        ]
        if len(timed) != 1:
            patterns = [trigger.pattern for trigger in self._triggers if isinstance(trigger, TimedTrigger)]
            if not patterns:
                raise ValueError("the function has no schedule")
            raise ValueError(f"say which schedule: subject= one of {', '.join(patterns)}")
        ((number, trigger),) = timed
        when = datetime.fromisoformat(due) if isinstance(due, str) else due
        zone = trigger.cadence().zone
        when = when.replace(tzinfo=zone) if when.tzinfo is None else when.astimezone(zone)
        told = {**headers, SCHEDULED_TIME: when.isoformat()}
        return Message(trigger.pattern, b"", told, "", 1, number, scheduled=True)

    def _only_subject(self, stream: str) -> str:
        patterns = self._patterns
        if stream:
            patterns = tuple(one.pattern for one in self._triggers if _of(one, stream))
        if len(patterns) == 1 and not {"*", ">"} & set(patterns[0].split(".")):
            return patterns[0]
        raise ValueError(f"say which subject: the function's triggers are {', '.join(self._patterns)}")

    def _taken_by(self, subject: str, stream: str) -> int:
        if stream and not any(_of(trigger, stream) for trigger in self._triggers):
            raise ValueError(f"no trigger takes messages of the stream {stream!r}")
        for number, pattern in enumerate(self._patterns):
            if matches(pattern, subject) and (not stream or _of(self._triggers[number], stream)):
                return number
        raise ValueError(f"no trigger takes {subject!r}: the function's are {', '.join(self._patterns)}")

    def _acknowledgement(self, trigger: StreamTrigger, attempt: int, sequence: int) -> str:
        consumer = f"test-{trigger.durable or self._name.replace('.', '_')}"
        return f"$JS.ACK.{trigger.stream}.{consumer}.{attempt}.{sequence}.{sequence}.{time.time_ns()}.0"


def _of(trigger: object, stream: str) -> bool:
    return isinstance(trigger, StreamTrigger) and trigger.stream == stream
