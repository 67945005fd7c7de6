"""What a function under test was granted, as a double: it checks grants as the nexlet does, does what is asked for in
memory, and keeps what was published and asked.

A test says what is there: values of buckets, objects of stores, and who answers requests. Every bucket and store that
is granted is there, and empty, unless the test says otherwise. `Provided` is what a test says, `Double` answers a
worker. Beside a real server (`deployed`) the same is put into real buckets, and a client of ours answers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from nexlet_functions.grants.checks import bucket_of, headers_of, key_of, name_of, parts_of, revision_of, subject_of
from nexlet_functions.grants.checks import text_of as checked_text
from nexlet_functions.testing.outside import HttpDouble, HttpResponder, data_of
from nexlet_functions.testing.readable import Readable
from nexlet_models.base import timestamp
from nexlet_models.start_request import GrantsRequest
from nexlet_models.subjects import matches
from nexlet_sandboxes.asking import Ask, Status, Verb, not_granted, store_denied
from nexlet_sandboxes.worker.event import Reject, Reply, parse_headers

__all__ = ["Double", "Provided", "Responder", "Sent", "answer_of", "header_block"]

_MAX_SIZE: Final = 8 * 1024 * 1024
"""Bytes of one call, as an operator's `max_call_size` has them where nothing is said."""

Answer = Any
"""Bytes, text or what JSON can say; a `Reply` with headers; `None` for an empty one."""

Responder = Answer | Callable[["Sent"], Answer]
"""What answers a request: always the same, or made of the request; a callable may raise `Reject`."""


@dataclass(frozen=True, slots=True)
class Sent(Readable):
    """A message that the function published, or a request that it made.

    Attributes:
        subject: where.
        data: the payload.
        headers: those that the function gave.
    """

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provided:
    """What a test says that is there.

    Attributes:
        kv, objects: bucket to its values by key or name; None for one that is not there.
        replies: pattern of subjects to what answers there. Nobody listens anywhere else.
        http: url to what answers there.
    """

    kv: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    objects: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    replies: Mapping[str, Responder] = field(default_factory=dict)
    http: Mapping[str, HttpResponder] = field(default_factory=dict)

    def responder(self, subject: str) -> tuple[bool, Responder]:
        """Whether somebody listens on a subject, and what answers."""
        for pattern, responder in self.replies.items():
            if matches(pattern, subject):
                return True, responder
        return False, None

    def buckets(self, grants: GrantsRequest, kind: str) -> dict[str, dict[str, bytes]]:
        """The buckets that are there, with bytes in them: those that were granted or are spoken of.

        Args:
            kind: "kv" or "objects".
        """
        said: Mapping[str, Mapping[str, Any] | None] = getattr(self, kind)
        every = {**{name: {} for name in getattr(grants, kind)}, **said}
        return {
            name: {key: data_of(value) for key, value in values.items()}
            for name, values in every.items()
            if values is not None
        }


