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

from nexlet_functions.natsio.complaints import TOO_MANY_SUBSCRIPTIONS, Violation, key
from nexlet_functions.natsio.errors import ConnectionLost, SubscriptionRefused
from nexlet_functions.natsio.life import Life
from nexlet_functions.natsio.sinks import BatchSink, MessageSink

__all__ = ["Subscription", "Subscriptions"]


class Subscription:
    """A subscription that outlives reconnections.

    Attributes:
        subject, queue: what was asked for.
        repeatable: whether its sink takes a message that comes twice for one.
        refused: the server's text where it came to forbid it; tried again from time to time. "" while it is live.
    """

    def __init__(
        self,
        owner: Subscriptions,
        subject: str,
        queue: str,
        sink: MessageSink | BatchSink,
        *,
        repeatable: bool = False,
    ) -> None:
        self._owner = owner
        self.subject = subject
        self.queue = queue
        self.sink = sink
        self.repeatable = repeatable
        self.refused = ""
        self.closed = False
        self.held: tuple[Life, ClientSubscription] | None = None
        self.former: tuple[Life, ClientSubscription] | None = None  # while it moves
        self.changing = asyncio.Lock()  # while it is asked for anew: whoever ends it then waits for that

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
        self._too_many = 0  # how often a server said that there are too many
        self._careful = False

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

        Where the server says that there are too many, it does not say which: all that are being asked for then are
        refused, and none of those that are live.

        Raises:
            ConnectionLost: before there was one, or another client takes over from this one: it is to be asked.
            SubscriptionRefused: nats-py takes the subject for none.
        """
        name = key(subscription.subject, subscription.queue)
        self._asked[name] = subscription
        subscription.refused = ""
        too_many = self._too_many
        handle: ClientSubscription | None = None
        try:
            handle = await life.guard(
                life.wire.subscribe(subscription.subject, subscription.queue, subscription.sink), "a subscription"
            )
            await life.guard(life.wire.flush(), "a subscription")
            if self._too_many != too_many:
                subscription.refused = subscription.refused or TOO_MANY_SUBSCRIPTIONS
            if not subscription.refused:
                if life.left:  # what moves is chosen already, and this would end with it
                    left, handle = handle, None
                    await self._forget(life, left)
                    raise ConnectionLost("a subscription")
                subscription.held = (life, handle)
                self._live[subscription] = None
                handle = None
        except nats.errors.BadSubjectError:
            raise SubscriptionRefused(subscription.subject, "", reason="it is not a subject") from None
        except ConnectionLost:
            if not _full(life):
                raise
            subscription.refused = TOO_MANY_SUBSCRIPTIONS  # nats-py ends a connection over it; once more would, too
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
        async with subscription.changing:
            held, subscription.held = subscription.held, None
            former, subscription.former = subscription.former, None
            for one in (held, former):
                if one is not None:
                    await self._forget(*one)

    async def renew(self, life: Life, subscriptions: Iterable[Subscription], *, retry: bool = False) -> None:
        """All of them on this client, with one flush; those that are refused now say so (`refused`).

        Args:
            retry: also those that ended a connection before, because there were too many.

        Raises:
            ConnectionLost: before that.
        """
        skip = self._careful and not retry
        wanted = [one for one in subscriptions if not (skip and one.refused == TOO_MANY_SUBSCRIPTIONS)]
        before = {one: one.refused for one in wanted}
        too_many, asked = self._too_many, []
        for number, one in enumerate(wanted):
            try:
                if await self._again(life, one):
                    asked.append(one)
                if self._careful:
                    await life.guard(life.wire.flush(), "subscribing")
            except ConnectionLost:
                if self._careful and _full(life):
                    for left in wanted[number:]:
                        left.refused = TOO_MANY_SUBSCRIPTIONS
                raise
        try:
            await life.guard(life.wire.flush(), "subscribing")
        except ConnectionLost:
            self._careful = self._careful or _full(life)  # next time it shows at which one
            raise
        # A server takes them in their order until there are too many: the last ones are those it did not take.
        allowed = [one for one in asked if not one.refused]
        for one in allowed[max(0, len(allowed) - (self._too_many - too_many)) :]:
            one.refused = TOO_MANY_SUBSCRIPTIONS
        for one in asked:
            if one.refused:
                async with one.changing:
                    held, one.held = one.held, None
                    if held is not None:
                        await self._forget(*held)
            elif before[one] and not one.closed:
                self._log.info("subscription allowed again", subject=one.subject, queue=one.queue)

    async def move(self, old: Life, new: Life) -> None:
        """All of them from one client that still lives to another, with nothing delivered twice that may not be.

        Members of a queue group are there twice for a moment, of which the server chooses one, and so is what may come
        twice; any other would get each message twice, so that it leaves before it comes. Whoever subscribes from now on
        asks the new one.

        Raises:
            ConnectionLost: the new one was lost.
        """
        old.left = True
        every = list(self._live)  # those that come while these move are on the new one
        moving = [one for one in every if one.held is not None and one.held[0] is old]
        for one in moving:
            one.former = one.held
        await self.renew(new, [one for one in every if one.queue or one.repeatable])
        await asyncio.gather(*(self._leave(one) for one in moving))
        await self.renew(new, [one for one in every if not (one.queue or one.repeatable)])

    async def _leave(self, one: Subscription) -> None:
        former, one.former = one.former, None
        if former is not None:
            await self._forget(*former)

    async def _again(self, life: Life, one: Subscription) -> bool:
        """Ask for one on this client; False where it was ended meanwhile."""
        async with one.changing:
            if one.held is not None and one.held[0] is life:
                await self._forget(*one.held)
            one.refused, one.held = "", None
            if one.closed:
                return False
            one.held = (life, await life.guard(life.wire.subscribe(one.subject, one.queue, one.sink), "subscribing"))
            return True

    def too_many(self) -> None:
        """The server said so, to one of those that were asked for last."""
        self._too_many += 1

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


def _full(life: Life) -> bool:
    """Whether it was lost because there were too many subscriptions."""
    return life.lost.is_set() and TOO_MANY_SUBSCRIPTIONS in life.reason.lower()
