"""Secrets in a KV bucket, sealed: written by `nexfn secrets`, and opened by nexlets with the keys they are sealed to.

`SecretsBucket` is the bucket as both see it. `BucketSecrets` is the store of a nexlet: it reads with the nexlet's own
credentials, at each use, over a connection that it makes for the first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.natsio.bucket import Bucket, BucketUnavailable, key_token
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.runner.secrets import SecretUnreadable
from nexlet_functions.secrets.sealed import NotForUs, keys_of, set_at, unseal

__all__ = ["BucketSecrets", "Listed", "SecretsBucket"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A secret as it may be shown.

    Attributes:
        key: its name.
        set_at: when, as its sealer says it; "" where it says nothing.
        sealed_to: the public curve keys that can open it; none where it is no sealed secret.
    """

    key: str
    set_at: str
    sealed_to: tuple[str, ...]


class SecretsBucket:
    """A bucket of sealed secrets, a key for each: of its namespace and its name."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.bucket = Bucket(connection, name)

    async def get(self, namespace: str, key: str) -> bytes | None:
        """The sealed secret; None where there is none.

        Raises:
            BucketUnavailable: it cannot be read.
        """
        return (await self.bucket.get(_key(namespace, key))).data

    async def put(self, namespace: str, key: str, sealed: bytes) -> None:
        """Write a sealed secret; nothing is kept of the one before it.

        Raises:
            BucketUnavailable: it cannot be written.
        """
        await self.bucket.put(_key(namespace, key), sealed, alone=True)

    async def remove(self, namespace: str, key: str) -> bool:
        """Remove a secret, with all that was ever written to it; False where there is none.

        Raises:
            BucketUnavailable: it cannot be removed.
        """
        if await self.get(namespace, key) is None:
            return False
        await self.bucket.purge(_key(namespace, key))
        return True

    async def list(self, namespace: str) -> list[Listed]:
        """The secrets of a namespace, by name.

        Raises:
            BucketUnavailable: they cannot be listed.
        """
        prefix = key_token(namespace)
        found = []
        for each in await self.bucket.keys(prefix):
            data = (await self.bucket.get(each)).data
            if data is None:
                continue
            key = _named(each.removeprefix(f"{prefix}."))
            try:
                found.append(Listed(key, set_at(data), keys_of(data)))
            except NotForUs:
                found.append(Listed(key, "", ()))
        return sorted(found, key=lambda one: one.key)


def _key(namespace: str, key: str) -> str:
    return f"{key_token(namespace)}.{key_token(key)}"


def _named(token: str) -> str:
    """What `key_token` made a token of."""
    first, *others = token.split("=")
    return (
        first.encode() + b"".join(bytes([int(part[:2], 16)]) + part[2:].encode() for part in others)
    ).decode("utf-8", "replace")  # fmt: skip


class BucketSecrets:
    """Implements `SecretStore` over a sealed bucket."""

    def __init__(self, connect: Callable[[], Connection], bucket: str, key: Callable[[], CurveKey]) -> None:
        """Nothing is connected yet.

        Args:
            connect: makes the connection, not started.
            key: the nexlet's curve key, asked at each use.
        """
        self._connect = connect
        self._name = bucket
        self._key = key
        self._connection: Connection | None = None

    async def get(self, namespace: str, key: str) -> SecretStr | None:
        """See `SecretStore.get`."""
        what = f"secret {key!r} of namespace {namespace!r}"
        if self._connection is None:
            self._connection = self._connect()
            self._connection.start()
        try:
            sealed = await SecretsBucket(self._connection, self._name).get(namespace, key)
        except BucketUnavailable as error:
            raise SecretUnreadable(f"{what} cannot be read: {error.reason}") from None
        if sealed is None:
            return None
        try:
            # Two scalar multiplications, but of a size that a start waits for anyway.
            return await asyncio.to_thread(unseal, sealed, namespace, key, self._key())
        except NotForUs as error:
            raise SecretUnreadable(f"{what} cannot be opened: {error}") from None

    async def close(self) -> None:
        """End the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
