"""What a function does with what it was granted: publish, request, buckets and object stores, and how these fail.

The words and their behaviour are those of NATS clients. Each call waits until it is done; one that is not raises one of
the exceptions here, which an author catches by name. Nothing in this module can do more than ask: the nexlet holds each
call to the function's grants, whatever a worker says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from nexlet_models.subjects import valid_subject
from nexlet_sandboxes.asking import MAX_NAME, Status, Verb, key_problem, not_granted, store_denied
from nexlet_sandboxes.texts import plain_int, text_of
from nexlet_sandboxes.worker.asking import Asker
from nexlet_sandboxes.worker.event import encode_headers, parse_headers
from nexlet_sandboxes.worker.uncopyable import Uncopyable

__all__ = [
    "FAILURES",
    "CallFailed",
    "Calls",
    "Conflict",
    "Denied",
    "Entry",
    "KeyValue",
    "Message",
    "NotFound",
    "ObjectInfo",
    "Objects",
    "PubAck",
    "StoredObject",
    "TimedOut",
    "TooLarge",
    "Unavailable",
]


class CallFailed(Exception):
    """The root of what the calls of `context` raise when they come to nothing."""


class NotFound(CallFailed):
    """There is no such key, object, bucket or store."""


class Conflict(CallFailed):
    """The key is there already, or has another revision than was expected."""


class Denied(CallFailed):
    """It was not granted, or the server forbids it. The text says what to add to the Nexfile."""


class TimedOut(CallFailed):
    """There was no answer in time. Whether what was asked for was done is not known."""


class TooLarge(CallFailed):
    """It is larger than what one call may carry, or than the server takes."""


class Unavailable(CallFailed):
    """Nobody listens there, or the server cannot be reached."""


FAILURES: Final[Mapping[int, type[CallFailed]]] = {
    Status.NOT_FOUND: NotFound,
    Status.CONFLICT: Conflict,
    Status.DENIED: Denied,
    Status.TIMED_OUT: TimedOut,
    Status.TOO_LARGE: TooLarge,
    Status.UNAVAILABLE: Unavailable,
}

_MAX_WAIT_MS: Final = 0xFFFFFFFF
_BUCKET: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)


class Calls:
    """Makes the calls of one worker. Held by `Context`, out of the author's reach."""

    __slots__ = ("_asker", "_encode", "_invocation")

    def __init__(
        self, asker: Asker | None, invocation: Callable[[object], int], encode: Callable[[object], bytes]
    ) -> None:
        """Nothing is asked yet.

        Args:
            asker: None where nothing was granted.
            invocation: the number of the invocation that runs an event; for None of the running one, or 0 where those
                are several. Raises TypeError or ValueError for what is no event that is being handled.
            encode: makes bytes of what an author gives as data; raises TypeError for what is none.
        """
        self._asker = asker
        self._invocation = invocation
        self._encode = encode

    def ask(
        self,
        verb: Verb,
        *parts: bytes,
        denied: tuple[str, str],
        wait: float | None = None,
        event: object = None,
    ) -> list[bytes]:
        """Make one call.

        Args:
            denied: for `not_granted`, where nothing at all was granted.
            wait: seconds; None waits as long as the invocation has.
            event: that it is made for, of a batch; None: for all of it.

        Raises:
            CallFailed: it came to nothing.
            TypeError, ValueError: the event is none that is being handled.
        """
        number = self._invocation(event)
        asker = self._asker
        if asker is None:
            raise Denied(not_granted(*denied))
        if asker.too_large(parts):
            size = sum(map(len, parts))
            raise TooLarge(f"{size} bytes are more than the {asker.max_size} that one call may carry")
        wait_ms = 0 if wait is None else max(1, min(int(wait * 1000), _MAX_WAIT_MS))
        status, answer = asker.ask(number, verb, parts, wait_ms)
        if status != Status.OK:
            raise FAILURES[status](answer[0].decode("utf-8", "replace"))
        return answer

    def encode(self, value: object) -> bytes:
        """The bytes of data: None is empty, bytes and text go as they are, everything else as JSON.

        Raises:
            TypeError: it is none of these.
        """
        return self._encode(value)


def _subject(subject: object, verb: str) -> str:
    if not isinstance(subject, str):
        raise TypeError(f"a subject to {verb} is a text, not {type(subject).__name__}")
    text = text_of(subject)
    reason = valid_subject(text, wildcards=False)
    if reason is not None:
        raise ValueError(f"cannot {verb} {text!r}: it {reason}")
    return text


def _name(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} is a text, not {type(name).__name__}")
    text = text_of(name)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of {what} has half a character in it (a lone surrogate)") from None
    if not text:
        raise ValueError(f"the name of {what} is empty")
    return text


def _key(key: object) -> str:
    name = _name(key, "a key")
    reason = key_problem(name)
    if reason is not None:
        raise ValueError(f"{name[:80]!r} cannot be a key: it {reason}")
    return name


