"""Connections shared by whoever has equal credentials, and by nobody else.

A hundred functions of one namespace need one connection, not a hundred; two namespaces with different credentials need
two, because what the server allows and hides goes by connection. `Connections.lease` counts who uses which, and the
last one to leave closes it. One whose credentials are void may be given others (`renew`), with all that is on it.

What would keep the others waiting may have one apart from that (`open_apart`), by the same credentials and renewed
with them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.life import Options

__all__ = ["Connections"]


class _Shared:
    __slots__ = ("beside", "connection", "users")

    def __init__(self, connection: Connection, beside: Connection | None = None) -> None:
        self.connection = connection
        self.beside = beside  # where this one was opened apart: the one that is found by these credentials
        self.users: Counter[str] = Counter()  # by namespace


class Connections:
    """One connection for each value of `Credentials` in use."""

    def __init__(self, *, name: str = "", options: Options | None = None) -> None:
        """Nothing runs yet.

        Args:
            name: what connections are called on the server, where their credentials have no name.
        """
        self._name = name
        self._options = options
        self._shared: dict[Credentials, _Shared] = {}
        # Those given credentials of which there was a connection already, and those that were opened apart.
        self._further: list[_Shared] = []
        self._closed_callbacks: list[Callable[[Connection], None]] = []

    def on_closed(self, callback: Callable[[Connection], None]) -> None:
        """Have each connection told when it is closed, with all that it has counted."""
        self._closed_callbacks.append(callback)

    def hold(self, credentials: Credentials, namespace: str = "") -> Connection:
        """The connection of these credentials, connected or not; started at its first use. Pair with `release`.

        Args:
            namespace: who uses it; "" for ourselves.
        """
        shared = self._shared.get(credentials)
        if shared is None:
            connection = Connection(credentials, name=self._name, options=self._options)
            connection.start()
            shared = self._shared[credentials] = _Shared(connection)
        shared.users[namespace] += 1
        return shared.connection

    async def acquire(self, credentials: Credentials, namespace: str = "", *, timeout: float = 10.0) -> Connection:
        """The connected connection of these credentials. Pair with `release`.

        Args:
            namespace: who uses it; "" for ourselves.
            timeout: seconds.

        Raises:
            ConnectFailed: it could not be had within that time, or the server turned the credentials down.
            ConnectionClosed: `close` came first.
        """
        return await self._connected(self.hold(credentials, namespace), namespace, timeout)

    async def open_apart(self, beside: Connection, namespace: str = "", *, timeout: float = 10.0) -> Connection:
        """A connection of its own, by the credentials of another one of ours. Pair with `release`.

        Args:
            namespace: who uses it; "" for ourselves.
            timeout: seconds.

        Raises:
            ConnectFailed: it could not be had within that time, or the server turned it down.
            ConnectionClosed: `close` came first.
        """
        # Those who listen for what is forbidden listen at the other one.
        connection = Connection(beside.credentials, name=self._name, options=self._options, passing=True)
        connection.on_violation(beside.violated)
        connection.start()
        shared = _Shared(connection, beside)
        shared.users[namespace] += 1
        self._further.append(shared)
        return await self._connected(connection, namespace, timeout)

    async def _connected(self, connection: Connection, namespace: str, timeout: float) -> Connection:
        """That one, when it is; where that comes to nothing, one user less."""
        try:
            await connection.wait_connected(timeout)
        except BaseException:
            await self.release(connection, namespace)
            raise
        return connection

    async def release(self, connection: Connection, namespace: str = "") -> None:
        """One user less; the last one closes it."""
        shared = self._find(connection)
        if shared is None:
            return  # `close` was quicker
        shared.users[namespace] -= 1
        if not shared.users.total():
            self._forget(shared)
            await self._close(connection)

    def namespaces(self, connection: Connection) -> frozenset[str]:
        """Who uses it, and those apart by the same credentials."""
        return frozenset().union(*(+shared.users for shared in self._together(connection)))

    def renew(self, connection: Connection, credentials: Credentials) -> None:
        """Have it connect by other credentials from now on, and those apart by the same ones with it.

        One that is connected stays so until it is lost.
        """
        for shared in self._together(connection):  # none where nobody uses it any more
            self._forget(shared)
            shared.connection.renew(credentials)
            if shared.beside is not None or credentials in self._shared:
                self._further.append(shared)
            else:
                self._shared[credentials] = shared

    @contextlib.asynccontextmanager
    async def lease(self, credentials: Credentials, *, timeout: float = 10.0) -> AsyncIterator[Connection]:
        """`acquire` and `release` around an `async with`. Raises what `acquire` raises."""
        connection = await self.acquire(credentials, timeout=timeout)
        try:
            yield connection
        finally:
            await self.release(connection)

    def __len__(self) -> int:
        return len(self._shared) + len(self._further)

    def all(self) -> list[Connection]:
        """Those in use."""
        return [shared.connection for shared in (*self._shared.values(), *self._further)]

    async def close(self) -> None:
        """Close all, whoever uses them."""
        connections = self.all()
        self._shared.clear()
        self._further.clear()
        await asyncio.gather(*(self._close(one) for one in connections))

    async def _close(self, connection: Connection) -> None:
        await connection.close()
        for callback in self._closed_callbacks:
            callback(connection)

    def _find(self, connection: Connection) -> _Shared | None:
        shared = self._shared.get(connection.credentials)
        if shared is not None and shared.connection is connection:
            return shared
        return next((one for one in self._further if one.connection is connection), None)

    def _together(self, connection: Connection) -> list[_Shared]:
        """All that are apart from each other, and the one that they are apart from; none where it is gone."""
        found = self._find(connection)
        if found is None:
            return []
        first = found.beside or connection
        every = (*self._shared.values(), *self._further)
        return [one for one in every if first in (one.connection, one.beside)]

    def _forget(self, shared: _Shared) -> None:
        if shared in self._further:
            self._further.remove(shared)
        else:
            del self._shared[shared.connection.credentials]
