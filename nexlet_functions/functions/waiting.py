"""Whether anybody waits for the loop: what a flooded function asks after each piece of its messages and answers.

The loop itself does not tell what has come over its sockets while it is at something else. So they are watched a second
time, by an epoll of our own, which is asked and never waits: about a microsecond.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterable

__all__ = ["Waiting"]


class Waiting:
    """A set of sockets. Nothing is read from them here, and none is kept open."""

    def __init__(self) -> None:
        """None is watched, and that costs nothing."""
        self._epoll: select.epoll | None = None
        self._watched: frozenset[int] = frozenset()

    def watch(self, sockets: Iterable[int]) -> None:
        """Watch these descriptors from now on, and no others; negative ones stand for none.

        One that is closed is watched no longer by itself, and another one under its number is from the next time on
        that it is named here.
        """
        wanted = frozenset(socket for socket in sockets if socket >= 0)
        if not wanted:
            self.close()
            return
        if self._epoll is None:
            self._epoll = select.epoll()
        for socket in self._watched - wanted:
            with contextlib.suppress(OSError):  # it is closed, and perhaps another one that was never watched
                self._epoll.unregister(socket)
        watched = set()
        for socket in wanted:
            try:
                self._epoll.register(socket, select.EPOLLIN)
            except FileExistsError:
                pass  # as before
            except OSError:
                continue  # closed just now
            watched.add(socket)
        self._watched = frozenset(watched)

    def some(self) -> bool:
        """Whether something came over one of them that nobody has read yet, or one has ended."""
        return self._epoll is not None and bool(self._epoll.poll(0, 1))

    def close(self) -> None:
        """Watch none. Safe to repeat."""
        epoll, self._epoll = self._epoll, None
        self._watched = frozenset()
        if epoll is not None:
            epoll.close()
