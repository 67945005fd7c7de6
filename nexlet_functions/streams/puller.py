"""One stream trigger's messages: asked for as the workers have room, kept alive while in hand, and told how they ended.

A `Puller` has as many messages in hand as its function's workers get through without letting them wait for long
(`Pool.capacity`); what is asked for is kept by `pulls`. Requests and acknowledgements leave in the batches of the
dispatcher; there is no task and no timer for a message, but one timer for the puller, which tells the consumer of
whatever has been in hand for long.

Two things are remembered so that a lost connection leads to no second run: a message that is handed out again while it
is still in hand is the same message, and one whose acknowledgement was lost is acknowledged again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from nexlet_functions.functions.hops import LOOP, hops_of, too_far
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.streams.deliveries import ACK, IN_PROGRESS, NAK, TERM, Delivery, Key, ack_parts, nak_after
from nexlet_functions.streams.letters import LetterBox, Sender, letter_block
from nexlet_functions.streams.pulls import HEARTBEAT, Pulls, Way
from nexlet_functions.streams.returned import Returned
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.outcomes import Outcome

if TYPE_CHECKING:
    from nexlet_functions.streams.consumers import Wanted
    from nexlet_sandboxes.pool import Pool

__all__ = ["Puller", "StreamCounts"]

NOT_RUN_AGAIN: Final = 0.05
"""Seconds until a message is offered to the pool again that had no room for it."""

NOT_KEPT: Final = 30.0
"""Seconds, at least, until a message is handed out again whose dead letter no stream took."""

REMEMBERED: Final = 4096
"""Messages done that are remembered at least; at most twice as many are."""

UNSEEN: Final = 2
"""A message is not run any more after so many times `max_deliver` attempts. Those beyond `max_deliver` are attempts
whose end nobody saw: their nexlet was killed."""


@dataclass(slots=True)
class StreamCounts:
    """What became of the messages of a trigger.

    Attributes:
        done: handled, and acknowledged.
        again: to be tried again after a pause.
        returned: handed back unfinished, because the function stops.
        buried: given up, and kept as dead letters.
        dropped: given up, where there is no `dead_letter`.
        unkept: dead letters that no stream took; their messages are tried again.
        repeated: handed out again though they were in hand or done, and not run for that.
    """

    done: int = 0
    again: int = 0
    returned: int = 0
    buried: int = 0
    dropped: int = 0
    unkept: int = 0
    repeated: int = 0


class Puller:
    """The messages of one stream trigger. Implements `BatchSink`.

    Attributes:
        stream, consumer: where they are from.
        stream_json: the name, as it stands within quotes in JSON.
        counts: for metadata and tests.
        pulls: what the consumer is asked for, and what it says of that.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        inbox: str,
        pattern: int,
        pool: Pool,
        way: Way,
        connection: Connection,
        sender: Sender,
        max_hops: int,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            inbox: messages come on `INBOX.*.*`, which the caller subscribes to this sink, and what streams say of dead
                letters on `INBOX.*`, which it subscribes to `letters`.
            pattern: of the trigger, as calls name it.
        """
        trigger = wanted.trigger
        self.stream, self.consumer = wanted.stream, wanted.name
        self.stream_json = orjson.dumps(self.stream)[1:-1]
        self.inbox = inbox
        self.counts = StreamCounts()
        self._trigger = trigger
        self._pattern = pattern
        self._pool = pool
        self._say, self._flush = way.say, way.flush
        self._sender = sender
        self._max_hops = max_hops
        self._held: dict[Key, Delivery] = {}
        self._done: set[Key] = set()
        self._done_before: set[Key] = set()
        self._later: deque[Delivery] = deque()
        self._tick_every = max(0.05, min(HEARTBEAT, trigger.ack_wait / 4))
        self._tick: asyncio.TimerHandle | None = None
        self._offer: asyncio.TimerHandle | None = None
        self._told_unkept_ns = 0
        self._log = structlog.stdlib.get_logger("nexlet_functions.streams").bind(
            workload_id=sender.workload_id,
            namespace=sender.namespace,
            name=sender.name,
            stream=self.stream,
            consumer=self.consumer,
        )
        self.pulls = Pulls(wanted, self._held, inbox=inbox, pool=pool, way=way, connection=connection, log=self._log)
        self._returned = Returned(connection, wanted, self._log)
        self._returning: list[Delivery] = []
        self._undecided: list[tuple[Delivery, Call, Result | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._hands_back = self._decides = False
        self.letters = (
            LetterBox(connection, trigger.dead_letter, inbox, self._kept) if trigger.dead_letter is not None else None
        )

    @property
    def in_hand(self) -> int:
        """Messages that are here and not settled."""
        return len(self._held)

    # --- life --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask for messages from now on."""
        self._tick = asyncio.get_running_loop().call_later(self._tick_every, self._on_tick)
        self.pulls.begin()

    def stop(self) -> None:
        """Ask for nothing more. What is in hand goes on, and what still comes is handled."""
        self.pulls.stop()
        if self._offer is not None:
            self._offer.cancel()
            self._offer = None
        self._give_back(self._later)
        self._later.clear()
        self._flush()

    async def finish(self, within: float) -> None:
        """Give back what has not ended, when dead letters that are on their way have had `within` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        if self._decides:
            await asyncio.wait(self._tasks, timeout=within)
        if self.letters is not None:
            await self.letters.emptied(max(0.0, until - loop.time()))
        self._give_back(list(self._held.values()))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        await self.close()

    async def close(self) -> None:
        """Give back all that is in hand, without a note of it, and end."""
        self.stop()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for task in self._tasks:
            task.cancel()
        self._give_back(list(self._held.values()))
        self._say_returned(len(self._returning))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _give_back(self, deliveries: deque[Delivery] | list[Delivery]) -> None:
        """Have the stream hand them out again, to whoever is there then, and note that it was no attempt."""
        for delivery in deliveries:
            if self._held.pop(delivery.key, None) is not None:
                self.counts.returned += 1
                self._returning.append(delivery)
        if self._returning and not self._hands_back:
            self._hands_back = True
            self._task(self._hand_back(), "give messages back")

    async def _hand_back(self) -> None:
        try:
            while count := len(self._returning):
                # Noted first: whoever gets one has to know of it.
                await self._returned.note([delivery.sequence for delivery in self._returning])
                self._say_returned(count)
        finally:
            self._hands_back = False

    def _say_returned(self, count: int) -> None:
        for delivery in self._returning[:count]:
            self._say(NAK % delivery.reply)
        del self._returning[:count]
        self._flush()

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """For what happens seldom. It ends with the puller."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what comes --------------------------------------------------------------------------------------------------

    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        """One message, or a word about a request for some."""
        pulls, now = self.pulls, time.monotonic_ns()
        pulls.heard_ns = now
        if not reply.startswith(b"$JS.ACK."):
            pulls.status(subject, headers)
            return
        key, attempt = ack_parts(reply)
        if pulls.asked:
            pulls.asked -= 1
        if pulls.absent:
            pulls.well()
        known = self._held.get(key)
        if known is not None:
            known.reply, known.attempt, known.told_ns = reply, attempt, now
            self.counts.repeated += 1
            return
        if key in self._done or key in self._done_before:
            self._say(ACK % reply)
            self.counts.repeated += 1
            return
        delivery = self._held[key] = Delivery(self, key, reply, attempt, now)
        delivery.call = call = Call(subject, payload, reply, headers, self._pattern, now, delivery, attempt)
        if headers and hops_of(headers) > self._max_hops:
            self._pool.refuse(call, LOOP, too_far(self._max_hops))
        elif self._attempts(delivery) > UNSEEN * self._trigger.max_deliver:
            self._decide(delivery, call, None)
        else:
            self._pool.enqueue(call)

    def batch_end(self) -> None:
        """The reader has no more for now."""
        if len(self._held) + self.pulls.asked <= self.pulls.refill_at:
            self.pulls.refill()
        self._pool.flush()
        self._flush()

    # --- while they are in hand --------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        now = time.monotonic_ns()
        self._tick = asyncio.get_running_loop().call_later(self._tick_every, self._on_tick)
        due = now - int(self._tick_every * 0.9e9)
        for delivery in self._held.values():
            if delivery.told_ns <= due:
                delivery.told_ns = now
                self._say(IN_PROGRESS % delivery.reply)
        if self.letters is not None:
            self.letters.look(now)
        self.pulls.look(now)
        self._flush()

    # --- how it ended ------------------------------------------------------------------------------------------------

    def ended(self, delivery: Delivery, call: Call, result: Result) -> bool:
        """See `Delivery.ended`."""
        outcome = result.outcome
        if outcome is Outcome.OK:
            self._settle(delivery)
            self.counts.done += 1
            self._say(ACK % delivery.reply)
        elif outcome is Outcome.UNAVAILABLE:
            self._give_back([delivery])
        elif outcome is Outcome.EXPIRED or (outcome is Outcome.REJECTED and result.code == _FULL):
            return self._not_run(delivery)
        elif outcome in _FINAL or self._attempts(delivery) >= self._trigger.max_deliver:
            self._decide(delivery, call, result)
        else:
            self._try_again(delivery)
        if len(self._held) + self.pulls.asked <= self.pulls.refill_at:
            self.pulls.refill()
        return True

    def _attempts(self, delivery: Delivery) -> int:
        """How often a message was tried, this time included."""
        return max(1, delivery.attempt - self._returned.times(delivery.sequence))

    def _try_again(self, delivery: Delivery) -> None:
        del self._held[delivery.key]
        self.counts.again += 1
        pauses = self._trigger.backoff
        self._say(nak_after(delivery.reply, pauses[min(self._attempts(delivery), len(pauses)) - 1]))

    def _decide(self, delivery: Delivery, call: Call, result: Result | None) -> None:
        """Give a message up, unless it turns out that some of its attempts were none.

        Args:
            result: how the last of them ended; None for a message that has just come, and is not to be run any more.
        """
        if delivery.attempt > 1 and not self._returned.knows_since(call.received_ns):
            self._undecided.append((delivery, call, result))
            if not self._decides:
                self._decides = True
                self._task(self._look_and_decide(), "see what was given back")
            return
        attempts = self._attempts(delivery)
        if result is None:
            if attempts > UNSEEN * self._trigger.max_deliver:
                seen = f"handed out {attempts} times, and most of these attempts had an end that nobody saw"
                self._pool.refuse(call, 502, seen)
            else:
                self._pool.enqueue(call)
        elif result.outcome in _FINAL or attempts >= self._trigger.max_deliver:
            self._give_up(delivery, call, result)
        else:
            self._try_again(delivery)

    async def _look_and_decide(self) -> None:
        try:
            while self._undecided:
                await self._returned.look()
                undecided, self._undecided = self._undecided, []
                for delivery, call, result in undecided:
                    if self._held.get(delivery.key) is delivery:  # it was not given back meanwhile
                        self._decide(delivery, call, result)
                if len(self._held) + self.pulls.asked <= self.pulls.refill_at:
                    self.pulls.refill()
                self._pool.flush()
                self._flush()
        finally:
            self._decides = False

    def _settle(self, delivery: Delivery) -> None:
        self._held.pop(delivery.key, None)
        self._done.add(delivery.key)
        if len(self._done) >= REMEMBERED:
            self._done_before, self._done = self._done, set()

    def _not_run(self, delivery: Delivery) -> bool:
        if not self.pulls.pulling:
            self._give_back([delivery])
            return True
        self._later.append(delivery)
        delivery.waits = True
        if self._offer is None:
            self._offer = asyncio.get_running_loop().call_later(NOT_RUN_AGAIN, self._on_offer)
        return False

    def _on_offer(self) -> None:
        self._offer = None
        waiting, self._later = self._later, deque()
        now = time.monotonic_ns()
        for delivery in waiting:
            was, delivery.waits = delivery.call, False
            delivery.call = call = Call(
                was.subject, was.payload, delivery.reply, was.headers, self._pattern, now, delivery, delivery.attempt
            )
            self._pool.enqueue(call)
        self._pool.flush()
        self._flush()

    def _give_up(self, delivery: Delivery, call: Call, result: Result) -> None:
        # A letter of a letter, of two that get each other's, would go on for ever.
        if self.letters is None or (result.code == LOOP and hops_of(call.headers) > self._max_hops + 1):
            self._settle(delivery)
            self.counts.dropped += 1
            self._say(TERM % delivery.reply)
            return
        block = letter_block(
            self._sender,
            result,
            subject=call.subject,
            headers=call.headers,
            attempt=self._attempts(delivery),
            invocation_id=self._pool.invocation_id(call),
            message_id=f"dlq:{delivery.identity}",
            further={"Stream": self.stream, "Sequence": str(delivery.sequence), "Consumer": self.consumer},
        )
        self.letters.send(delivery, block, call.payload)

    def _kept(self, delivery: Delivery, why_not: str) -> None:
        """A stream has the dead letter of a message, or none has."""
        if delivery.key not in self._held:
            return  # given back meanwhile
        if not why_not:
            self._settle(delivery)
            self.counts.buried += 1
            self._say(TERM % delivery.reply)
        else:
            del self._held[delivery.key]
            self.counts.unkept += 1
            self._say(nak_after(delivery.reply, max(NOT_KEPT, self._trigger.backoff[-1])))
            now = time.monotonic_ns()
            if now - self._told_unkept_ns > _TELL_UNKEPT_NS or not self._told_unkept_ns:
                self._told_unkept_ns = now
                self._log.error(
                    "a dead letter is not kept, so that its message is tried again",
                    subject=self._trigger.dead_letter,
                    sequence=delivery.sequence,
                    reason=why_not,
                )
        if len(self._held) + self.pulls.asked <= self.pulls.refill_at:
            self.pulls.refill()
        self._flush()


_FULL: Final = 429
_FINAL: Final = frozenset({Outcome.REJECTED_BY_FUNCTION, Outcome.REJECTED})
_TELL_UNKEPT_NS: Final = 60_000_000_000
