"""The hot path of one function: message in, call to the pool, answer and event out.

`Dispatcher` stands between the trigger subscriptions and the pool. A message becomes one `Call`; when it has ended, its
reply and its event become protocol bytes and wait for the end of the batch that the pool is reading, so that many of
them leave in one write. Headers are encoded once for each function, the event is filled into a template.

Invariants, which the tests of the failure table hold:
- each message leads to exactly one call, each call to at most one reply and, by default, exactly one event;
- no task, future or timer is made for a message, and nothing here waits;
- what a worker wrote reaches a reply only as body bytes or as header lines that `nexlet_sandboxes.link` has checked;
- nothing larger than the server's `max_payload` is written: the server would close the connection over it.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import orjson

from nexlet_functions.functions.deadlines import DeadlineRefused, deadline_ns
from nexlet_functions.functions.hops import LOOP, hops_of, too_far
from nexlet_functions.functions.permissions import ReplyRule
from nexlet_functions.functions.triggers import Trigger
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.protocol import clean_header_value, encode_publish
from nexlet_functions.runner.services import Feed, Services, TriggerSpec, WorkloadLog
from nexlet_functions.streams.deliveries import Delivery
from nexlet_functions.streams.letters import REDRIVEN, Sender, letter_block
from nexlet_models.events import INVOCATION_HEADER, EventName
from nexlet_sandboxes.asking import Ask
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool

__all__ = ["OF_BATCH", "DispatchCounts", "Dispatcher"]

_TOLD: Final = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.MEMORY, Outcome.CRASH})
"""Outcomes that get a line in the function's log. Refusals of a full queue do not: they would drown it."""

_NAMED: Final = 2
"""The tag of a call whose answer is to say which invocation it is of; True on one that is just to be answered.

An error always says it. An answer that went well does where its message has the header, with whatever value: on all of
them it would cost each message more than a hundredth of its time."""

OF_BATCH: Final = "+"
"""Behind the id of the first invocation of a batch: what is named so is of all of them."""

_ELSEWHERE: Final = 3
_NAMED_ELSEWHERE: Final = 4
"""The tags in place of True and `_NAMED` where a message did not come over the connection that answers leave by: while
a function moves, and of triggers that do not. It is answered where it came from, because a server may permit an answer
to that connection alone (`allow_responses`)."""

_TURNED: Final = {True: _ELSEWHERE, _NAMED: _NAMED_ELSEWHERE, _ELSEWHERE: True, _NAMED_ELSEWHERE: _NAMED}

_ASKS: Final = re.compile(rb"\r\n" + INVOCATION_HEADER.encode() + rb":", re.IGNORECASE)
_SENT_BACK: Final = re.compile(rb"\r\n" + REDRIVEN.encode() + rb":", re.IGNORECASE)

_KEPT: Final = 512
"""Subjects whose JSON form is remembered, and sizes whose protocol text is; a function may see any number of either."""

_Key = TypeVar("_Key", int, bytes)

_MS_KEPT: Final = 4096
_MS: Final = tuple(b"%.3f" % (us / 1000) for us in range(_MS_KEPT))
"""Milliseconds as the event has them, by microseconds: formatting a float takes as long as all else of an event."""

# Looked up for each message; a member of an enumeration is ten times as far away as a name of the module.
_OK: Final = Outcome.OK
_now_ns: Final = time.monotonic_ns


@dataclass(slots=True)
class DispatchCounts:
    """What a function's dispatcher has seen since it began.

    Attributes:
        outcomes: ended invocations by outcome.
        ran, queued: how long they ran and waited. An invocation that was not run counts as having run for no time.
        replies_withheld: messages whose reply subject may not be answered (NATS's or Nex's own, or a trigger).
        replies_dropped: answers the connection did not take any more.
        events_dropped: events likewise.
        failures_dropped: messages that failed and are, with the headers that say so, too large for `on_failure`.
    """

    outcomes: dict[str, int]
    ran: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)
    replies_withheld: int = 0
    replies_dropped: int = 0
    events_dropped: int = 0
    failures_dropped: int = 0


