"""Dead letters: a message that failed for good, as it was, with headers that say why.

Written by the nexlet for stream triggers (`dead_letter`) and for messages of plain subjects that nobody waits for
(`on_failure`), read back by `nexfn dlq`. The payload and the message's own headers stay; those that begin with `Nats-`
are orders to the stream that it comes from (a message id, what was expected of it, a time to live) and are left out.

`LetterBox` sends those that a stream has to have before the original is given up, and waits for its word.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from nexlet_functions.functions.hops import HOPS_HEADER, hops_line
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.protocol import clean_header_value, decode_headers
from nexlet_functions.streams.deliveries import Delivery
from nexlet_models.base import timestamp
from nexlet_sandboxes.calls import Result

__all__ = [
    "HISTORY",
    "PREFIX",
    "REDRIVEN",
    "Letter",
    "LetterBox",
    "Sender",
    "letter_block",
    "plain_block",
    "read_letter",
]

PREFIX: Final = "Nex-Dlq-"
"""What our headers begin with."""

HISTORY: Final = PREFIX + "History"
"""What became of it in earlier rounds: a line for each time that it was sent back and failed again."""

REDRIVEN: Final = PREFIX + "Redriven"
"""Of a letter that was sent back to a plain subject: `NAMESPACE/FUNCTION`, which is to say what became of it. That
function answers, also where its trigger says that it never does, and its answer has the same header."""

_LONGEST: Final = 512
"""Characters of an error in a header."""

_SEND_AGAIN_NS: Final = 5_000_000_000
_TRIES: Final = 3
"""A stream that has not answered after so many tries is given time until the message is handed out again."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose messages fail."""

    namespace: str
    name: str
    workload_id: str

    @property
    def full_name(self) -> str:
        """As `REDRIVEN` has it."""
        return clean_header_value(f"{self.namespace}/{self.name}")


def plain_block(headers: bytes) -> list[bytes]:
    """The lines of a header block that are the message's own."""
    kept = []
    for line in headers.split(b"\r\n")[1:]:
        name = line.partition(b":")[0].strip().lower()
        ours = name.startswith(PREFIX.lower().encode()) and name != HISTORY.lower().encode()
        if name and not ours and not name.startswith(b"nats-") and name != HOPS_HEADER.lower().encode():
            kept.append(line)
    return kept


def letter_block(
    sender: Sender,
    result: Result,
    *,
    subject: bytes,
    headers: bytes,
    attempt: int,
    invocation_id: str,
    message_id: str,
    further: Mapping[str, str] | None = None,
) -> bytes:
    """The header block of a dead letter.

    Args:
        headers: of the message, the raw block.
        message_id: the same for the same letter, so that a stream keeps it once.
        further: where it is from, if that is a stream.
    """
    said = {
        "Reason": result.outcome.value,
        "Code": str(result.code),
        "Error": result.error[:_LONGEST],
        "Attempt": str(attempt),
        "Subject": subject.decode("utf-8", "replace"),
        **(further or {}),
        "Invocation": invocation_id,
        "Namespace": sender.namespace,
        "Function": sender.name,
        "Workload": sender.workload_id,
        "Time": timestamp(),
    }
    if result.traceback:
        said["Traceback"] = f"sha256:{hashlib.sha256(result.traceback.encode('utf-8', 'replace')).hexdigest()[:16]}"
    lines = [b"NATS/1.0", f"Nats-Msg-Id: {message_id}".encode(), hops_line(headers), *plain_block(headers)]
    lines += [f"{PREFIX}{name}: {clean_header_value(text)}".encode() for name, text in said.items() if text]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """What the headers of a dead letter say.

    Attributes:
        said: our headers, by their names without the prefix, in lower case.
        headers: the message's own.
    """

    said: Mapping[str, str]
    headers: Mapping[str, str]

    def get(self, name: str) -> str:
        """One of our headers; "" where it is not there."""
        return self.said.get(name, "")

    @property
    def history(self) -> list[str]:
        """Earlier rounds, oldest first."""
        return [line for line in self.get("history").split("; ") if line]

    def round(self) -> str:
        """This one, as it joins the history when it is sent back."""
        return f"{self.get('time')} {self.get('reason')} after {self.get('attempt')} {self.get('invocation')}"


def read_letter(headers: bytes) -> Letter:
    """What a message's headers say of it as a dead letter; one that is none says nothing."""
    said, own = {}, {}
    for name, value in decode_headers(headers).items():
        if name.lower().startswith(PREFIX.lower()):
            said[name[len(PREFIX) :].lower()] = value
        elif not name.lower().startswith("nats-") and name.lower() != HOPS_HEADER.lower():
            own[name] = value
    return Letter(said, own)


class _Sent:
    __slots__ = ("at", "block", "delivery", "payload", "tries")

    def __init__(self, delivery: Delivery, block: bytes, payload: bytes) -> None:
        self.delivery = delivery
        self.block = block
        self.payload = payload
        self.at = self.tries = 0


class LetterBox:
    """Dead letters on their way to a stream. Implements `MessageSink` for what the stream says."""

    def __init__(
        self, connection: Connection, subject: str, inbox: str, settled: Callable[[Delivery, str], None]
    ) -> None:
        """Nothing is subscribed here: `INBOX.*` is the caller's to subscribe to this sink.

        Args:
            settled: told of each letter, with "" where a stream has it, else with the reason why none has.
        """
        self._connection = connection
        self._subject = subject
        self._inbox = inbox
        self._settled = settled
        self._waiting: dict[str, _Sent] = {}
        self._number = 0
        self._empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, delivery: Delivery, block: bytes, payload: bytes) -> None:
        """Have it kept. It counts as in hand until `settled` is called."""
        self._number += 1
        self._send(str(self._number), _Sent(delivery, block, payload))

    def _send(self, number: str, sent: _Sent) -> None:
        if len(sent.block) + len(sent.payload) > self._connection.max_payload:
            # The message alone was not too large; nothing may be cut off it.
            self._waiting.pop(number, None)
            self._end(sent, "with the headers of a dead letter it is larger than the server takes")
            return
        self._waiting[number] = sent
        sent.at = time.monotonic_ns()
        sent.tries += 1
        self._connection.publish(self._subject, sent.payload, headers=sent.block, reply=f"{self._inbox}.{number}")

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """What a stream says of one of them."""
        sent = self._waiting.pop(subject.rpartition(".")[2], None)
        if sent is None:
            return  # it was sent twice, and both were answered
        self._end(sent, _why_not(payload, headers))

    def look(self, now: int) -> None:
        """Send those again that nobody has answered."""
        for number, sent in list(self._waiting.items()):
            if now - sent.at < _SEND_AGAIN_NS:
                continue
            if sent.tries < _TRIES:
                self._send(number, sent)
            else:
                del self._waiting[number]
                self._end(sent, "no stream has answered")

    async def emptied(self, within: float) -> None:
        """Return when all are settled, or after `within` seconds."""
        if self._waiting:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._empty,), timeout=within)

    def _end(self, sent: _Sent, why_not: str) -> None:
        self._settled(sent.delivery, why_not)
        if not self._waiting and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)


def _why_not(payload: bytes, headers: bytes) -> str:
    """Why an answer does not mean that a stream has it; "" where it does."""
    if headers and decode_headers(headers).get("Status"):
        return "no stream keeps its subject any more"
    try:
        answer: Any = orjson.loads(payload)
        error = answer.get("error")
        if error is not None:
            return str(error.get("description", "the stream refused it"))
        return "" if answer["stream"] else "the answer names no stream"
    except (ValueError, KeyError, AttributeError, TypeError):
        return "somebody answered who is no stream"
