"""The ledger of schedules: what of each was run last, one key for each in a bucket of NATS, written by comparing.

A `Mark` is written only where the one before it is still the one that was read (`Nats-Expected-Last-Subject-Sequence`),
and the server does one such write after the other: of all clones that want the same run, one gets it. As a mark names
the last run, a run that it is past can never be had again, nothing grows, and nothing has to expire.

It speaks JetStream's API on the connection it is given, which takes two permissions (`permissions`) and tells a refusal
at once, where a client library would wait for an answer that does not come. It makes no bucket.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, NoResponders, PublishRefused
from nexlet_models.cron import from_moment, moment_of

__all__ = ["Entry", "Ledger", "LedgerUnavailable", "Mark", "Records", "key_of"]

TIMEOUT = 3.0
"""Seconds for one answer of JetStream; more than a server that can answer needs, and less than a run may be late."""

_WRONG_SEQUENCE = frozenset({10071, 10164})
"""JetStream's codes for: something else was written in between."""

_NO_STREAM = 10059

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")


class LedgerUnavailable(Exception):
    """The ledger cannot be read or written.

    Attributes:
        reason: why, in words for the author of a function.
        advice: the next step.
        code: what it is a matter of: `schedule-refused` (permissions), `bucket-missing`, or `unreachable`.
    """

    def __init__(self, reason: str, advice: str, *, code: str = "unreachable") -> None:
        self.reason = reason
        self.advice = advice
        self.code = code
        super().__init__(f"{reason}; {advice}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What is said of a schedule. Times in microseconds since 1970.

    Attributes:
        last: the last run that is settled: it was begun, or left out. None before that is true of any.
        by: whose it was: the workload's id and what tells this start of it from another.
        busy_until: until then it may still run; 0 where it has ended, or nobody cares.
        schedule: when it is due, for people who look into the bucket.
    """

    last: int
    by: str
    busy_until: int = 0
    schedule: str = ""

    def encode(self) -> bytes:
        """As it is kept."""
        said = {"schedule": self.schedule, "last": _text(self.last), "by": self.by}
        if self.busy_until:
            said["busy_until"] = _text(self.busy_until)
        return orjson.dumps(said)

    @classmethod
    def decode(cls, data: bytes) -> Mark:
        """What `encode` made.

        Raises:
            ValueError: that is none.
        """
        said = orjson.loads(data)
        try:
            busy = said.get("busy_until")
            return cls(_moment(said["last"]), str(said["by"]), _moment(busy) if busy else 0, str(said["schedule"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a mark: {error}") from None


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it was read.

    Attributes:
        revision: what has to be named to write over it; 0 where nothing is there.
        mark: None where nothing is there, or it was deleted.
        written: when the server took it, by its own clock.
    """

    revision: int = 0
    mark: Mark | None = None
    written: int = 0


class Records(Protocol):
    """What a schedule needs of a ledger."""

    async def read(self, key: str) -> Entry:
        """What is there now.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        ...

    async def write(self, key: str, mark: Mark, revision: int) -> bool:
        """Put `mark` where `revision` still stands; False where something else was written in between.

        Raises:
            LedgerUnavailable: it cannot be written, or it is not known whether it was.
        """
        ...


def key_of(namespace: str, name: str, schedule: str) -> str:
    """The key of a schedule: of the namespace and the name of its function, and of when it is due.

    What a key may not have in it is written as `=` and two hexadecimal digits.
    """
    digest = hashlib.sha256(schedule.encode()).hexdigest()[:16]
    return ".".join((_quoted(namespace), *map(_quoted, name.split(".")), digest))


def _quoted(token: str) -> str:
    return "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"={byte:02X}" for byte in token.encode("utf-8", "surrogatepass")
    )


class Ledger:
    """The ledger in a bucket, over one connection."""

    def __init__(self, connection: Connection, bucket: str) -> None:
        self._connection = connection
        self._bucket = bucket

    def permissions(self, namespace: str) -> tuple[str, ...]:
        """What the credentials must be allowed to publish on, for the schedules of a namespace."""
        return (f"$JS.API.STREAM.MSG.GET.KV_{self._bucket}", f"$KV.{self._bucket}.{_quoted(namespace)}.>")

    async def read(self, key: str) -> Entry:
        """See `Records.read`."""
        wanted = orjson.dumps({"last_by_subj": self._subject(key)})
        answer = await self._ask(f"$JS.API.STREAM.MSG.GET.KV_{self._bucket}", wanted)
        error = answer.get("error")
        if error is not None:
            if error.get("err_code") == _NO_STREAM:
                raise self._no_bucket()
            if error.get("code") == 404:
                return Entry()
            raise self._odd(str(error.get("description")))
        try:
            message = answer["message"]
            revision, written = int(message["seq"]), _moment(str(message["time"]))
            data = base64.b64decode(message.get("data") or "", validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise self._odd("its answer cannot be read") from None
        try:
            return Entry(revision, Mark.decode(data), written)
        except ValueError:
            # A deleted key, or somebody else's writing: nothing is known of the schedule, and ours goes over it.
            return Entry(revision, None, written)

    async def write(self, key: str, mark: Mark, revision: int) -> bool:
        """See `Records.write`."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        answer = await self._ask(self._subject(key), mark.encode(), headers)
        error = answer.get("error")
        if error is None:
            return True
        if error.get("err_code") in _WRONG_SEQUENCE:
            return False
        raise self._odd(str(error.get("description")))

    def _subject(self, key: str) -> str:
        return f"$KV.{self._bucket}.{key}"

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            reply = await self._connection.request(subject, payload, headers=headers, timeout=TIMEOUT)
            answer = orjson.loads(reply.payload)
        except NoResponders:
            raise self._no_bucket() from None
        except PublishRefused as error:
            raise LedgerUnavailable(
                f"the server says '{error.permission}'",
                "the credentials of this workload need the permission to publish there, and to subscribe to _INBOX.>: "
                "ask the operator",
                code="schedule-refused",
            ) from None
        except NatsioError as error:
            raise LedgerUnavailable(str(error), "try again") from None
        except ValueError:
            raise self._odd("its answer is not JSON") from None
        if not isinstance(answer, dict):
            raise self._odd("its answer is no object")
        return answer

    def _no_bucket(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"there is no bucket '{self._bucket}', which says what was run last, in the account of this workload",
            f"enable JetStream there and make it once: nats kv add {self._bucket}",
            code="bucket-missing",
        )

    def _odd(self, said: str) -> LedgerUnavailable:
        return LedgerUnavailable(f"bucket '{self._bucket}' cannot be used: {said}", "ask the operator of the server")


def _text(moment: int) -> str:
    return from_moment(moment).isoformat().replace("+00:00", "Z")


def _moment(text: str) -> int:
    """A time as we or the server write it; the server's has up to nine digits, of which six count."""
    return moment_of(datetime.fromisoformat(_DIGITS.sub(r"\1", text)))


_DIGITS = re.compile(r"(\.\d{6})\d+")