class _Entrance:
    """The sink of one trigger's messages; it knows which pattern they matched. Implements `BatchSink`."""

    __slots__ = (
        "_answer",
        "_answers",
        "_dispatcher",
        "_enqueue",
        "_may_answer",
        "_named",
        "_pattern",
        "_redriven",
        "_refuse",
        "batch_end",
        "trigger",
    )

    def __init__(self, dispatcher: Dispatcher, pool: Pool, trigger: Trigger, *, rule: ReplyRule) -> None:
        self.trigger = trigger
        self._dispatcher = dispatcher
        self._pattern = trigger.number
        self._answers: int = trigger.reply
        self._answer: int = True
        self._named: int = _NAMED
        self._may_answer = rule.may_answer
        self._redriven = None if trigger.reply else dispatcher.redriven
        self._enqueue = pool.enqueue
        self._refuse = pool.refuse
        self.batch_end = pool.flush

    @property
    def spec(self) -> TriggerSpec:
        """What is to be subscribed to for it."""
        return TriggerSpec(self.trigger.subject, self.trigger.queue_group, sink=self)

    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        """One message of this trigger."""
        answers = self._answers
        if headers and self._redriven is not None and self._redriven.search(headers) is not None:
            answers = self._answer  # whoever sends a dead letter back waits for what becomes of it
        if reply and answers and not self._may_answer(reply):
            answers = False
            self._dispatcher.counts.replies_withheld += 1
        call = Call(subject, payload, reply, headers, self._pattern, _now_ns(), answers)
        if headers:
            if hops_of(headers) > self._dispatcher.max_hops:
                self._refuse(call, LOOP, too_far(self._dispatcher.max_hops))
                return
            try:
                call.deadline_ns = deadline_ns(headers, call.received_ns)
            except DeadlineRefused as refused:
                self._refuse(call, 400, str(refused))
                return
            if answers and _ASKS.search(headers) is not None:
                call.tag = self._named
        self._enqueue(call)

    def turn(self) -> None:
        """Answers leave by the other connection from now on than the one that its messages come over; or no longer."""
        self._answer, self._named = _TURNED[self._answer], _TURNED[self._named]
        if self._answers:
            self._answers = self._answer


