"""The ledger of schedules: what of each was run last, one key for each in a bucket of NATS, written by comparing.

A `Mark` is written only where the one before it is still the one that was read (`Nats-Expected-Last-Subject-Sequence`),
and the server does one such write after the other: of all clones that want the same run, one gets it. As a mark names
the last run, a run that it is past can never be had again, nothing grows, and nothing has to expire.

It takes two permissions (`permissions`), and makes no bucket.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import orjson

from nexlet_functions.natsio.bucket import Bucket, BucketUnavailable, key_token
from nexlet_functions.natsio.connection import Connection
from nexlet_models.cron import from_moment, moment_of

__all__ = ["Entry", "Ledger", "LedgerUnavailable", "Mark", "Records", "key_of"]


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
    """The key of a schedule: of the namespace and the name of its function, and of when it is due."""
    digest = hashlib.sha256(schedule.encode()).hexdigest()[:16]
    return ".".join((key_token(namespace), *map(key_token, name.split(".")), digest))


class Ledger:
    """The ledger in a bucket, over one connection."""

    def __init__(self, connection: Connection, bucket: str) -> None:
        self._bucket = Bucket(connection, bucket)

    def permissions(self, namespace: str) -> tuple[str, ...]:
        """What the credentials must be allowed to publish on, for the schedules of a namespace."""
        return (self._bucket.reading, self._bucket.writing(f"{key_token(namespace)}.>"))

    async def read(self, key: str) -> Entry:
        """See `Records.read`."""
        try:
            item = await self._bucket.get(key)
        except BucketUnavailable as error:
            raise self._unavailable(error) from None
        if item.written is None:
            return Entry()
        try:
            mark = Mark.decode(item.data or b"")
        except ValueError:
            mark = None  # deleted, or somebody else's writing: nothing is known of the schedule, and ours goes over it
        return Entry(item.revision, mark, moment_of(item.written))

    async def write(self, key: str, mark: Mark, revision: int) -> bool:
        """See `Records.write`."""
        try:
            return await self._bucket.put(key, mark.encode(), over=revision)
        except BucketUnavailable as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: BucketUnavailable) -> LedgerUnavailable:
        if error.kind == "missing":
            return LedgerUnavailable(
                f"there is no bucket '{self._bucket.name}', which has what ran last, in the account of this workload",
                f"enable JetStream there and make it once: nats kv add {self._bucket.name}",
                code="bucket-missing",
            )
        if error.kind == "refused":
            return LedgerUnavailable(
                error.reason,
                "the credentials of this workload need the permission to publish there, and to subscribe to _INBOX.>: "
                "ask the operator",
                code="schedule-refused",
            )
        return LedgerUnavailable(error.reason, "try again")


def _text(moment: int) -> str:
    return from_moment(moment).isoformat().replace("+00:00", "Z")


def _moment(text: str) -> int:
    return moment_of(datetime.fromisoformat(text))
