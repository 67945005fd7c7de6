"""Questions to JetStream's API over one of our connections, and its errors as a type.

For what happens seldom: looking for a consumer, making one, reading dead letters. Requests for messages (`pulls`) and
acknowledgements (`puller`) are bytes in the batches of the hot path.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NoResponders

__all__ = [
    "CONSUMER_EXISTS",
    "CONSUMER_MISSING",
    "MESSAGE_MISSING",
    "STREAM_MISSING",
    "JetStreamRefused",
    "StoredMessage",
    "ask",
    "consumer_info",
    "delete_message",
    "get_message",
    "stream_info",
    "streams_with",
]

TIMEOUT: Final = 5.0
"""Seconds for an answer, far more than a server that can answer needs."""

CONSUMER_MISSING: Final = 10014
STREAM_MISSING: Final = 10059
MESSAGE_MISSING: Final = 10037
CONSUMER_EXISTS: Final = frozenset({10013, 10105, 10148})
"""What JetStream says where a consumer of that name is there already, and is another one; it took several words for it
over time. Source of the numbers: nats-server's server/errors.json."""


class JetStreamRefused(NexletFunctionsError):
    """JetStream says no.

    Attributes:
        description: its words.
        number: of the error in nats-server's list; 0 where it has none.
    """

    code = "jetstream-refused"

    def __init__(self, description: str, number: int = 0) -> None:
        self.description = description
        self.number = number
        super().__init__(f"JetStream refused: {description}")


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream.

    Attributes:
        time: when it was stored, RFC 3339.
        headers: the raw block, or b"".
    """

    subject: str
    sequence: int
    time: str
    headers: bytes
    payload: bytes


async def ask(connection: Connection, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One question, such as `CONSUMER.INFO.STREAM.NAME`.

    Raises:
        JetStreamRefused: it was answered with an error, or JetStream is not there.
        NatsioError: it was not answered; `PublishRefused` where it may not be asked.
    """
    payload = orjson.dumps(dict(body)) if body is not None else b""
    try:
        reply = await connection.request(f"$JS.API.{subject}", payload, timeout=TIMEOUT)
    except NoResponders:
        raise JetStreamRefused("JetStream is not enabled for this account") from None
    try:
        answer: dict[str, Any] = orjson.loads(reply.payload)
        error = answer.get("error")
        if error is not None:
            raise JetStreamRefused(str(error.get("description", "no reason given")), int(error.get("err_code", 0)))
    except (ValueError, AttributeError, TypeError):
        raise JetStreamRefused("its answer cannot be read") from None
    return answer


async def consumer_info(connection: Connection, stream: str, consumer: str) -> dict[str, Any]:
    """What a consumer is. Raises as `ask` does: its stream or itself may be missing."""
    return await ask(connection, f"CONSUMER.INFO.{stream}.{consumer}")


async def stream_info(connection: Connection, stream: str) -> dict[str, Any]:
    """How a stream is set up (`config`), and what it holds (`state`). Raises as `ask` does."""
    return await ask(connection, f"STREAM.INFO.{stream}")


async def streams_with(connection: Connection, subject: str) -> list[str]:
    """The streams that keep messages of a subject (or of a pattern, in part). Raises as `ask` does."""
    answer = await ask(connection, "STREAM.NAMES", {"subject": subject})
    return [str(name) for name in answer.get("streams") or ()]


async def get_message(connection: Connection, stream: str, sequence: int, *, subject: str = "") -> StoredMessage | None:
    """A message of a stream; with a subject, the first from that sequence on. None where there is none.

    Raises as `ask` does.
    """
    wanted: dict[str, Any] = {"seq": sequence}
    if subject:
        wanted["next_by_subj"] = subject
    try:
        found = (await ask(connection, f"STREAM.MSG.GET.{stream}", wanted))["message"]
        return StoredMessage(
            subject=str(found["subject"]),
            sequence=int(found["seq"]),
            time=str(found.get("time", "")),
            headers=base64.b64decode(found.get("hdrs") or ""),
            payload=base64.b64decode(found.get("data") or ""),
        )
    except JetStreamRefused as refused:
        if refused.number == MESSAGE_MISSING:
            return None
        raise
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise JetStreamRefused("its answer cannot be read") from None


async def delete_message(connection: Connection, stream: str, sequence: int) -> None:
    """Take a message out of a stream. One that is gone already is fine. Raises as `ask` does."""
    try:
        await ask(connection, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
    except JetStreamRefused as refused:
        if refused.number != MESSAGE_MISSING:
            raise
