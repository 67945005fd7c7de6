"""The recorder: invocations as they end, written as sample events in the background, within bounds.

`Recorder.take` is called where invocations end, and only puts aside what it is given. A task masks and writes it, in a
thread, so that neither the disk nor a large message is felt by the functions. What it cannot keep up with, what is too
large and what is beyond the number of events is left out and counted; it never grows without bound.

Each event is a file of its own, `FUNCTION/OUTCOME-DIGEST.json` below the folder, mode 0600, whole or not there. The
digest is of the message as it is kept and of the outcome: the same message with the same outcome is kept once, also
over several runs, and no file that is there is written again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from nexlet_functions.functions.deadlines import DEADLINE_HEADER
from nexlet_functions.functions.private_files import create_private, private_folder
from nexlet_functions.recording.forms import NotKept, body_as, event_text, message_as
from nexlet_functions.recording.masks import Masks
from nexlet_functions.testing.events import EventRefused, parse_event
from nexlet_models.base import timestamp
from nexlet_models.events import INVOCATION_HEADER
from nexlet_sandboxes.outcomes import Outcome

__all__ = ["MAX_BYTES", "MOST", "Invoked", "Recorder", "expectation"]

_log = structlog.stdlib.get_logger("nexlet_functions.recording")

MOST: Final = 200
"""Events of one function, those of earlier runs included: more is a log, and not a choice of samples."""

MAX_BYTES: Final = 64 * 1024
"""Bytes of message and answer together. A sample is something that people read."""

_WAITING: Final = 256
"""Invocations that wait to be written."""

_WAITING_BYTES: Final = 8 * 1024 * 1024

_NOT_RUN: Final = frozenset({Outcome.REJECTED, Outcome.EXPIRED, Outcome.UNAVAILABLE})
"""How it ends depends on what else there was to do, and not on the message."""

_OF_ITS_CALL: Final = frozenset({DEADLINE_HEADER.lower(), INVOCATION_HEADER.lower()})
"""Headers of a message that say what this one caller wanted, and nothing to the function."""

_TELLING: Final = frozenset({Outcome.ERROR, Outcome.REJECTED_BY_FUNCTION})
"""Outcomes whose error is the function's own words, which will be the same another time."""


@dataclass(frozen=True, slots=True)
class Invoked:
    """One invocation that has ended.

    Attributes:
        function: its name.
        subject, headers, payload: of the message.
        outcome, code, body, reply_headers, error: how it ended, and what came back.
        at: when.
    """

    function: str
    subject: str
    headers: Mapping[str, str] = field(repr=False)
    payload: bytes = field(repr=False)
    outcome: Outcome
    code: int
    body: bytes = field(repr=False)
    reply_headers: Mapping[str, str] = field(repr=False)
    error: str = field(repr=False)
    at: str = field(default_factory=timestamp)

    @property
    def size(self) -> int:
        """Bytes of message and answer."""
        return len(self.payload) + len(self.body)


