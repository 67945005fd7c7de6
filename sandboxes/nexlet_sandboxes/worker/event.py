"""What a handler is given of a message, and what it may answer with: `Event`, `Reply`, `Reject`.

These classes are the author's whole contract for one invocation. They hold plain values only: nothing here leads to the
worker's insides, and everything that costs something (headers, tokens, JSON) is made when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from nexlet_models.scheduled import SCHEDULE_SUBJECT, SCHEDULED_TIME
from nexlet_sandboxes.texts import plain_int, text_of

__all__ = ["RESERVED_HEADERS", "Event", "HeaderRefused", "Reject", "Reply", "encode_headers", "parse_headers"]

RESERVED_HEADERS: Final = frozenset({"workload_id", "namespace", "error"})
"""Headers that the nexlet writes, compared in lower case; and every name that begins with `Nats-` or `Nex-`."""

_SCHEDULE: Final = SCHEDULE_SUBJECT.encode()
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ACKNOWLEDGED: Final = b"$JS.ACK."
_ACKNOWLEDGED_WORDS: Final = 9
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


class HeaderRefused(ValueError):
    """A reply header that a function may not set."""


class Reject(Exception):
    """Answers the caller without being a fault: `raise Reject(422, "qty must be > 0")`.

    Attributes:
        code: 400 to 599, as HTTP would say it.
        text: what the caller reads.
    """

    def __init__(self, code: int, text: str = "") -> None:
        """Refuse the message.

        Raises:
            ValueError: `code` is not a whole number from 400 to 599.
        """
        number = plain_int(code) if isinstance(code, int) and not isinstance(code, bool) else 0
        if not 400 <= number <= 599:
            raise ValueError("Reject takes a code from 400 to 599 and a text: Reject(422, 'qty must be > 0')")
        plain = text_of(text)
        super().__init__(number, plain)
        self.code = number
        self.text = plain


class Reply:
    """A return value with headers: `return Reply({"ok": True}, headers={"Content-Type": "application/json"})`."""

    __slots__ = ("data", "headers")

    def __init__(self, data: object = None, headers: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.headers = dict(headers) if headers else {}


class Event:
    """One message, as the handler sees it.

    Attributes:
        data: the payload.
        attempt: 1, or more when it is delivered again.
    """

    __slots__ = ("_call", "_headers", "_pattern", "_prefix", "_reply", "_subject", "attempt", "data")

    def __init__(
        self,
        subject: bytes,
        data: bytes,
        headers: bytes,
        reply: bytes,
        attempt: int,
        prefix: str,
        call: int,
        pattern: str,
    ) -> None:
        # Kept as they came: a handler that does not ask does not pay.
        self._subject = subject
        self.data = data
        self._headers: bytes | dict[str, str] = headers
        self._reply = reply
        self.attempt = attempt
        self._prefix = prefix
        self._call = call
        self._pattern = pattern

    @property
    def subject(self) -> str:
        """The subject it was published to."""
        return self._subject.decode("utf-8", "replace")

    @property
    def reply(self) -> str:
        """Where an answer goes; "" when nobody waits for one."""
        reply = self._reply
        return "" if reply.startswith(_ACKNOWLEDGED) else reply.decode("utf-8", "replace")

    @property
    def stream(self) -> str:
        """The stream that it is from; "" where it is from none."""
        return self._acknowledgement(0)

    @property
    def sequence(self) -> int:
        """Its number in that stream, from 1 on: the same for every attempt; 0 where it is from none."""
        said = self._acknowledgement(3)
        return int(said) if said.isdecimal() else 0

    def _acknowledgement(self, at: int) -> str:
        """A word of the subject that a message of a stream is acknowledged on: stream, consumer, attempt, sequence."""
        if not self._reply.startswith(_ACKNOWLEDGED):
            return ""
        words = self._reply.decode("utf-8", "replace").split(".")
        # Newer servers may have domain and account before these (nats-server ADR-15), and so have more words.
        at += 2 if len(words) <= _ACKNOWLEDGED_WORDS else 4
        return words[at] if at < len(words) else ""

    @property
    def invocation_id(self) -> str:
        """Unique to this run; also in the event that is published about it."""
        return f"{self._prefix}{self._call:x}"

    @property
    def text(self) -> str:
        """The payload as UTF-8.

        Raises:
            Reject: it is not UTF-8 (400).
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise Reject(400, f"the payload is not UTF-8 text: {error.reason} at byte {error.start}") from None

    def json(self) -> Any:
        """The payload, parsed as JSON.

        Raises:
            Reject: it is not JSON (400).
        """
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError as error:
            if error.msg.startswith("Not enough memory"):
                raise MemoryError("the payload as JSON takes more memory than there is") from None
            said = "the payload is empty, JSON was expected" if not self.data else f"the payload is not JSON: {error}"
            raise Reject(400, said) from None

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers; of a header that is there several times, the first."""
        headers = self._headers
        if isinstance(headers, bytes):
            headers = self._headers = parse_headers(headers)
        return headers

    @property
    def scheduled_time(self) -> datetime | None:
        """When a schedule had this run due, in the schedule's time zone; None where no schedule did."""
        # No trigger can have such a subject, so that no message can be taken for a run of a schedule.
        if not self._subject.startswith(_SCHEDULE):
            return None
        return datetime.fromisoformat(self.headers[SCHEDULED_TIME])

    @property
    def tokens(self) -> list[str]:
        """What the trigger's wildcards matched: one string for each `*`, and one for all that `>` stands for."""
        pattern = self._pattern.split(".")
        subject = self.subject.split(".")
        found = [part for want, part in zip(pattern, subject, strict=False) if want == "*"]
        if pattern[-1] == ">":
            found.append(".".join(subject[len(pattern) - 1 :]))
        return found

    def __repr__(self) -> str:
        return f"<Event {self.subject!r}, {len(self.data)} bytes>"


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a `NATS/1.0` block, the first of each name; status lines and what is malformed are left out."""
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.decode("utf-8", "replace"), value.strip().decode("utf-8", "replace"))
    return headers


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Header lines of a reply, each with its line end; control characters in a value become a space.

    Raises:
        HeaderRefused: a name that is no header name, or one that is not the function's to set.
    """
    lines = []
    for name, value in headers.items():
        plain = text_of(name) if isinstance(name, str) else ""
        if not _NAME.fullmatch(plain):
            raise HeaderRefused(f"{name!r} cannot be the name of a header")
        lower = plain.lower()
        if lower in RESERVED_HEADERS or lower.startswith(("nats-", "nex-")):
            raise HeaderRefused(f"header {plain!r} is written by the nexlet, a function cannot set it")
        lines.append(f"{plain}: {_CONTROL.sub(' ', text_of(value)).strip()}\r\n")
    return "".join(lines).encode()


for _kind in (Event, Reject, Reply):
    _kind.__module__ = "nexlet_functions.authoring"  # where authors import it from: its text is theirs to see
