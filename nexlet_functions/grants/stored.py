"""What buckets and object stores are made of: messages of a stream, read and written by single questions.

A stream that lets anyone of its replicas answer (`allow_direct`, as buckets made by NATS's own tools have it) is read
so; another one, made by an older client, through the API that each stream has.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.errors import NoResponders

__all__ = ["WRONG_SEQUENCE", "Acknowledged", "Kept", "Store", "acknowledged"]

_NOT_FOUND: Final = b"NATS/1.0 404"
_SEQUENCE: Final = re.compile(rb"(?i)\r\nNats-Sequence:[ \t]*([0-9]+)")

# Source of the numbers: nats-server's server/errors.json.
_NO_MESSAGE: Final = 10037
_NO_STREAM: Final = 10059
WRONG_SEQUENCE: Final = frozenset({10071, 10164})
"""The last message of a subject is another one than was expected."""
_TOO_LARGE: Final = frozenset({10054, 10097})


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of a stream.

    Attributes:
        sequence: its number.
        headers: the raw block; b"" for none. Those that the server adds may be among them.
    """

    sequence: int
    headers: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A stream's word about a message that was published to it.

    Attributes:
        number: of an error, in nats-server's list; 0 where it was taken.
        description: of that error.
    """

    stream: str = ""
    sequence: int = 0
    duplicate: bool = False
    number: int = 0
    description: str = ""

    def taken(self) -> Acknowledged:
        """Itself.

        Raises:
            CallFailed: it was not taken.
        """
        if not self.number:
            return self
        if self.number in WRONG_SEQUENCE:
            raise CallFailed(Failure.CONFLICT, self.description)
        failure = Failure.TOO_LARGE if self.number in _TOO_LARGE else Failure.UNAVAILABLE
        raise CallFailed(failure, f"the stream did not take it: {self.description}")


def acknowledged(payload: bytes) -> Acknowledged:
    """A publish acknowledgement.

    Raises:
        CallFailed: it is none: somebody else answers there.
    """
    try:
        said = orjson.loads(payload)
        error = said.get("error")
        if error:
            number = int(error.get("err_code", 0)) or int(error.get("code", 500))
            return Acknowledged(number=number, description=str(error.get("description", "")))
        return Acknowledged(str(said["stream"]), int(said["seq"]), bool(said.get("duplicate", False)))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CallFailed(Failure.UNAVAILABLE, "what answered is no stream") from None


class Store:
    """The stream of one bucket."""

    def __init__(self, questions: Questions, stream: str, what: str) -> None:
        """Nothing is asked yet.

        Args:
            what: in messages: `bucket 'settings'`.
        """
        self.stream = stream
        self.what = what
        self._questions = questions
        self._direct = True

    async def last(self, subject: str, deadline_ns: int) -> Kept | None:
        """The last message of a subject; None where there is none.

        Raises:
            CallFailed: there is no such stream.
        """
        if self._direct:
            try:
                answer = await self._questions.ask(
                    f"$JS.API.DIRECT.GET.{self.stream}.{subject}", b"", deadline_ns=deadline_ns
                )
            except NoResponders:
                await self._look(deadline_ns)
            else:
                return self._kept(answer.headers, answer.payload)
        return await self._get({"last_by_subj": subject}, deadline_ns)

    async def after(self, subject: str, sequence: int, deadline_ns: int) -> Kept | None:
        """The first message of a subject from `sequence` on; None where there is none.

        Raises:
            CallFailed: there is no such stream.
        """
        asked = {"next_by_subj": subject, "seq": sequence}
        if self._direct:
            try:
                answer = await self._questions.ask(
                    f"$JS.API.DIRECT.GET.{self.stream}", orjson.dumps(asked), deadline_ns=deadline_ns
                )
            except NoResponders:
                await self._look(deadline_ns)
            else:
                return self._kept(answer.headers, answer.payload)
        return await self._get(asked, deadline_ns)

    async def put(self, subject: str, payload: bytes, deadline_ns: int, *headers: bytes) -> Acknowledged:
        """Have one more message kept. `headers`: lines without their ends.

        Raises:
            CallFailed: there is no such stream, or the server does not take so much.
        """
        block = b"\r\n".join((b"NATS/1.0", *headers, b"", b"")) if headers else b""
        size, most = len(block) + len(payload), self._questions.connection.max_payload
        if size > most:
            text = f"{self.what}: {size} bytes with their headers are more than the {most} that the server takes"
            raise CallFailed(Failure.TOO_LARGE, text)
        try:
            answer = await self._questions.ask(subject, payload, headers=block, deadline_ns=deadline_ns)
        except NoResponders:
            raise self.missing() from None
        return acknowledged(answer.payload)

    async def api(self, verb: str, asked: object, deadline_ns: int) -> dict[str, Any]:
        """Ask JetStream about the stream: `STREAM.INFO`, `STREAM.PURGE`.

        Raises:
            CallFailed: there is no such stream, or no JetStream.
        """
        try:
            answer = await self._questions.ask(
                f"$JS.API.{verb}.{self.stream}", orjson.dumps(asked), deadline_ns=deadline_ns
            )
        except NoResponders:
            raise CallFailed(Failure.UNAVAILABLE, "there is no JetStream on the server") from None
        said: dict[str, Any] = orjson.loads(answer.payload)
        error = said.get("error")
        if error:
            if error.get("err_code") == _NO_STREAM:
                raise self.missing()
            if error.get("err_code") != _NO_MESSAGE:
                raise CallFailed(Failure.UNAVAILABLE, f"{self.what}: {error.get('description', error)}")
        return said

    def missing(self) -> CallFailed:
        """What is said where the stream is not there."""
        return CallFailed(Failure.NOT_FOUND, f"there is no {self.what}")

    async def _look(self, deadline_ns: int) -> None:
        """Nobody answered directly: because there is nothing, or because this stream does not do so."""
        said = await self.api("STREAM.INFO", {}, deadline_ns)
        if said["config"].get("allow_direct"):
            raise CallFailed(Failure.UNAVAILABLE, f"the {self.what} has no leader at the moment")
        self._direct = False

    async def _get(self, asked: object, deadline_ns: int) -> Kept | None:
        said = await self.api("STREAM.MSG.GET", asked, deadline_ns)
        message = said.get("message")
        if message is None:
            return None
        headers, payload = (base64.b64decode(message.get(key, "")) for key in ("hdrs", "data"))
        return Kept(int(message["seq"]), headers, payload)

    def _kept(self, headers: bytes, payload: bytes) -> Kept | None:
        if headers.startswith(_NOT_FOUND):
            return None
        # The server's own headers stand behind those of the message, which may be named as anything.
        numbers = _SEQUENCE.findall(headers)
        if not numbers:
            raise CallFailed(Failure.UNAVAILABLE, f"{self.what}: the server says {headers[:80]!r}")
        return Kept(int(numbers[-1]), headers, payload)
