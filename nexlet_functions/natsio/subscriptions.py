"""Subscriptions that outlive their client, and the server's verdict on each.

A server refuses a subscription with a word that comes some time after it was asked, and names only subject and queue.
So one is asked for, everything before is flushed, and what the server said in between decides. Those that it would not
tell apart are asked for one after another.

- `Subscription`: what `Connection.subscribe` returns.
- `Subscriptions`: all of one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Coroutine, Iterable
from typing import Any

import nats.errors
import structlog
from nats.aio.subscription import Subscription as ClientSubscription

from nexlet_functions.natsio.complaints import Violation, key
from nexlet_functions.natsio.errors import ConnectionLost, SubscriptionRefused
from nexlet_functions.natsio.life import Life
from nexlet_functions.natsio.sinks import BatchSink, MessageSink

__all__ = ["Subscription", "Subscriptions"]


class Subscription:
    """A subscription that outlives reconnections.

    Attributes:
        subject, queue: what was asked for.
        refused: the server's text where it came to forbid it; tried again from time to time. "" while it is live.
    """

    def __init__(self, owner: Subscriptions, subject: str, queue: str, sink: MessageSink | BatchSink) -> None:
        self._owner = owner
        self.subject = subject
        self.queue = queue
        self.sink = sink
        self.refused = ""
        self.closed = False
        self.held: tuple[Life, ClientSubscription] | None = None

    async def unsubscribe(self) -> None:
        """End it. When this returns no further message comes; what was under way has reached the sink."""
        await self._owner.end(self)

    def __repr__(self) -> str:
        return f"Subscription({self.subject!r}, queue={self.queue!r})"


class Subscriptions:
    """What one connection is subscribed to."""

    def __init__(self, *, flush_timeout: float, log: structlog.stdlib.BoundLogger) -> None:
        self._flush_timeout = flush_timeout
        self._log = log
        self._live: dict[Subscription, None] = {}
        # Those whose verdict is awaited, by what the server calls them.
        self._asked: dict[tuple[str, str], Subscription] = {}
        self._locks: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._live)

    def all(self) -> list[Subscription]:
        """Those that were allowed once and have not been ended."""
        return list(self._live)

    def refused(self) -> list[Subscription]:
        """Those of them that the server forbids now."""
        return [one for one in self._live if one.refused]

    def turn(self, subject: str, queue: str) -> asyncio.Lock:
        """Hold it while a subscription of that name is asked for."""
        name = key(subject, queue)
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def ask(self, life: Life, subscription: Subscription) -> None:
        """Subscribe on this client and learn the verdict (`refused`); one that is allowed is ours from here on.

        Raises:
            ConnectionLost: before there was one.
            SubscriptionRefused: nats-py takes the subject for none.
        """
        name = key(subscription.subject, subscription.queue)
        self._asked[name] = subscription
        subscription.refused = ""
        handle: ClientSubscription | None = None
        try:
            handle = await life.guard(
                life.wire.subscribe(subscription.subject, subscription.queue, subscription.sink), "a subscription"
            )
            await life.guard(life.wire.flush(), "a subscription")
            if not subscription.refused:
                subscription.held = (life, handle)
                self._live[subscription] = None
                handle = None
        except nats.errors.BadSubjectError:
            raise SubscriptionRefused(subscription.subject, "", reason="it is not a subject") from None
        finally:
            del self._asked[name]
            if handle is not None and not self._closed:
                self._background(self._forget(life, handle))

    async def end(self, subscription: Subscription) -> None:
        """See `Subscription.unsubscribe`."""
        if subscription.closed:
            return
        subscription.closed = True
        self._live.pop(subscription, None)
        held, subscription.held = subscription.held, None
        if held is not None:
            await self._forget(*held)

    async def renew(self, life: Life, subscriptions: Iterable[Subscription]) -> None:
        """All of them on this client, with one flush; those that are refused now say so (`refused`).

        Raises:
            ConnectionLost: before that.
        """
        wanted = list(subscriptions)
        before = {one: one.refused for one in wanted}
        for one in wanted:
            if one.held is not None and one.held[0] is life:
                await self._forget(*one.held)
            one.refused = ""
            one.held = (life, await life.guard(life.wire.subscribe(one.subject, one.queue, one.sink), "subscribing"))
        await life.guard(life.wire.flush(), "subscribing")
        for one in wanted:
            held = one.held
            if held is not None and (one.closed or one.refused):
                one.held = None
                await self._forget(*held)
            if before[one] and not one.refused and not one.closed:
                self._log.info("subscription allowed again", subject=one.subject, queue=one.queue)

    def refuse(self, violation: Violation) -> None:
        """The server said so: to the one that is being asked for, else to those that were allowed so far."""
        subject, queue = violation.subject, violation.queue
        asked = self._asked.get((subject, queue or ""))
        if asked is None and queue is None:  # older servers do not name the queue
            asked = next((one for name, one in self._asked.items() if name[0] == subject), None)
        if asked is not None:
            asked.refused = violation.text
            return
        for one in self._live:
            name = key(one.subject, one.queue)
            if name[0] == subject and (queue is None or name[1] == queue):
                one.refused = violation.text

    async def close(self) -> None:
        """End the tasks; the client is closed by its owner."""
        self._closed = True
        self._live.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forget(self, life: Life, handle: ClientSubscription) -> None:
        if life.lost.is_set():
            return
        # A loss ends the subscription just as well.
        with contextlib.suppress(ConnectionLost, TimeoutError):
            async with asyncio.timeout(self._flush_timeout):
                await life.guard(life.wire.unsubscribe(handle), "an unsubscribe")

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
