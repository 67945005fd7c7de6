"""Object stores, as NATS clients have them: a stream `OBJ_BUCKET` with an object's pieces and what is told of it.

Written here and not with nats-py's own, which follows a link into another bucket, that was not granted, and leaves
pieces behind where it is interrupted. The form of names, digests and messages is that of NATS clients
(nats-architecture-and-design, ADR-20), so that each reads what the others wrote. What is written carries how many
functions it has gone through, since a store is a stream as well, and may run a function (`functions.hops`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import nats.js.errors
import orjson

from nexlet_functions.functions.hops import hops_line
from nexlet_functions.grants.checks import bucket_of, name_of, parts_of, text_of
from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.stored import Store
from nexlet_functions.grants.watched import watched
from nexlet_functions.natsio.asking import Questions
from nexlet_models.base import timestamp
from nexlet_models.sizes import format_size
from nexlet_sandboxes.asking import Ask, Verb, not_granted, store_denied

__all__ = ["Stores"]

PIECE: Final = 128 * 1024
"""Bytes of a piece: the default of all NATS clients."""

_HEAD: Final = 64
"""Bytes that the headers of a piece have at most."""

_CLEAN_UP_NS: Final = 2_000_000_000
_ROLLUP: Final = b"Nats-Rollup: sub"
_DIGEST: Final = "SHA-256="

Work = Callable[[], Awaitable[Sequence[bytes]]]


class Stores:
    """The object stores that one function was granted."""

    def __init__(
        self, grants: Mapping[str, str], questions: Questions, *, max_size: Callable[[], int], piece: Callable[[], int]
    ) -> None:
        """Nothing is asked yet.

        Args:
            grants: name to "read" or "write".
            max_size: bytes that an object may have here.
            piece: bytes that one message may carry.
        """
        self._grants = grants
        self._questions = questions
        self._max_size = max_size
        self._piece = piece
        self._stores: dict[str, Store] = {}
        self.verbs: Mapping[int, Callable[[Ask], Work]] = {
            Verb.OBJECT_GET: self.get,
            Verb.OBJECT_PUT: self.put,
            Verb.OBJECT_INFO: self.info,
            Verb.OBJECT_LIST: self.list_all,
            Verb.OBJECT_DELETE: self.delete,
        }

    def get(self, ask: Ask) -> Work:
        """Bucket and name; bytes and what is told of it."""
        bucket, name = parts_of(ask.parts, 2)
        return partial(self._get, self._store(bucket, "read"), name_of(name), ask.deadline_ns)

    def put(self, ask: Ask) -> Work:
        """Bucket, name, bytes and description; what is told of it."""
        bucket, name, data, description = parts_of(ask.parts, 4)
        store, text = self._store(bucket, "write"), text_of(description)
        return partial(
            self._put,
            store,
            name_of(name),
            data,
            text,
            hops_line(*(call.headers for call in ask.calls)),
            ask.deadline_ns,
        )

    def info(self, ask: Ask) -> Work:
        """Bucket and name; what is told of it."""
        bucket, name = parts_of(ask.parts, 2)
        return partial(self._info, self._store(bucket, "read"), name_of(name), ask.deadline_ns)

    def list_all(self, ask: Ask) -> Work:
        """Bucket; what is told of each."""
        (bucket,) = parts_of(ask.parts, 1)
        return partial(self._list, self._store(bucket, "read"))

    def delete(self, ask: Ask) -> Work:
        """Bucket and name; nothing."""
        bucket, name = parts_of(ask.parts, 2)
        store = self._store(bucket, "write")
        return partial(
            self._delete, store, name_of(name), hops_line(*(call.headers for call in ask.calls)), ask.deadline_ns
        )

    # --- once it is known to be granted ----------------------------------------------------------------------------

    def _store(self, part: bytes, access: str) -> Store:
        bucket = bucket_of(part)
        if self._grants.get(bucket) not in ("write", access):
            raise CallFailed(Failure.DENIED, not_granted(*store_denied("objects", bucket, access)))
        store = self._stores.get(bucket)
        if store is None:
            store = self._stores[bucket] = Store(self._questions, f"OBJ_{bucket}", f"object store '{bucket}'")
        return store

    async def _told(self, store: Store, name: str, deadline_ns: int) -> dict[str, Any] | None:
        kept = await store.last(_meta(store, name), deadline_ns)
        return None if kept is None else _read(kept.payload, store)

    async def _found(self, store: Store, name: str, deadline_ns: int) -> dict[str, Any]:
        told = await self._told(store, name, deadline_ns)
        if told is None or told.get("deleted"):
            raise CallFailed(Failure.NOT_FOUND, f"there is no object '{name}' in the {store.what}")
        return told

    async def _info(self, store: Store, name: str, deadline_ns: int) -> Sequence[bytes]:
        return (orjson.dumps(_shown(await self._found(store, name, deadline_ns))),)

    async def _get(self, store: Store, name: str, deadline_ns: int) -> Sequence[bytes]:
        told = await self._found(store, name, deadline_ns)
        if (told.get("options") or {}).get("link"):
            raise CallFailed(Failure.DENIED, f"the object '{name}' is a link, and links are not followed")
        shown = _shown(told)
        if shown["size"] > self._max_size():
            raise self._too_large(name, shown["size"])
        pieces: list[bytes] = []
        digest, size, sequence = hashlib.sha256(), 0, 1
        subject = f"$O.{store.stream[4:]}.C.{told.get('nuid', '')}"
        while size < shown["size"]:
            kept = await store.after(subject, sequence, deadline_ns)
            if kept is None or not kept.payload:
                break
            sequence = kept.sequence + 1
            size += len(kept.payload)
            digest.update(kept.payload)
            pieces.append(kept.payload)
        if size != shown["size"] or _digest(digest.digest()).rstrip("=") != shown["digest"].rstrip("="):
            # Replaced while it was read, most of all: the pieces of the one before are gone then.
            text = f"the object '{name}' in the {store.what} is not whole: it was replaced, or is damaged; get it again"
            raise CallFailed(Failure.CONFLICT, text)
        return b"".join(pieces), orjson.dumps(shown)

    async def _put(
        self, store: Store, name: str, data: bytes, description: str, hops: bytes, deadline_ns: int
    ) -> Sequence[bytes]:
        if len(data) > self._max_size():
            raise self._too_large(name, len(data))
        before = await self._told(store, name, deadline_ns)
        nuid = secrets.token_hex(11)
        subject = f"$O.{store.stream[4:]}.C.{nuid}"
        piece = min(PIECE, self._piece() - _HEAD)
        told: dict[str, Any] = {
            "name": name,
            "description": description,
            "options": {"max_chunk_size": piece},
            "bucket": store.stream[4:],
            "nuid": nuid,
            "size": len(data),
            "mtime": timestamp(),
            "chunks": -(-len(data) // piece),
            "digest": _digest(hashlib.sha256(data).digest()),
        }
        try:
            for at in range(0, len(data), piece):
                (await store.put(subject, data[at : at + piece], deadline_ns, hops)).taken()
            (await store.put(_meta(store, name), orjson.dumps(told), deadline_ns, hops, _ROLLUP)).taken()
        except BaseException:
            # Whatever ended it, its time, its worker or the server: pieces that belong to nothing are not left behind.
            await asyncio.shield(self._purge(store, subject))
            raise
        if before is not None and not before.get("deleted") and before.get("nuid"):
            await self._purge(store, f"$O.{store.stream[4:]}.C.{before['nuid']}")
        return (orjson.dumps(_shown(told)),)

    async def _delete(self, store: Store, name: str, hops: bytes, deadline_ns: int) -> Sequence[bytes]:
        told = await self._found(store, name, deadline_ns)
        gone = told | {"deleted": True, "size": 0, "chunks": 0, "digest": "", "mtime": timestamp()}
        (await store.put(_meta(store, name), orjson.dumps(gone), deadline_ns, hops, _ROLLUP)).taken()
        await self._purge(store, f"$O.{store.stream[4:]}.C.{told.get('nuid', '')}")
        return ()

    async def _purge(self, store: Store, subject: str) -> None:
        """Give back what pieces take. They are of no object any more, so that this fails is no failure of the call."""
        try:
            deadline = time.monotonic_ns() + _CLEAN_UP_NS
            await store.api("STREAM.PURGE", {"filter": subject}, deadline)
        except Exception:  # noqa: BLE001, S110  # see above
            pass

    async def _list(self, store: Store) -> Sequence[bytes]:
        found: dict[str, dict[str, Any]] = {}
        size, most = 0, self._max_size()
        connection = self._questions.connection
        async with watched(connection, store.stream):
            try:
                of_nats = await connection.client.jetstream().object_store(store.stream[4:])
                watcher = await of_nats.watch(ignore_deletes=True)
            except nats.js.errors.BucketNotFoundError:
                raise store.missing() from None
            try:
                async for told in watcher:
                    if told is None:
                        break
                    shown = _shown(told.as_dict())
                    found[shown["name"]] = shown
                    size += len(orjson.dumps(shown))
                    if size > most:
                        text = f"what the {store.what} tells of its objects is more than the {most} bytes of an answer"
                        raise CallFailed(Failure.TOO_LARGE, text)
            finally:
                await watcher.stop()  # type: ignore[no-untyped-call]  # nats-py's
        return (orjson.dumps([found[name] for name in sorted(found)]),)

    def _too_large(self, name: str, size: int) -> CallFailed:
        most = format_size(self._max_size())
        return CallFailed(
            Failure.TOO_LARGE, f"the object '{name}' has {size} bytes, more than the {most} of one call (max_call_size)"
        )


def _meta(store: Store, name: str) -> str:
    return f"$O.{store.stream[4:]}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _digest(digest: bytes) -> str:
    return _DIGEST + base64.urlsafe_b64encode(digest).decode()


def _read(payload: bytes, store: Store) -> dict[str, Any]:
    try:
        told: dict[str, Any] = orjson.loads(payload)
        _shown(told)
    except (orjson.JSONDecodeError, binascii.Error, KeyError, ValueError, TypeError, AttributeError):
        raise CallFailed(Failure.UNAVAILABLE, f"the {store.what} tells something else than of objects") from None
    return told


def _shown(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is told."""
    return {
        "name": str(told["name"]),
        "size": int(told.get("size") or 0),
        "digest": str(told.get("digest") or ""),
        "modified": str(told.get("mtime") or ""),
        "description": str(told.get("description") or ""),
    }
