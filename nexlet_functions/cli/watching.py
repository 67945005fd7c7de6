"""What happens in a nexus, as it happens: invocations and log lines, off the feeds that any client may subscribe to.

`Watch` turns feed messages into records for `Output`, and lets `dev` wait for the end of an invocation that it caused.
"""

from __future__ import annotations

import asyncio
import json as json_
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Final

from nexlet_functions.cli.activity import Activity
from nexlet_functions.cli.output import Output, styled
from nexlet_models import subjects
from nexlet_models.errors import MalformedMessage
from nexlet_models.events import EventName, WorkloadStoppedEvent, WorkloadTriggeredEvent

if TYPE_CHECKING:
    from rich.text import Text

    from nexlet_functions.natsio import Connection

__all__ = ["LogRecord", "Watch", "readable"]

_LEVEL_STYLES: Final = {"warning": "yellow", "error": "red", "critical": "bold red"}
_KEPT_LINES: Final = 200


class LogRecord:
    """One message of a log feed.

    Attributes:
        workload_id, stream: off the subject.
        text: a line, or a traceback of several.
    """

    __slots__ = ("stream", "text", "workload_id")

    def __init__(self, workload_id: str, stream: str, text: str) -> None:
        self.workload_id = workload_id
        self.stream = stream
        self.text = text


class Watch:
    """Listens on the feeds of all namespaces; shows what comes once `live` is set.

    Attributes:
        names: workload id to the name that is shown for it.
        width: of the column of names.
        live: whether what comes is shown.
        activity: how functions fare.
        invocations: how many were heard of.
        new: set when something is heard of whose name is not known.
    """

    def __init__(self, connection: Connection, output: Output, *, leaving: set[str] | None = None) -> None:
        """Nothing is listened to yet.

        Args:
            leaving: ids of workloads whose end is no news; one that has ended is taken out.
        """
        self._leaving = set() if leaving is None else leaving
        self._connection = connection
        self._output = output
        self._waiting: dict[tuple[str, str], deque[asyncio.Future[WorkloadTriggeredEvent]]] = {}
        self._lines: dict[str, deque[LogRecord]] = {}
        self.names: dict[str, str] = {}
        self.width = 0
        self.live = False
        self.activity = Activity()
        self.invocations = 0
        self.new = asyncio.Event()
        self._clock = time.monotonic
        self._crowd = _Crowd()

    async def start(self) -> None:
        """Subscribe. When this returns, nothing that happens is missed."""
        await self._connection.subscribe(subjects.all_events(), queue="", sink=self)
        await self._connection.subscribe(subjects.all_logs(), queue="", sink=self)

    def invocation(self, workload_id: str, subject: str) -> asyncio.Future[WorkloadTriggeredEvent]:
        """The next invocation of that workload by a message on `subject`."""
        ended: asyncio.Future[WorkloadTriggeredEvent] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((workload_id, subject), deque()).append(ended)
        return ended

    def take_lines(self, workload_id: str) -> list[LogRecord]:
        """What a workload logged since this was last asked, while nothing was shown; the newest of very many."""
        return list(self._lines.pop(workload_id, ()))

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        tokens = subject.split(".")
        if tokens[3] == "logs":
            self._log(LogRecord(tokens[4], tokens[5], payload.decode("utf-8", "replace")))
        elif tokens[-1] == EventName.WORKLOAD_TRIGGERED:
            try:
                self._triggered(WorkloadTriggeredEvent.from_json(payload))
            except MalformedMessage:
                pass  # another program's event; whoever sent it is told by nobody, and we have nothing to show
        elif tokens[-1] == EventName.WORKLOAD_STARTED:
            self.new.set()  # deployed by somebody else, or by us: then we are told its name as well
        elif tokens[-1] == EventName.WORKLOAD_STOPPED:
            try:
                self._stopped(WorkloadStoppedEvent.from_json(payload))
            except MalformedMessage:
                pass  # as above

    def _stopped(self, event: WorkloadStoppedEvent) -> None:
        reason = event.error.message if event.error is not None else None
        if self.live and (reason or event.id not in self._leaving):
            self._output.record(
                "stopped",
                self._line("stopped", "yellow", event.id, reason or ""),
                workload_id=event.id,
                name=self.names.get(event.id),
                error=reason,
            )
        self._leaving.discard(event.id)
        self.names.pop(event.id, None)  # nothing more comes of it, and somebody may save for days
        self._lines.pop(event.id, None)

    def _triggered(self, event: WorkloadTriggeredEvent) -> None:
        waiting = self._waiting.get((event.id, event.subject or ""))
        while waiting:
            ended = waiting.popleft()
            if not ended.done():
                ended.set_result(event)
                break
        self.invocations += 1
        self.activity.observe(event, self._clock())
        if not self.live or self._too_many("invocation"):
            return
        ok = event.outcome == "ok"
        said = [event.subject or "", f"{event.duration:.1f} ms"]
        if not ok:
            said[1:1] = [event.outcome or "", event.error or ""]
        self._output.record(
            "invocation",
            self._line("ok" if ok else "failed", "green" if ok else "red", event.id, "  ".join(filter(None, said))),
            workload_id=event.id,
            name=self.names.get(event.id),
            **event.model_dump(exclude={"id"}, exclude_none=True),
        )

    def _log(self, record: LogRecord) -> None:
        if not self.live:
            self._lines.setdefault(record.workload_id, deque(maxlen=_KEPT_LINES)).append(record)
            return
        if self._too_many("log"):
            return
        word, style, (first, *rest) = readable(record)
        indent = " " * len(self._line("", "", record.workload_id).plain)
        self._output.record(
            "log",
            [self._line(word, style, record.workload_id, first), *(f"{indent}{line}" for line in rest)],
            workload_id=record.workload_id,
            name=self.names.get(record.workload_id),
            stream=record.stream,
            text=record.text,
        )

    def _too_many(self, kind: str) -> bool:
        """Whether a person could not read another line of that kind now. Programs get all of them."""
        if self._output.json:
            return False
        shown, left_out = self._crowd.admit(kind, self._clock())
        if left_out:
            what = "invocations" if kind == "invocation" else "log lines"
            self._output.record("left-out", styled((f"{'':10}{left_out} more {what}, too many to be read", "dim")))
        return not shown

    def _line(self, word: str, style: str, workload_id: str, rest: str = "") -> Text:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        name = self.names.get(workload_id, workload_id)
        return styled((f"{now}  ", "dim"), (f"{word:<9}", style), f"{name:<{self.width}}  ", rest)


