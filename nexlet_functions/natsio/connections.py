"""Connections shared by whoever has equal credentials, and by nobody else.

A hundred functions of one namespace need one connection, not a hundred; two namespaces with different credentials need
two, because what the server allows and hides goes by connection. `Connections.lease` counts who uses which, and the
last one to leave closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.life import Options

__all__ = ["Connections"]


class _Shared:
    __slots__ = ("connection", "users")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.users = 0


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

    def hold(self, credentials: Credentials) -> Connection:
        """The connection of these credentials, connected or not; started at its first use. Pair with `release`."""
        shared = self._shared.get(credentials)
        if shared is None:
            connection = Connection(credentials, name=self._name, options=self._options)
            connection.start()
            shared = self._shared[credentials] = _Shared(connection)
        shared.users += 1
        return shared.connection

    async def acquire(self, credentials: Credentials, *, timeout: float = 10.0) -> Connection:
        """The connected connection of these credentials. Pair with `release`.

        Args:
            timeout: seconds.

        Raises:
            ConnectFailed: it could not be had within that time, or the server turned the credentials down.
            ConnectionClosed: `close` came first.
        """
        connection = self.hold(credentials)
        try:
            await connection.wait_connected(timeout)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Connection) -> None:
        """One user less; the last one closes it."""
        shared = self._shared.get(connection.credentials)
        if shared is None or shared.connection is not connection:
            return  # `close` was quicker
        shared.users -= 1
        if shared.users == 0:
            del self._shared[connection.credentials]
            await connection.close()

    @contextlib.asynccontextmanager
    async def lease(self, credentials: Credentials, *, timeout: float = 10.0) -> AsyncIterator[Connection]:
        """`acquire` and `release` around an `async with`. Raises what `acquire` raises."""
        connection = await self.acquire(credentials, timeout=timeout)
        try:
            yield connection
        finally:
            await self.release(connection)

    def __len__(self) -> int:
        return len(self._shared)

    def all(self) -> list[Connection]:
        """Those in use."""
        return [shared.connection for shared in self._shared.values()]

    async def close(self) -> None:
        """Close all, whoever uses them."""
        shared, self._shared = self._shared, {}
        await asyncio.gather(*(one.connection.close() for one in shared.values()))