class Dispatcher:
    """Connects one function's triggers with its pool. Implements `nexlet_sandboxes.calls.Sink`.

    Attributes:
        counts: for heartbeats, metrics and tests.
        sent_bytes: of answers, and of events that left with them.
    """

    def __init__(
        self,
        *,
        workload_id: str,
        namespace: str,
        triggers: Sequence[Trigger],
        services: Services,
        rule: ReplyRule,
        events: str = "all",
        name: str = "",
        max_hops: int = 16,
        on_change: Callable[[], None] | None = None,
        on_death: Callable[[str, Result], None] | None = None,
    ) -> None:
        """Nothing is subscribed yet.

        Args:
            events: "all", or "failures" to publish an event only for what did not end `ok`.
            name: of the function.
            max_hops: how many functions a message may have gone through.
            on_change: called when workers came or went.
            on_death: called with an invocation id and its result when a worker ended with it.
        """
        self.workload_id = workload_id
        self.namespace = namespace
        self._triggers = tuple(triggers)
        self._services = services
        self._rule = rule
        self.max_hops = max_hops
        self._sender = Sender(namespace, name, workload_id)
        self._on_failure = {
            trigger.number: trigger.on_failure for trigger in self._triggers if trigger.on_failure is not None
        }
        self._failures_only = events == "failures"
        self._on_change = on_change
        self._on_death = on_death
        self._pool: Pool | None = None
        self._connection: Connection  # by `answer_on`, before any message comes; another one after `move_to`
        self._home: Connection | None = None
        self._other: Connection | None = None
        self._fixed: list[_Entrance] = []
        self._movable: list[_Entrance] = []
        self._former: list[_Entrance] = []  # while a move is under way
        self._elsewhere: list[bytes] = []  # pieces for the other connection
        self._answered_elsewhere = self._left = 0
        self._settled: asyncio.Future[None] | None = None
        self._feed: Feed = services.feed(namespace)
        self._feed_prefix = ""
        self._event_subject = b""
        self._log: WorkloadLog = services.get_logger(workload_id, namespace)
        self._replies: list[bytes] = []  # pieces, to be joined
        self._replied = 0
        self._events: list[bytes] = []  # pieces, two an event
        self._event_heads: dict[int, bytes] = {}
        identity = f"workload_id: {clean_header_value(workload_id)}\r\nnamespace: {clean_header_value(namespace)}\r\n"
        self._headers = b"NATS/1.0\r\n" + identity.encode()
        self._ok_block = self._headers + b"\r\n"
        self._ok_size = len(self._ok_block)
        self._ok_middles: dict[int, bytes] = {}
        self._named_headers = self._event_body = b""
        self._ok_tails: dict[bytes, bytes] = {}
        self.counts = DispatchCounts({outcome.value: 0 for outcome in Outcome})
        self.sent_bytes = 0
        self._outcomes = self.counts.outcomes
        self._ran, self._queued = self.counts.ran, self.counts.queued
        self._ran_buckets, self._queued_buckets = self._ran.buckets, self._queued.buckets

    @functools.cached_property
    def redriven(self) -> re.Pattern[bytes]:
        """Finds the header of a dead letter of this function that was sent back.

        Only a trigger that answers nobody has use for it, and who answers such a letter; making it takes as long as
        anything else of a dispatcher.
        """
        name = re.escape(self._sender.full_name.encode())
        return re.compile(rb"\r\n(?i:%b):[ \t]*%b[ \t]*\r\n" % (REDRIVEN.encode(), name))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The trigger subjects, in the order that `Call.pattern` counts them."""
        return tuple(trigger.subject for trigger in self._triggers)

    @property
    def movable(self) -> bool:
        """Whether it has triggers that may move."""
        return any(trigger.movable for trigger in self._triggers)

    def bind(self, pool: Pool) -> None:
        """Say which pool runs the calls. Once, before `specs`."""
        self._pool = pool
        # Which invocation it was stands last, so that for each message only its number is appended.
        self._named_headers = self._headers + f"{INVOCATION_HEADER}: {pool.prefix}".encode()
        identity = b'{"id":%b,"namespace":%b,"invocation_id":"%b' % (
            orjson.dumps(self.workload_id),
            orjson.dumps(self.namespace),
            pool.prefix.encode(),
        )
        self._event_body = identity.replace(b"%", b"%%") + (
            b'%x","duration":%b,"queue_ms":%b,"cpu_ms":%b,"peak_memory_bytes":%d,"attempt":%d%b'
        )

    def specs(self) -> list[TriggerSpec]:
        """What to subscribe to, each with its own entrance."""
        self._fixed = [self._entrance(trigger) for trigger in self._triggers if not trigger.movable]
        self._movable = [self._entrance(trigger) for trigger in self._triggers if trigger.movable]
        return [entrance.spec for entrance in (*self._fixed, *self._movable)]

    def _entrance(self, trigger: Trigger) -> _Entrance:
        assert self._pool is not None, "bind() comes first"
        return _Entrance(self, self._pool, trigger, rule=self._rule)

    def answer_on(self, connection: Connection) -> None:
        """Say which connection carries the replies. Messages may come from when it subscribes, so before that."""
        self._connection = self._home = connection

    # Moving to another connection.

    def move_to(self, connection: Connection) -> list[TriggerSpec]:
        """Have answers and events leave by this connection from now on: one apart, or the way back.

        What is here, and what comes by the connection that was, is answered where it came from. `settled` must follow
        before that may be closed.

        Returns:
            What is to be subscribed to there, and then ended where it was.
        """
        assert not self._former, "one move after the other"
        self._turn(connection)
        self._former = self._movable
        self._movable = [self._entrance(entrance.trigger) for entrance in self._former]
        return [entrance.spec for entrance in self._movable]

    def move_back(self) -> None:
        """The move has failed, and nothing comes by the new connection any more."""
        assert self._other is not None, "nothing was moved"
        self._turn(self._other)
        self._movable, self._former = self._former, []

    def moved(self) -> None:
        """The move is done: nothing comes any more that is to be answered here, but by triggers that do not move."""
        self._former = []

    async def settled(self) -> None:
        """Return when all that came by the other connection, which brings no more, is answered."""
        assert self._pool is not None
        self._left = sum(_turned(call) in (True, _NAMED) for call in self._pool.calls())
        if self._left:
            self._settled = asyncio.get_running_loop().create_future()
            try:
                await self._settled
            finally:
                self._settled = None
        self._other = None

    def answer_all_here(self) -> None:
        """The other connection is lost and brings no more: what came by it is answered over this one from now on.

        In place of `settled`. What was answered before is with that connection.
        """
        assert self._pool is not None
        self.flush()
        for call in self._pool.calls():
            if (turned := _turned(call)) in (True, _NAMED):
                call.tag = turned
        self._other = None

    def _turn(self, connection: Connection) -> None:
        """Swap what leaves by one connection and what by the other."""
        assert self._pool is not None
        self.flush()
        self._other, self._connection = self._connection, connection
        for entrance in (*self._fixed, *self._movable, *self._former):
            entrance.turn()
        for call in self._pool.calls():
            if turned := _turned(call):
                call.tag = turned

    def identity(self, ask: Ask) -> str:
        """Of who asks: an invocation's id; where its message is one of a stream, the same each time it is delivered.

        A batch has one of this run alone. Who else is in it is another matter each time, and under a name that comes
        again a message of one of them might be dropped for that of another.
        """
        assert self._pool is not None
        if len(ask.calls) > 1:
            return f"{self._pool.invocation_id(ask.call)}{OF_BATCH}"
        identity = getattr(ask.call.tag, "identity", None)
        if isinstance(identity, str):
            return f"{self.namespace}:{identity}"
        return self._pool.invocation_id(ask.call)

    # What the pool tells.

    def finished(self, call: Call, result: Result) -> None:
        """A call ended: its reply and its event join the batch."""
        tag, delivery = call.tag, None
        if tag is not True and isinstance(tag, Delivery):
            delivery = tag
            if not delivery.ended(call, result):
                return  # it was not run, and is put in line once more
        outcome = result.outcome
        self._outcomes[outcome] += 1
        run_ns, queue_ns = result.run_ns, result.queue_ns
        run_us, queue_us = run_ns // 1000, queue_ns // 1000
        self._ran.sum_ns += run_ns
        self._ran_buckets[run_us.bit_length()] += 1
        self._queued.sum_ns += queue_ns
        self._queued_buckets[queue_us.bit_length()] += 1
        if call.reply and (tag is True or tag is _NAMED):
            body = result.body
            size = len(body)
            if (
                outcome is _OK
                and tag is True
                and not result.headers
                and size + self._ok_size <= self._connection.max_payload
            ):
                # Nearly every answer: what comes between subject and body depends on the body's size alone.
                middle = self._ok_middles.get(size) or self._ok_middle(size)
                self._replies += (b"HPUB ", call.reply, middle, body, b"\r\n")
                self._replied += 1
            else:
                self._reply(call, result)
                outcome = result.outcome
        elif tag is not True and (tag is _ELSEWHERE or tag is _NAMED_ELSEWHERE):
            self._answer_elsewhere(call, result)
            outcome = result.outcome
        if outcome is _OK:
            if self._failures_only:
                return
            tail = self._ok_tails.get(call.subject) or self._ok_tail(call.subject)
        else:
            error = b',"error":' + orjson.dumps(result.error) if result.error else b""
            tail = b'%b,"outcome":"%b"%b}\r\n' % (_subject_json(call.subject), outcome.encode(), error)
        if delivery is not None:
            tail = delivery.event_fields + tail
        if call.asks is not None:
            tail = b',"calls":%d%b' % (call.asks.count, tail)
        events = self._events
        if not events:
            self._look_at_feed()
        cpu_us = result.cpu_ns // 1000
        body = self._event_body % (
            call.id,
            _MS[run_us] if run_us < _MS_KEPT else b"%.3f" % (run_us / 1000),
            _MS[queue_us] if queue_us < _MS_KEPT else b"%.3f" % (queue_us / 1000),
            _MS[cpu_us] if cpu_us < _MS_KEPT else b"%.3f" % (cpu_us / 1000),
            result.peak_memory_bytes,
            call.attempt,
            tail,
        )
        size = len(body)
        events += (self._event_heads.get(size) or self._event_head(size), body)
        if outcome is not _OK:
            self._tell(call, result)
            if call.pattern in self._on_failure and not (call.reply and tag):
                if result.code == LOOP and hops_of(call.headers) > self.max_hops + 1:
                    self.counts.failures_dropped += 1  # a letter of a letter: they would go on for ever
                    return
                self._send_failed(call, result, self._on_failure[call.pattern])

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        """A line of the function's output goes to its feed."""
        invocation = self._named(call_id)
        if stream == "stdout":
            self._log.stdout(line, invocation)
        else:
            self._log.stderr(line, invocation)

    def measured(self, call_id: int, data: bytes) -> None:
        """A metric of the function goes to its feed."""
        self._services.emit_metrics(self.workload_id, self.namespace, data, self._named(call_id))

    def _named(self, call_id: int) -> str:
        assert self._pool is not None
        return f"{self._pool.prefix}{call_id:x}" if call_id else ""

    def changed(self) -> None:
        """Workers came or went."""
        if self._on_change is not None:
            self._on_change()

    def say(self, blob: bytes) -> None:
        """One encoded message joins the batch: what a stream is told, by the connection that its messages come by."""
        if self._other is not None and self._connection is not self._home:
            self._elsewhere.append(blob)
            self._answered_elsewhere += 1
        else:
            self._replies.append(blob)
            self._replied += 1

    def flush(self) -> None:
        """The batch is over: what it brought leaves in one write (in two where feeds have their own connection)."""
        replies, events = self._replies, self._events
        feed = self._feed.connection
        if feed is self._home:
            feed = self._connection  # by the same credentials
        told = len(events) // 2
        if self._elsewhere:
            self._flush_elsewhere()
        if replies:
            count = self._replied
            if events and feed is self._connection and not feed.crowded:
                replies += events
                events.clear()
                count += told
            blob = b"".join(replies)
            self.sent_bytes += len(blob)
            if not self._connection.write(blob, count):
                self.counts.replies_dropped += self._replied
                self.counts.events_dropped += count - self._replied
            replies.clear()
            self._replied = 0
        if events:
            if not feed.write(b"".join(events), told, spare=True):
                self.counts.events_dropped += told
            events.clear()

    def _flush_elsewhere(self) -> None:
        assert self._other is not None
        if not self._other.write(b"".join(self._elsewhere), self._answered_elsewhere):
            self.counts.replies_dropped += self._answered_elsewhere
        self._elsewhere.clear()
        self._answered_elsewhere = 0

    # Encoding.

    def _ok_middle(self, size: int) -> bytes:
        """What comes between the subject and the body of a plain answer of `size` bytes."""
        return _kept(self._ok_middles, size, b" %d %d\r\n%b" % (self._ok_size, self._ok_size + size, self._ok_block))

    def _reply(self, call: Call, result: Result) -> None:
        """An answer that is an error, has headers of its own, or is to say which invocation it is of."""
        body = result.body
        if result.outcome is _OK:
            block = (self._named_block(call) if call.tag is _NAMED else self._headers) + result.headers + b"\r\n"
            if len(block) + len(body) > self._connection.max_payload:
                # The limit was lowered since the function was started; its own `max_reply` said yes.
                result.outcome, result.code, result.headers = Outcome.ERROR, 500, b""
                result.error = (
                    f"the reply is {len(body)} bytes; the server takes {self._connection.max_payload}, headers included"
                )
                self._outcomes[Outcome.OK] -= 1
                self._outcomes[Outcome.ERROR] += 1
                body = b""
                block = self._error_block(call, result)
        else:
            block = self._error_block(call, result)
        size = len(block)
        self._replies += (b"HPUB ", call.reply, b" %d %d\r\n" % (size, size + len(body)), block, body, b"\r\n")
        self._replied += 1

    def _answer_elsewhere(self, call: Call, result: Result) -> None:
        """An answer to what came by the other connection."""
        assert self._other is not None
        if self._settled is not None:
            self._left -= 1
            if not self._left and not self._settled.done():
                self._settled.set_result(None)
        if not call.reply:
            return
        call.tag = _turned(call)
        here = self._connection, self._replies, self._replied
        self._connection, self._replies, self._replied = self._other, self._elsewhere, self._answered_elsewhere
        try:
            self._reply(call, result)
        finally:
            self._answered_elsewhere = self._replied
            self._connection, self._replies, self._replied = here

    def _error_block(self, call: Call, result: Result) -> bytes:
        text = clean_header_value(result.error or result.outcome.value)
        lines = f"error: {text}\r\nNats-Service-Error: {text}\r\nNats-Service-Error-Code: {result.code}\r\n\r\n"
        return self._named_block(call) + lines.encode()

    def _named_block(self, call: Call) -> bytes:
        block = b"%b%x\r\n" % (self._named_headers, call.id)
        if call.headers and _SENT_BACK.search(call.headers) and self.redriven.search(call.headers):
            # Others on this subject may answer as well. Whoever sent it back is to know whose word this is.
            block += b"%b: %b\r\n" % (REDRIVEN.encode(), self._sender.full_name.encode())
        return block

    def _look_at_feed(self) -> None:
        """Once a batch, before its first event: the feed's prefix may be another than it was."""
        prefix = self._feed.prefix
        if prefix is not self._feed_prefix:
            self._feed_prefix = prefix
            self._event_subject = f"{prefix}.events.{EventName.WORKLOAD_TRIGGERED.value}".encode()
            self._event_heads.clear()

    def _event_head(self, size: int) -> bytes:
        """The protocol line of an event whose body and line end are `size` bytes."""
        return _kept(self._event_heads, size, b"PUB %b %d\r\n" % (self._event_subject, size - 2))

    def _ok_tail(self, subject: bytes) -> bytes:
        """The end of the event of an invocation that went well; the same for every message of a subject."""
        return _kept(self._ok_tails, subject, _subject_json(subject) + b',"outcome":"ok"}\r\n')

    # What failed, and nobody waits for.

    def _send_failed(self, call: Call, result: Result, to: str) -> None:
        assert self._pool is not None
        assert self._connection is not None
        invocation_id = self._pool.invocation_id(call)
        block = letter_block(
            self._sender,
            result,
            subject=call.subject,
            headers=call.headers,
            attempt=call.attempt,
            invocation_id=invocation_id,
            message_id=f"failed:{invocation_id}",
        )
        if len(block) + len(call.payload) > self._connection.max_payload:
            self.counts.failures_dropped += 1
            return
        self.say(encode_publish(to, call.payload, headers=block))

    # The author's log.

    def _tell(self, call: Call, result: Result) -> None:
        assert self._pool is not None
        invocation = self._pool.invocation_id(call)
        if result.traceback:
            text = result.traceback.encode("utf-8", "replace")
            if self._pool.may_log(len(text)):
                self._log.stderr(text, invocation)
        elif result.outcome in _TOLD:
            line = f"invocation {invocation}: {result.outcome.value}: {result.error}".encode()
            if self._pool.may_log(len(line)):
                self._log.stderr(line, invocation)
        if self._on_death is not None and result.outcome in (Outcome.CRASH, Outcome.MEMORY, Outcome.TIMEOUT):
            self._on_death(invocation, result)


def _turned(call: Call) -> int:
    """Its tag where answers leave by the other connection; 0 where it is no plain one, or not to be answered."""
    tag = call.tag
    return _TURNED.get(tag, 0) if isinstance(tag, int) else 0


def _kept(texts: dict[_Key, bytes], key: _Key, text: bytes) -> bytes:
    """`text`, remembered under `key` among a bounded number of others."""
    if len(texts) >= _KEPT:
        texts.clear()
    texts[key] = text
    return text


def _subject_json(subject: bytes) -> bytes:
    return b',"subject":' + orjson.dumps(subject.decode("utf-8", "replace"))