class Recorder:
    """Writes sample events. An async context manager: what was taken is written before it is left.

    Attributes:
        folder: where they go.
        on: whether what is given is taken; it is at first.
        written: how many, in this run.
        left_out: how many were not written, by the reason.
    """

    def __init__(
        self,
        folder: Path,
        masks: Masks,
        *,
        most: int = MOST,
        on_written: Callable[[str, Path], None] = lambda function, file: None,
        on_left_out: Callable[[str, str], None] = lambda function, reason: None,
    ) -> None:
        """Nothing is made yet, the folder neither.

        Args:
            masks: the fields that are not kept; a function's secrets come with its invocations.
            most: events of one function.
            on_written: called with a function's name and the file.
            on_left_out: called with a function's name and the reason, for each reason once.
        """
        self.folder = folder
        self.on = True
        self.written = 0
        self.left_out: Counter[str] = Counter()
        self._masks = masks
        self._most = most
        self._on_written = on_written
        self._on_left_out = on_left_out
        self._waiting: deque[tuple[Masks, Invoked]] = deque()
        self._waiting_bytes = 0
        self._there: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._more = asyncio.Event()
        self._closing = False
        self._writing: asyncio.Task[None] | None = None

    def masks_with(self, secrets: tuple[str, ...]) -> Masks:
        """The masks of a function that has these secrets."""
        return self._masks.beside(secrets)

    def has_room(self, function: str) -> bool:
        """Whether another invocation of a function would be taken; one that would not counts as left out."""
        if not self.on:
            return False
        if self._there.get(function, 0) >= self._most:
            self._leave_out(function, self._enough)
            return False
        return True

    def take(self, masks: Masks, invoked: Invoked) -> None:
        """Put an invocation aside to be written. Returns at once."""
        if invoked.outcome in _NOT_RUN or not self.has_room(invoked.function):
            return
        if invoked.size > MAX_BYTES:
            self._leave_out(invoked.function, f"larger than {MAX_BYTES // 1024} KiB")
        elif len(self._waiting) >= _WAITING or self._waiting_bytes + invoked.size > _WAITING_BYTES:
            self._leave_out(invoked.function, "faster than it is written")
        else:
            self._waiting.append((masks, invoked))
            self._waiting_bytes += invoked.size
            self._more.set()

    @property
    def _enough(self) -> str:
        return f"there are {self._most} already"

    def _leave_out(self, function: str, reason: str) -> None:
        self.left_out[reason] += 1
        if (function, reason) not in self._told:
            self._told.add((function, reason))
            self._on_left_out(function, reason)

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                masks, invoked = self._waiting[0]
                try:
                    file, reason = await asyncio.to_thread(self._keep, masks, invoked)
                except OSError as error:
                    file, reason = None, f"{self.folder}: {error.strerror or error}"
                except Exception as error:  # noqa: BLE001  # ours, and one invocation's: the others are kept
                    file, reason = None, f"a fault of the recorder: {type(error).__name__}"
                    # Not its text, and no traceback: what it is about has not been masked.
                    _log.error(
                        "an invocation could not be recorded", function=invoked.function, reason=type(error).__name__
                    )
                self._waiting.popleft()
                self._waiting_bytes -= invoked.size
                if reason:
                    self._leave_out(invoked.function, reason)
                elif file is not None:
                    self.written += 1
                    self._on_written(invoked.function, file)
            if self._closing:
                return

    def _keep(self, masks: Masks, invoked: Invoked) -> tuple[Path | None, str]:
        """Write it: the file (None: it is there already), or why it is not kept."""
        if masks.text(invoked.subject) != invoked.subject:
            return None, "a secret in its subject"
        try:
            event = _event_of(masks, invoked)
            parse_event(event_text(event).decode(), "event")
        except NotKept as not_kept:
            return None, str(not_kept)
        except EventRefused as refused:  # what nobody could replay: JSON nested without end, say
            return None, f"no sample event could say it: {refused.problems[0].message}"
        of_what = event_text({name: event[name] for name in event if name not in ("expect", "recorded")})
        digest = hashlib.sha256(of_what + invoked.outcome.encode()).hexdigest()[:12]
        folder = private_folder(self.folder / _folder_name(invoked.function))
        file = folder / f"{invoked.outcome.value}-{digest}.json"
        if file.exists():
            return None, ""
        if invoked.function not in self._there:
            self._there[invoked.function] = sum(1 for _ in folder.glob("*.json"))
        if self._there[invoked.function] >= self._most:
            return None, self._enough
        if not create_private(file, event_text(event)):
            return None, ""
        self._there[invoked.function] += 1
        return file, ""

    async def __aenter__(self) -> Recorder:
        self._writing = asyncio.create_task(self._write(), name="recorder")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._writing is not None
        self._closing = True
        self._more.set()
        await self._writing


def _event_of(masks: Masks, invoked: Invoked) -> dict[str, Any]:
    """The file's content."""
    headers = {name: value for name, value in invoked.headers.items() if name.lower() not in _OF_ITS_CALL}
    event: dict[str, Any] = {"subject": invoked.subject}
    kept, masked = masks.headers(headers, "headers")
    if kept:
        event["headers"] = kept
    message, places = message_as(masks, invoked.payload, headers)
    event |= message
    event["expect"], more = expectation(
        masks,
        outcome=invoked.outcome,
        code=invoked.code,
        body=invoked.body,
        headers=invoked.reply_headers,
        error=invoked.error,
    )
    masked = [*masked, *places, *more]
    recorded: dict[str, Any] = {"function": invoked.function, "at": invoked.at}
    if masked:
        recorded["masked"] = masked
    event["recorded"] = recorded
    return event


def expectation(
    masks: Masks, *, outcome: Outcome, code: int, body: bytes, headers: Mapping[str, str], error: str
) -> tuple[dict[str, Any], list[str]]:
    """What an event that was recorded expects, and which places of it were masked."""
    expect: dict[str, Any] = {"outcome": outcome.value}
    if outcome is not Outcome.OK:
        expect["code"] = code
        if outcome not in _TELLING or not error:
            return expect, []
        expect["error"] = masks.text(error)
        return expect, ["expect.error"] if expect["error"] != error else []
    kept, masked = masks.headers(headers, "expect.headers")
    if kept:
        expect["headers"] = kept
    said, places = body_as(masks, body)
    return expect | said, [*masked, *places]


def _folder_name(function: str) -> str:
    """A function's name as one of a folder: what may be in a subject may not be in a path."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", function)
    return f"_{name}" if name.startswith(".") else name