def _object(name: object) -> bytes:
    text = _name(name, "an object").encode()
    if len(text) > MAX_NAME:
        raise ValueError(f"the name of an object is at most {MAX_NAME} bytes long")
    return text


def _bucket(name: object, what: str) -> str:
    text = _name(name, what)
    if not _BUCKET.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be {what}: its name has letters, digits, - and _")
    return text


def _revision(revision: object) -> bytes:
    number = plain_int(revision) if isinstance(revision, int) and not isinstance(revision, bool) else -1
    if not 0 <= number < 1 << 64:
        raise ValueError("a revision is the whole number that get, put, create and update give")
    return b"%d" % number


def parsed(data: bytes) -> Any:
    """The bytes as JSON.

    Raises:
        ValueError: they are none.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("Not enough memory"):
            raise MemoryError("as JSON it takes more memory than there is") from None
        raise ValueError(f"it is not JSON: {error}") from None


class Data:
    """Bytes that came from outside, and what can be read in them."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def text(self) -> str:
        """The data as UTF-8.

        Raises:
            ValueError: it is not UTF-8.
        """
        return self.data.decode()

    def json(self) -> Any:
        """The data, parsed as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return parsed(self.data)


class Message(Data):
    """The answer to a request.

    Attributes:
        data: its payload.
    """

    __slots__ = ("_headers",)

    def __init__(self, data: bytes, headers: bytes) -> None:
        super().__init__(data)
        self._headers: bytes | dict[str, str] = headers

    @property
    def headers(self) -> dict[str, str]:
        """Its headers; of one that is there several times, the first."""
        headers = self._headers
        if isinstance(headers, bytes):
            headers = self._headers = parse_headers(headers)
        return headers

    @property
    def error(self) -> str:
        """What a service says that could not do what it was asked for (`Nats-Service-Error`); "" where it could."""
        return self.headers.get("Nats-Service-Error", "")

    def __repr__(self) -> str:
        return f"<Message {len(self.data)} bytes>"


class PubAck:
    """A stream's word that it keeps a message.

    Attributes:
        stream: its name.
        sequence: of the message in it.
        duplicate: whether the stream had the message already: this invocation is not the first to publish it.
    """

    __slots__ = ("duplicate", "sequence", "stream")

    def __init__(self, stream: str, sequence: int, *, duplicate: bool) -> None:
        self.stream = stream
        self.sequence = sequence
        self.duplicate = duplicate

    def __repr__(self) -> str:
        return f"<PubAck {self.stream} {self.sequence}>"


def publish(
    calls: Calls, subject: object, data: object, headers: Mapping[str, str] | None, event: object = None
) -> PubAck | None:
    """See `Context.publish`."""
    text = _subject(subject, "publish on")
    denied = (f"publishing on {text!r}", f"publish: [{text}]")
    answer = calls.ask(
        Verb.PUBLISH,
        text.encode(),
        encode_headers(headers or {}),
        calls.encode(data),
        denied=denied,
        event=event,
    )
    if not answer:
        return None
    stream, sequence, duplicate = answer
    return PubAck(stream.decode(), int(sequence), duplicate=duplicate == b"1")


def request(
    calls: Calls, subject: object, data: object, headers: Mapping[str, str] | None, timeout: float | None
) -> Message:
    """See `Context.request`."""
    text = _subject(subject, "send a request to")
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise ValueError("a timeout is a number of seconds, more than 0")
    denied = (f"a request to {text!r}", f"request: [{text}]")
    block, payload = calls.ask(
        Verb.REQUEST,
        text.encode(),
        encode_headers(headers or {}),
        calls.encode(data),
        denied=denied,
        wait=timeout,
    )
    return Message(payload, block)


class Entry(Data):
    """A key's value.

    Attributes:
        key: its name.
        data: the value.
        revision: the number of the change that made it, for `KeyValue.update`.
    """

    __slots__ = ("key", "revision")

    def __init__(self, key: str, data: bytes, revision: int) -> None:
        super().__init__(data)
        self.key = key
        self.revision = revision

    @property
    def value(self) -> bytes:
        """The value: NATS's own name for `data`."""
        return self.data

    def __repr__(self) -> str:
        return f"<Entry {self.key!r} revision {self.revision}, {len(self.data)} bytes>"