class _Crowd:
    """Lets through as many lines of a kind in a second as somebody may read."""

    MOST: Final = 50

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, int, int]] = {}  # since when, how many then, how many of them left out

    def admit(self, kind: str, now: float) -> tuple[bool, int]:
        """Whether one more is shown, and how many before it were not, said once."""
        since, count, left_out = self._of.get(kind, (now, 0, 0))
        if now - since >= 1.0:
            self._of[kind] = (now, 1, 0)
            return True, left_out
        shown = count < self.MOST
        self._of[kind] = (since, count + 1, left_out + (not shown))
        return shown, 0


def readable(record: LogRecord) -> tuple[str, str, list[str]]:
    """A log record for people: a word for its kind, the word's style, and lines.

    A line of `context.log` is shown as its message and its fields; anything else as it came.
    """
    try:
        entry = json_.loads(record.text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("level"), str) or "message" not in entry:
        return record.stream, "red" if record.stream == "stderr" else "cyan", record.text.splitlines() or [""]
    level = entry.pop("level")
    message = str(entry.pop("message"))
    entry.pop("invocation_id", None)
    fields = (f"{name}={value if isinstance(value, str) else json_.dumps(value)}" for name, value in entry.items())
    return level, _LEVEL_STYLES.get(level, "cyan"), ["  ".join([message, *fields])]
