"""A function on a connection of its own, for as long as it is flooded, and the way there and back.

Where connections are shared, what was sent to a flooded function before is read before what its neighbours wait for. On
one of its own it waits for itself alone, and it gives way: after each piece of what came for it, and of what its
workers answered, it asks whether anybody waits who is mostly idle (`waiting.Waiting`), and if so, the loop has a turn.
While nobody does, its batches are as large as anyone's. Were they always small, one that is merely busy, at half of
what it could answer, would fall behind beside one that computes (217 ms to an answer, not 11).

Queue groups make the move: the function joins its group a second time over the other connection, waits until the server
has confirmed that, and leaves it over the first; whichever of the two the server chooses meanwhile, each message comes
once. In between they come in no order, so that a function with one worker, which has them in order, stays, and so do
triggers without a queue group. What came over a connection is answered over it, unless that is lost and left: then over
the other one.

`Apart` is one function's part of it, `floods.Floods` says when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import structlog

from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.services import Services
from nexlet_sandboxes.pool import Pool

__all__ = ["Apart"]

STOPS_WITHIN: Final = 2.0
"""Seconds that a stop waits for a move to end by itself: with a server that answers it takes a round trip or two."""


class Apart:
    """Where one function's messages come. Owned by the function, which ends it.

    Attributes:
        home: the connection that it shares.
        connection: its own; None while it has none.
        movable: whether it may be moved: it promises no order, and has triggers that share what comes.
        trouble: why it could not be moved the last time; "" where it could.
    """

    def __init__(
        self,
        services: Services,
        dispatcher: Dispatcher,
        pool: Pool,
        home: Connection,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """At home, and subscribed there."""
        self._services = services
        self._dispatcher = dispatcher
        self._pool = pool
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._between: asyncio.Future[None] | None = None  # while subscriptions are in two places
        self._closing: asyncio.Future[None] | None = None
        self._stopped = False
        self.home = home
        self.connection: Connection | None = None
        self.movable = pool.limits.max_workers > 1 and dispatcher.movable
        self.trouble = ""

    @property
    def moving(self) -> bool:
        """Whether it is on its way, out or back."""
        return self._task is not None

    @property
    def taken(self) -> int:
        """Messages that have come so far, over either connection."""
        return self._pool.taken

    @property
    def sent_bytes(self) -> int:
        """Bytes of its answers so far."""
        return self._dispatcher.sent_bytes

    @property
    def ran_ns(self) -> int:
        """How long its invocations ran so far, all together."""
        return self._dispatcher.counts.ran.sum_ns

    def sockets(self) -> Iterator[int]:
        """What its workers say comes over these descriptors."""
        return self._pool.sockets()

    def go(self, others_wait: Callable[[], bool]) -> None:
        """Begin to move to a connection of its own; `trouble` says so where that comes to nothing.

        Args:
            others_wait: while it is apart, whether it is to let others have their turn.
        """
        if self.connection is None and self.movable:
            self._begin(self._go(others_wait))

    def come_back(self) -> None:
        """Begin to move back to the connection that is shared."""
        if self.connection is not None:
            self._begin(self._come_back(self.connection))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task is not None or self._stopped:
            work.close()
            return
        self._task = asyncio.get_running_loop().create_task(work, name=f"move {self._dispatcher.workload_id}")
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("moving a function to another connection failed", exc_info=error)

    async def _go(self, others_wait: Callable[[], bool]) -> None:
        services, dispatcher = self._services, self._dispatcher
        try:
            connection = self.connection = await services.open_apart(dispatcher.workload_id)
            try:
                await self._move(connection)
            except AgentError:
                await self._leave(connection)
                raise
        except AgentError as error:
            if not self.trouble:
                reason = error.text.partition("\n")[0]
                self._log.warning("no connection of its own for a flooded function", reason=reason)
            self.trouble = error.text
            return
        connection.give_way(others_wait)
        self._pool.others_wait = others_wait
        self.trouble = ""
        self._log.info("flooded: on a connection of its own from now on")

    async def _come_back(self, connection: Connection) -> None:
        try:
            await self._move(self.home)
        except AgentError as error:
            self._log.warning("stays on a connection of its own", reason=error.text.partition("\n")[0])
            return
        await self._leave(connection)
        self._log.info("flooded no longer: on the shared connection again")

    async def _move(self, to: Connection) -> None:
        specs = self._dispatcher.move_to(to)
        self._between = asyncio.get_running_loop().create_future()
        try:
            await self._services.move_triggers(self._dispatcher.workload_id, specs, to)
        except BaseException:
            self._dispatcher.move_back()
            raise
        finally:
            self._between.set_result(None)
            self._between = None
        self._dispatcher.moved()

    async def _leave(self, connection: Connection) -> None:
        """Let go of its own connection, over which nothing comes any more."""
        if connection.connected:
            await self._dispatcher.settled()
        else:
            self._dispatcher.answer_all_here()
        await self.close()

    async def stop(self) -> None:
        """No more moves: when this returns, the function's subscriptions are where they are."""
        self._stopped = True
        task = self._task
        if task is None:
            return
        if self._between is not None:
            await asyncio.wait((self._between,), timeout=STOPS_WITHIN)
        task.cancel()
        await asyncio.wait((task,))

    async def close(self) -> None:
        """Let go of the connection; everything is answered. Safe to repeat: each returns when it is closed."""
        if self._closing is None and self.connection is not None:
            self._closing = asyncio.ensure_future(self._close(self.connection))
        if self._closing is not None:
            await asyncio.shield(self._closing)  # whoever gives up waiting for it has not got it back

    async def _close(self, connection: Connection) -> None:
        try:
            if not connection.connected:
                connection.hand_over(self.home)  # which may have somebody to give it to
            await self._services.close_apart(connection, self._dispatcher.namespace)
        finally:
            self.connection = self._closing = self._pool.others_wait = None