def answer_of(responder: Responder, sent: Sent) -> tuple[Mapping[str, str], bytes]:
    """Headers and payload of the answer to a request."""
    try:
        value = responder(sent) if callable(responder) else responder
    except Reject as reject:
        return {"Nats-Service-Error": reject.text, "Nats-Service-Error-Code": str(reject.code)}, reject.text.encode()
    if isinstance(value, Reply):
        return value.headers, data_of(value.data)
    return {}, data_of(value)


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they are on the wire; nothing where there are none."""
    if not headers:
        return b""
    return "".join(["NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]).encode()


class _Refused(Exception):
    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class Double:
    """Answers the calls of one function's workers. Implements `nexlet_sandboxes.asking.Answerer`.

    Attributes:
        kv, objects: buckets and what is in them.
        published, requested, called: what an invocation did, by its number.
    """

    def __init__(self, grants: GrantsRequest, provided: Provided) -> None:
        self._grants = grants
        self._provided = provided
        self.kv = provided.buckets(grants, "kv")
        self.objects = provided.buckets(grants, "objects")
        self.published: dict[int, list[Sent]] = {}
        self.requested: dict[int, list[Sent]] = {}
        self._http = HttpDouble(grants.http, provided.http)
        self.called = self._http.called
        self._revisions: dict[tuple[str, str], int] = {
            (bucket, key): number for bucket, values in self.kv.items() for number, key in enumerate(values, 1)
        }
        self._last = {bucket: len(values) for bucket, values in self.kv.items()}
        self._told: dict[tuple[str, str], tuple[str, str]] = {}
        self._verbs: dict[int, Callable[[Ask], tuple[bytes, ...]]] = {
            Verb.PUBLISH: self._publish,
            Verb.REQUEST: self._request,
            Verb.KV_GET: self._kv_get,
            Verb.KV_PUT: self._kv_put,
            Verb.KV_CREATE: self._kv_create,
            Verb.KV_UPDATE: self._kv_update,
            Verb.KV_DELETE: self._kv_delete,
            Verb.KV_KEYS: self._kv_keys,
            Verb.OBJECT_GET: self._object_get,
            Verb.OBJECT_PUT: self._object_put,
            Verb.OBJECT_INFO: self._object_info,
            Verb.OBJECT_LIST: self._object_list,
            Verb.OBJECT_DELETE: self._object_delete,
        }

    @property
    def max_size(self) -> int:
        """See `Answerer.max_size`."""
        return _MAX_SIZE

    def asked(self, ask: Ask) -> None:
        """See `Answerer.asked`."""
        if ask.verb == Verb.HTTP:
            status, told = self._http.answer(ask)
            ask.answer(status, *told)
            return
        verb = self._verbs.get(ask.verb)
        try:
            if verb is None:
                raise _Refused(Status.UNAVAILABLE, f"{Verb(ask.verb).name} has no double: run the test with nats=True")
            parts = verb(ask)
        except _Refused as refused:
            ask.answer(refused.status, str(refused).encode())
        else:
            ask.answer(Status.OK, *parts)

    # --- messages --------------------------------------------------------------------------------------------------

    def _sent(self, ask: Ask, key: str, what: str) -> Sent:
        part, lines, payload = parts_of(ask.parts, 3)
        subject, own = subject_of(part), headers_of(lines)
        if not any(matches(pattern, subject) for pattern in getattr(self._grants, key)):
            raise _Refused(Status.DENIED, not_granted(f"{what} {subject!r}", f"{key}: [{subject}]"))
        return Sent(subject, bytes(payload), parse_headers(b"NATS/1.0\r\n" + own) if own else {})

    def _publish(self, ask: Ask) -> tuple[bytes, ...]:
        self.published.setdefault(ask.call.id, []).append(self._sent(ask, "publish", "publishing on"))
        return ()

    def _request(self, ask: Ask) -> tuple[bytes, ...]:
        sent = self._sent(ask, "request", "a request to")
        listens, responder = self._provided.responder(sent.subject)
        if not listens:
            raise _Refused(Status.UNAVAILABLE, f"nobody listens on '{sent.subject}'")
        self.requested.setdefault(ask.call.id, []).append(sent)
        headers, data = answer_of(responder, sent)
        return header_block(headers), data

    # --- keys and values -------------------------------------------------------------------------------------------

    def _kv(self, part: bytes, access: str) -> tuple[str, dict[str, bytes]]:
        return self._bucket("kv", part, access, self.kv, "bucket")

    def _bucket(
        self, kind: str, part: bytes, access: str, there: Mapping[str, dict[str, bytes]], what: str
    ) -> tuple[str, dict[str, bytes]]:
        bucket = bucket_of(part)
        if getattr(self._grants, kind).get(bucket) not in ("write", access):
            raise _Refused(Status.DENIED, not_granted(*store_denied(kind, bucket, access)))
        if bucket not in there:
            raise _Refused(Status.NOT_FOUND, f"there is no {what} '{bucket}'")
        return bucket, there[bucket]

    def _kv_get(self, ask: Ask) -> tuple[bytes, ...]:
        part, key = parts_of(ask.parts, 2)
        (bucket, values), name = self._kv(part, "read"), key_of(key)
        if name not in values:
            raise _Refused(Status.NOT_FOUND, f"there is no key '{name}' in the bucket '{bucket}'")
        return values[name], b"%d" % self._revisions[bucket, name]

    def _changed(self, bucket: str, key: str) -> tuple[bytes, ...]:
        self._last[bucket] = self._revisions[bucket, key] = self._last.get(bucket, 0) + 1
        return (b"%d" % self._last[bucket],)

    def _kv_put(self, ask: Ask) -> tuple[bytes, ...]:
        part, key, value = parts_of(ask.parts, 3)
        (bucket, values), name = self._kv(part, "write"), key_of(key)
        values[name] = bytes(value)
        return self._changed(bucket, name)

    def _kv_create(self, ask: Ask) -> tuple[bytes, ...]:
        part, key, value = parts_of(ask.parts, 3)
        (bucket, values), name = self._kv(part, "write"), key_of(key)
        if name in values:
            raise _Refused(Status.CONFLICT, f"the key '{name}' is in the bucket '{bucket}' already")
        values[name] = bytes(value)
        return self._changed(bucket, name)

    def _kv_update(self, ask: Ask) -> tuple[bytes, ...]:
        part, key, value, revision = parts_of(ask.parts, 4)
        (bucket, values), name, expected = self._kv(part, "write"), key_of(key), revision_of(revision)
        if self._revisions.get((bucket, name), 0) != expected:
            text = f"the key '{name}' of the bucket '{bucket}' has not the revision {expected}"
            raise _Refused(Status.CONFLICT, f"{text}: get it again, then update")
        values[name] = bytes(value)
        return self._changed(bucket, name)

    def _kv_delete(self, ask: Ask) -> tuple[bytes, ...]:
        part, key = parts_of(ask.parts, 2)
        (bucket, values), name = self._kv(part, "write"), key_of(key)
        values.pop(name, None)
        self._changed(bucket, name)
        return ()

    def _kv_keys(self, ask: Ask) -> tuple[bytes, ...]:
        (part,) = parts_of(ask.parts, 1)
        return (orjson.dumps(sorted(self._kv(part, "read")[1])),)

    # --- objects ---------------------------------------------------------------------------------------------------

    def _store(self, part: bytes, access: str) -> tuple[str, dict[str, bytes]]:
        return self._bucket("objects", part, access, self.objects, "object store")

    def _info(self, bucket: str, name: str) -> dict[str, Any]:
        data = self.objects[bucket].get(name)
        if data is None:
            raise _Refused(Status.NOT_FOUND, f"there is no object '{name}' in the object store '{bucket}'")
        description, modified = self._told.setdefault((bucket, name), ("", timestamp()))
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        return {
            "name": name,
            "size": len(data),
            "digest": f"SHA-256={digest}",
            "modified": modified,
            "description": description,
        }

    def _object_get(self, ask: Ask) -> tuple[bytes, ...]:
        part, name = parts_of(ask.parts, 2)
        (bucket, objects), text = self._store(part, "read"), name_of(name)
        info = self._info(bucket, text)
        return objects[text], orjson.dumps(info)

    def _object_put(self, ask: Ask) -> tuple[bytes, ...]:
        part, name, data, description = parts_of(ask.parts, 4)
        (bucket, objects), text = self._store(part, "write"), name_of(name)
        objects[text] = bytes(data)
        self._told[bucket, text] = (checked_text(description), timestamp())
        return (orjson.dumps(self._info(bucket, text)),)

    def _object_info(self, ask: Ask) -> tuple[bytes, ...]:
        part, name = parts_of(ask.parts, 2)
        bucket, _ = self._store(part, "read")
        return (orjson.dumps(self._info(bucket, name_of(name))),)

    def _object_list(self, ask: Ask) -> tuple[bytes, ...]:
        (part,) = parts_of(ask.parts, 1)
        bucket, objects = self._store(part, "read")
        return (orjson.dumps([self._info(bucket, name) for name in sorted(objects)]),)

    def _object_delete(self, ask: Ask) -> tuple[bytes, ...]:
        part, name = parts_of(ask.parts, 2)
        (bucket, objects), text = self._store(part, "write"), name_of(name)
        self._info(bucket, text)
        del objects[text]
        self._told.pop((bucket, text), None)
        return ()
