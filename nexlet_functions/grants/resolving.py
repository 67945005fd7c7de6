"""Names to addresses, without a thread that anybody has to wait for.

The system's resolver blocks, and cannot be cancelled: with a name server that is silent it takes as long as
`/etc/resolv.conf` says, whoever has given up on it by then. So each look-up has a daemon thread of its own,
`MAX_LOOKUPS` at once for one function, and whoever wants more waits for a thread to end: a function whose names do not
resolve keeps neither other functions from theirs nor the nexlet from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final

from nexlet_functions.grants.outwards import Address, plain

__all__ = ["Lookup", "Resolver", "ThreadResolver", "system_lookup"]

MAX_LOOKUPS: Final = 4
"""Look-ups of one function that are under way at once."""

Lookup = Callable[[str], Sequence[str]]
"""The addresses of a name, in the order to try them; blocks. Raises OSError where there are none."""

Resolver = Callable[[str], Awaitable[Sequence[Address]]]


def system_lookup(name: str) -> Sequence[str]:
    """As the system does it for every program: hosts file, name servers, order of RFC 6724."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class ThreadResolver:
    """A `Resolver` over a `Lookup`, for one function."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        """Nothing is started before the first name."""
        self._lookup = lookup
        self._room = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, name: str) -> Sequence[Address]:
        """The addresses of a name.

        Raises:
            OSError: it has none, or they cannot be found out.
        """
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Address]] = loop.create_future()

        def tell(found: Sequence[Address], error: OSError | None) -> None:
            self._room.release()
            if answer.done():
                return  # whoever asked has given up
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def look_up() -> None:
            found: Sequence[Address] = ()
            failed: OSError | None = None
            try:
                found = [plain(ip_address(text)) for text in self._lookup(name)]
            except OSError as error:
                failed = error
            except (UnicodeError, ValueError) as error:  # what getaddrinfo says to a label that is too long
                failed = OSError(str(error))
            try:
                loop.call_soon_threadsafe(tell, found, failed)
            except RuntimeError:
                pass  # the loop is closed: the nexlet has ended without this answer

        try:
            threading.Thread(target=look_up, name="look-up", daemon=True).start()
        except RuntimeError as error:  # no thread is to be had
            self._room.release()
            raise OSError(str(error)) from None
        return await answer