class KeyValue(Uncopyable):
    """A bucket of keys and values: `context.kv("settings")`.

    Attributes:
        bucket: its name.
    """

    __slots__ = ("_calls", "bucket")

    def __init__(self, calls: Calls, bucket: str) -> None:
        self._calls = calls
        self.bucket = _bucket(bucket, "a bucket")

    def get(self, key: str) -> Entry:
        """The value of a key.

        Raises:
            NotFound: there is no such key, or no such bucket.
            Denied, TimedOut, Unavailable: see there.
        """
        name = _key(key)
        value, revision = self._ask(Verb.KV_GET, name.encode(), access="read")
        return Entry(name, value, int(revision))

    def put(self, key: str, value: object) -> int:
        """Set a key, whatever it was; its new revision."""
        return self._change(Verb.KV_PUT, key, self._calls.encode(value))

    def create(self, key: str, value: object) -> int:
        """Set a key that is not there; its revision.

        Raises:
            Conflict: it is there.
        """
        return self._change(Verb.KV_CREATE, key, self._calls.encode(value))

    def update(self, key: str, value: object, revision: int) -> int:
        """Set a key that nobody has changed since it had that revision; its new one.

        Raises:
            Conflict: somebody has: get it again.
        """
        return self._change(Verb.KV_UPDATE, key, self._calls.encode(value), _revision(revision))

    def delete(self, key: str) -> None:
        """Delete a key. One that is not there is deleted already."""
        self._ask(Verb.KV_DELETE, _key(key).encode(), access="write")

    def keys(self) -> list[str]:
        """The keys that have a value, sorted."""
        return [str(key) for key in parsed(self._ask(Verb.KV_KEYS, access="read")[0])]

    def _change(self, verb: Verb, key: object, *parts: bytes) -> int:
        return int(self._ask(verb, _key(key).encode(), *parts, access="write")[0])

    def _ask(self, verb: Verb, *parts: bytes, access: str) -> list[bytes]:
        denied = store_denied("kv", self.bucket, access)
        return self._calls.ask(verb, self.bucket.encode(), *parts, denied=denied)

    def __repr__(self) -> str:
        return f"<KeyValue {self.bucket}>"


class ObjectInfo:
    """What a store tells of an object.

    Attributes:
        name: its name.
        size: in bytes.
        digest: of its bytes, as NATS writes it: `SHA-256=...`.
        modified: when it was put, as text (RFC 3339); "" where the store does not say.
        description: as it was given when it was put.
    """

    __slots__ = ("description", "digest", "modified", "name", "size")

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.name = str(said["name"])
        self.size = int(said["size"])
        self.digest = str(said["digest"])
        self.modified = str(said["modified"])
        self.description = str(said["description"])

    def __repr__(self) -> str:
        return f"<ObjectInfo {self.name!r} {self.size} bytes>"


Infos = list[ObjectInfo]


class StoredObject(Data):
    """An object with its bytes.

    Attributes:
        data: the bytes.
        info: what the store tells of it.
    """

    __slots__ = ("info",)

    def __init__(self, data: bytes, info: ObjectInfo) -> None:
        super().__init__(data)
        self.info = info

    def __repr__(self) -> str:
        return f"<StoredObject {self.info.name!r} {len(self.data)} bytes>"


class Objects(Uncopyable):
    """A store of objects: `context.objects("reports")`.

    Attributes:
        bucket: its name.
    """

    __slots__ = ("_calls", "bucket")

    def __init__(self, calls: Calls, bucket: str) -> None:
        self._calls = calls
        self.bucket = _bucket(bucket, "an object store")

    def get(self, name: str) -> StoredObject:
        """An object.

        Raises:
            NotFound: there is no such object, or no such store.
            TooLarge: it is more than one call may carry.
        """
        data, info = self._ask(Verb.OBJECT_GET, _object(name), access="read")
        return StoredObject(data, ObjectInfo(parsed(info)))

    def put(self, name: str, data: object, *, description: str = "") -> ObjectInfo:
        """Store an object, in place of one of that name.

        Raises:
            TooLarge: it is more than one call may carry.
        """
        (info,) = self._ask(
            Verb.OBJECT_PUT,
            _object(name),
            self._calls.encode(data),
            text_of(description).encode("utf-8", "replace"),
            access="write",
        )
        return ObjectInfo(parsed(info))

    def info(self, name: str) -> ObjectInfo:
        """What the store tells of an object.

        Raises:
            NotFound: there is no such object, or no such store.
        """
        return ObjectInfo(parsed(self._ask(Verb.OBJECT_INFO, _object(name), access="read")[0]))

    def list(self) -> Infos:
        """All objects, by name."""
        return [ObjectInfo(said) for said in parsed(self._ask(Verb.OBJECT_LIST, access="read")[0])]

    def delete(self, name: str) -> None:
        """Delete an object.

        Raises:
            NotFound: there is no such object, or no such store.
        """
        self._ask(Verb.OBJECT_DELETE, _object(name), access="write")

    def _ask(self, verb: Verb, *parts: bytes, access: str) -> Sequence[bytes]:
        denied = store_denied("objects", self.bucket, access)
        return self._calls.ask(verb, self.bucket.encode(), *parts, denied=denied)

    def __repr__(self) -> str:
        return f"<Objects {self.bucket}>"


for _kind in (
    *(CallFailed, NotFound, Conflict, Denied, TimedOut, TooLarge, Unavailable),
    *(Data, Message, PubAck, Entry, KeyValue, ObjectInfo, StoredObject, Objects),
):
    _kind.__module__ = "nexlet_functions.authoring"  # where authors import them from: their text is theirs to see
