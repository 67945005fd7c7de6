"""Buckets of keys and values, as NATS clients have them: a stream `KV_BUCKET`, a subject `$KV.BUCKET.KEY` for each key.

A read is one question and so is a write, over an inbox that is there already. Listing the keys takes a consumer, which
nats-py makes and which is ended again. What is written carries how many functions it has gone through, since a bucket
is a stream as well, and may run a function (`functions.hops`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import nats.js.errors
import orjson

from nexlet_functions.functions.hops import hops_line
from nexlet_functions.grants.checks import bucket_of, key_of, parts_of, revision_of
from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.stored import WRONG_SEQUENCE, Kept, Store
from nexlet_functions.grants.watched import watched
from nexlet_functions.natsio.asking import Questions
from nexlet_sandboxes.asking import Ask, Verb, not_granted, store_denied

__all__ = ["Buckets"]

_GONE: Final = re.compile(rb"(?i)\r\n(?:KV-Operation:[ \t]*(?:DEL|PURGE)|Nats-Marker-Reason:)")
"""A key whose last message says so is not there: it was deleted, or the server ended it (nats-server ADR-43)."""

_EXPECTED: Final = b"Nats-Expected-Last-Subject-Sequence: %d"
_DELETED: Final = b"KV-Operation: DEL"

Work = Callable[[], Awaitable[Sequence[bytes]]]


class Buckets:
    """The buckets that one function was granted."""

    def __init__(self, grants: Mapping[str, str], questions: Questions, *, max_size: Callable[[], int]) -> None:
        """Nothing is asked yet.

        Args:
            grants: name to "read" or "write".
            max_size: bytes that an answer may have.
        """
        self._grants = grants
        self._questions = questions
        self._max_size = max_size
        self._stores: dict[str, Store] = {}
        self.verbs: Mapping[int, Callable[[Ask], Work]] = {
            Verb.KV_GET: self.get,
            Verb.KV_PUT: self.put,
            Verb.KV_CREATE: self.create,
            Verb.KV_UPDATE: self.update,
            Verb.KV_DELETE: self.delete,
            Verb.KV_KEYS: self.keys,
        }

    def get(self, ask: Ask) -> Work:
        """Bucket and key; value and revision."""
        bucket, key = parts_of(ask.parts, 2)
        return partial(self._get, self._store(bucket, "read"), key_of(key), ask.deadline_ns)

    def put(self, ask: Ask) -> Work:
        """Bucket, key and value; the revision."""
        bucket, key, value = parts_of(ask.parts, 3)
        return partial(self._put, self._store(bucket, "write"), key_of(key), value, _hops(ask), ask.deadline_ns)

    def create(self, ask: Ask) -> Work:
        """Bucket, key and value; the revision."""
        bucket, key, value = parts_of(ask.parts, 3)
        return partial(self._create, self._store(bucket, "write"), key_of(key), value, _hops(ask), ask.deadline_ns)

    def update(self, ask: Ask) -> Work:
        """Bucket, key, value and expected revision; the new one."""
        bucket, key, value, revision = parts_of(ask.parts, 4)
        store, name, expected = self._store(bucket, "write"), key_of(key), revision_of(revision)
        return partial(self._update, store, name, value, expected, _hops(ask), ask.deadline_ns)

    def delete(self, ask: Ask) -> Work:
        """Bucket and key; nothing."""
        bucket, key = parts_of(ask.parts, 2)
        return partial(self._delete, self._store(bucket, "write"), key_of(key), _hops(ask), ask.deadline_ns)

    def keys(self, ask: Ask) -> Work:
        """Bucket; a JSON list of keys."""
        (bucket,) = parts_of(ask.parts, 1)
        return partial(self._keys, self._store(bucket, "read"), bucket_of(bucket))

    # --- once it is known to be granted ----------------------------------------------------------------------------

    def _store(self, part: bytes, access: str) -> Store:
        bucket = bucket_of(part)
        if self._grants.get(bucket) not in ("write", access):
            raise CallFailed(Failure.DENIED, not_granted(*store_denied("kv", bucket, access)))
        store = self._stores.get(bucket)
        if store is None:
            store = self._stores[bucket] = Store(self._questions, f"KV_{bucket}", f"bucket '{bucket}'")
        return store

    async def _get(self, store: Store, key: str, deadline_ns: int) -> Sequence[bytes]:
        kept = await store.last(_subject(store, key), deadline_ns)
        if kept is None or _is_gone(kept):
            raise CallFailed(Failure.NOT_FOUND, f"there is no key '{key}' in the {store.what}")
        return kept.payload, b"%d" % kept.sequence

    async def _put(self, store: Store, key: str, value: bytes, hops: bytes, deadline_ns: int) -> Sequence[bytes]:
        done = await store.put(_subject(store, key), value, deadline_ns, hops)
        return (b"%d" % done.taken().sequence,)

    async def _create(self, store: Store, key: str, value: bytes, hops: bytes, deadline_ns: int) -> Sequence[bytes]:
        subject = _subject(store, key)
        done = await store.put(subject, value, deadline_ns, hops, _EXPECTED % 0)
        if done.number in WRONG_SEQUENCE:
            kept = await store.last(subject, deadline_ns)
            if kept is not None and not _is_gone(kept):
                raise CallFailed(Failure.CONFLICT, f"the key '{key}' is in the {store.what} already")
            # It was deleted, and what says so is its last message.
            done = await store.put(subject, value, deadline_ns, hops, _EXPECTED % (kept.sequence if kept else 0))
        if done.number in WRONG_SEQUENCE:
            raise CallFailed(Failure.CONFLICT, f"the key '{key}' was made by somebody else at the same time")
        return (b"%d" % done.taken().sequence,)

    async def _update(
        self, store: Store, key: str, value: bytes, expected: int, hops: bytes, deadline_ns: int
    ) -> Sequence[bytes]:
        done = await store.put(_subject(store, key), value, deadline_ns, hops, _EXPECTED % expected)
        if done.number in WRONG_SEQUENCE:
            text = f"the key '{key}' of the {store.what} has not the revision {expected}: get it again, then update"
            raise CallFailed(Failure.CONFLICT, text)
        return (b"%d" % done.taken().sequence,)

    async def _delete(self, store: Store, key: str, hops: bytes, deadline_ns: int) -> Sequence[bytes]:
        (await store.put(_subject(store, key), b"", deadline_ns, hops, _DELETED)).taken()
        return ()

    async def _keys(self, store: Store, bucket: str) -> Sequence[bytes]:
        found: list[str] = []
        size, most = 0, self._max_size()
        connection = self._questions.connection
        async with watched(connection, store.stream):
            try:
                bucket_of_nats = await connection.client.jetstream().key_value(bucket)
                watcher = await bucket_of_nats.watchall(ignore_deletes=True, meta_only=True)
            except nats.js.errors.BucketNotFoundError:
                raise store.missing() from None
            try:
                async for entry in watcher:
                    if entry is None:
                        break
                    found.append(entry.key)
                    size += len(entry.key) + 3
                    if size > most:
                        text = f"the names of the keys in the {store.what} are more than the {most} bytes of an answer"
                        raise CallFailed(Failure.TOO_LARGE, text)
            finally:
                await watcher.stop()  # type: ignore[no-untyped-call]  # nats-py's
        return (orjson.dumps(sorted(found)),)


def _hops(ask: Ask) -> bytes:
    return hops_line(*(call.headers for call in ask.calls))


def _subject(store: Store, key: str) -> str:
    return f"$KV.{store.stream[3:]}.{key}"


def _is_gone(kept: Kept) -> bool:
    return bool(kept.headers) and _GONE.search(kept.headers) is not None
