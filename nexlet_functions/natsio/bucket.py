"""One key of a KV bucket at a time: read, written by comparing, and listed, over one of our connections.

A bucket is a stream `KV_BUCKET` with a subject `$KV.BUCKET.KEY` for each key. JetStream's API is spoken to directly:
that takes two permissions, and tells a refusal at once where a client library would wait for an answer that does not
come. What functions do with buckets is in `grants`, on their own way. No bucket is made here.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, NoResponders, PublishRefused

__all__ = ["Bucket", "BucketUnavailable", "Item", "key_token"]

TIMEOUT: Final = 3.0
"""Seconds for one answer of JetStream: more than a server that can answer needs."""

_WRONG_SEQUENCE: Final = frozenset({10071, 10164})
"""JetStream's numbers for: something else was written in between. Source: nats-server's server/errors.json."""
_NO_STREAM: Final = 10059
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_GONE: Final = re.compile(rb"(?i)\r\n(?:KV-Operation:[ \t]*(?:DEL|PURGE)|Nats-Marker-Reason:)")
_DIGITS: Final = re.compile(r"(\.\d{6})\d+")


class BucketUnavailable(NatsioError):
    """A bucket cannot be used.

    Attributes:
        reason: why.
        kind: `missing` (there is none), `refused` (by the server, for want of a permission), or `unreachable`.
    """

    code = "bucket-unavailable"

    def __init__(self, reason: str, *, kind: str = "unreachable") -> None:
        self.reason = reason
        self.kind = kind
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Item:
    """A key as it was read.

    Attributes:
        revision: what has to be named to write over it; 0 where nothing was ever there.
        data: None where nothing is there now.
        written: when the server took it, by its own clock; None where nothing was ever there.
    """

    revision: int = 0
    data: bytes | None = None
    written: datetime | None = None


def key_token(text: str) -> str:
    """A text as one token of a key: what a key may not have in it is written as `=` and two hexadecimal digits."""
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


class Bucket:
    """One bucket."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name

    @property
    def reading(self) -> str:
        """The subject that reading publishes on."""
        return f"$JS.API.STREAM.MSG.GET.KV_{self.name}"

    def writing(self, key: str) -> str:
        """The subject that writing a key publishes on."""
        return f"$KV.{self.name}.{key}"

    async def get(self, key: str) -> Item:
        """What is there now.

        Raises:
            BucketUnavailable: it cannot be read.
        """
        answer = await self._ask(self.reading, orjson.dumps({"last_by_subj": self.writing(key)}))
        error = answer.get("error")
        if error is not None:
            if error.get("err_code") == _NO_STREAM:
                raise self._missing()
            if error.get("code") == 404:
                return Item()
            raise self._odd(error.get("description"))
        try:
            message = answer["message"]
            revision, headers = int(message["seq"]), base64.b64decode(message.get("hdrs") or "", validate=True)
            # The server tells nine digits, of which six count.
            written = datetime.fromisoformat(_DIGITS.sub(r"\1", str(message["time"])))
            data = base64.b64decode(message.get("data") or "", validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise self._odd("its answer cannot be read") from None
        return Item(revision, None if _GONE.search(headers) else data, written)

    async def put(self, key: str, data: bytes, *, over: int | None = None, alone: bool = False) -> bool:
        """Write a key; False where `over` is not its revision any more.

        Args:
            over: the revision that has to stand there yet; None for whatever is there.
            alone: nothing is kept of what was there before, whatever history the bucket has.

        Raises:
            BucketUnavailable: it cannot be written, or it is not known whether it was.
        """
        headers = {} if over is None else {"Nats-Expected-Last-Subject-Sequence": str(over)}
        return await self._put(key, data, headers | ({"Nats-Rollup": "sub"} if alone else {}))

    async def purge(self, key: str) -> None:
        """Remove a key with all that was ever written to it.

        Raises:
            BucketUnavailable: it cannot be written.
        """
        await self._put(key, b"", {"KV-Operation": "PURGE", "Nats-Rollup": "sub"})

    async def _put(self, key: str, data: bytes, headers: dict[str, str]) -> bool:
        error = (await self._ask(self.writing(key), data, headers)).get("error")
        if error is None:
            return True
        if error.get("err_code") in _WRONG_SEQUENCE:
            return False
        raise self._odd(error.get("description"))

    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin with these tokens, those that were removed included: `get` tells.

        Raises:
            BucketUnavailable: they cannot be listed.
        """
        wanted = orjson.dumps({"subjects_filter": self.writing(f"{prefix}.>")})
        answer = await self._ask(f"$JS.API.STREAM.INFO.KV_{self.name}", wanted)
        error = answer.get("error")
        if error is not None:
            raise self._missing() if error.get("err_code") == _NO_STREAM else self._odd(error.get("description"))
        subjects = (answer.get("state") or {}).get("subjects") or {}
        return sorted(str(subject).removeprefix(self.writing("")) for subject in subjects)

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            reply = await self._connection.request(subject, payload, headers=headers, timeout=TIMEOUT)
            answer = orjson.loads(reply.payload)
        except NoResponders:
            raise self._missing() from None
        except PublishRefused as error:
            raise BucketUnavailable(f"the server says '{error.permission}'", kind="refused") from None
        except NatsioError as error:
            raise BucketUnavailable(str(error)) from None
        except ValueError:
            raise self._odd("its answer is not JSON") from None
        if not isinstance(answer, dict):
            raise self._odd("its answer is no object")
        return answer

    def _missing(self) -> BucketUnavailable:
        return BucketUnavailable(f"there is no bucket '{self.name}', or no JetStream", kind="missing")

    def _odd(self, said: object) -> BucketUnavailable:
        return BucketUnavailable(f"bucket '{self.name}' cannot be used: {said}")
