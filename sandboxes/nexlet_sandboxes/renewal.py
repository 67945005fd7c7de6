"""Workers of a program that was renewed take over from those of the last: the same sources, another environment.

A first worker of the new program is loaded beside those that are there, so that a program that does not load changes
nothing. Then those get no more calls, and end when they have finished what they were sent. Where there may be no more
workers than there are, the first one of the new program, the **successor**, waits until one of them has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nexlet_sandboxes.link import Link
from nexlet_sandboxes.program import Program

if TYPE_CHECKING:
    from nexlet_sandboxes.growth import Growth
    from nexlet_sandboxes.pool import Pool

__all__ = ["Renewal"]


class Renewal:
    """The renewals of one pool.

    Attributes:
        loading: renewals whose first worker is not ready yet.
        successor: one that is, and waits for its turn.
    """

    def __init__(self, pool: Pool, growth: Growth) -> None:
        """Nothing is renewed."""
        self._pool = pool
        self._growth = growth
        self.loading: set[asyncio.Task[Link]] = set()
        self.successor: Link | None = None

    async def renew(self, program: Program) -> None:
        """As `Pool.renew`.

        Raises:
            LoadRefused: it raised or took too long to load; everything is as before.
            SandboxError: no worker could be made; likewise.
        """
        pool, growth = self._pool, self._growth
        loading = asyncio.get_running_loop().create_task(growth.load(program))
        self.loading.add(loading)
        try:
            link = await loading
        except asyncio.CancelledError:
            if pool.closed and loading.cancelled():
                return  # `close` did that
            loading.cancel()
            raise
        finally:
            self.loading.discard(loading)
        if pool.draining:
            growth.discard(link)
            return
        pool.program = program
        growth.wait_no_more()
        if self.successor is not None:  # renewed again, before it had its turn
            growth.discard(self.successor)
            self.successor = None
        for old in tuple(growth.links):
            if not old.fifo:
                growth.retire(old)
            elif not pool.single_use:  # one that is used once goes with its call
                growth.links.remove(old)
                growth.leaving.append(old)
        if len(growth.links) + len(growth.leaving) < pool.limits.max_workers:
            growth.admit(link)
        elif pool.single_use:
            growth.discard(link)  # it has shown that it loads; each call that ends makes room for another
        else:
            self.successor = link
        pool.workers_changed()

    def left(self, link: Link) -> None:
        """One of those that were to finish has."""
        self._growth.leaving.remove(link)
        if self.successor is not None:
            successor, self.successor = self.successor, None
            self._growth.admit(successor)
        self._pool.sink.changed()
        self._pool.workers_changed()

    def lost(self, link: Link) -> None:
        """A worker died, of whatever program."""
        if link is self.successor:
            self.successor = None
        elif link in self._growth.leaving:
            self.left(link)

    def close(self) -> list[Link]:
        """Load none any more, and give back the one that waits. The caller closes it, and awaits `closed`."""
        for task in self.loading:
            task.cancel()
        links = [self.successor] if self.successor is not None else []
        self.successor = None
        return links

    async def closed(self) -> None:
        """Wait until those have ended that were loading."""
        await asyncio.gather(*self.loading, return_exceptions=True)
