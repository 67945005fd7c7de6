"""Publishing and requests: messages in the workload's name, with headers that the nexlet writes.

What a function publishes carries an identity, made of its invocation and of its position among what that has published.
Where a stream keeps the subject it drops a message whose identity it has: a message of a stream that is delivered
again has the same invocation identity, so that a second run publishes nothing twice. What a batch publishes for all of
its messages has one that no other run has. It carries how many functions it
has gone through as well, so that functions that run each other come to an end (`functions.hops`).

Whether a stream keeps a subject is asked for once and remembered for a while: then publishing waits for the stream's
acknowledgement, and else until the server has taken the message.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import orjson

from nexlet_functions.functions.deadlines import DEADLINE_HEADER
from nexlet_functions.functions.hops import hops_line
from nexlet_functions.grants.checks import headers_of, parts_of, subject_of
from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.stored import acknowledged
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.errors import NoResponders, PublishRefused
from nexlet_functions.natsio.protocol import clean_header_value
from nexlet_models.subjects import matches
from nexlet_sandboxes.asking import Ask, Verb, not_granted

__all__ = ["Subjects"]

_REMEMBERED_NS: Final = 30_000_000_000
_SUBJECTS: Final = 1024
"""Subjects of which it is remembered whether they are granted, and whether a stream keeps them."""

Work = Callable[[], Awaitable[Sequence[bytes]]]


class Subjects:
    """What one function may publish on and ask."""

    def __init__(
        self,
        publish: Sequence[str],
        request: Sequence[str],
        questions: Questions,
        *,
        identity: Callable[[Ask], str],
        max_payload: Callable[[], int],
    ) -> None:
        """Nothing is asked yet.

        Args:
            publish, request: patterns that are granted.
            identity: of who asks: an invocation's is the same when its message is delivered again, a batch's another.
            max_payload: bytes of headers and payload that the server takes.
        """
        self._patterns = {"publish": tuple(publish), "request": tuple(request)}
        self._granted: dict[str, set[str]] = {"publish": set(), "request": set()}
        self._questions = questions
        self._identity = identity
        self._max_payload = max_payload
        self._streams: dict[str, tuple[bool, int]] = {}
        self.verbs: Mapping[int, Callable[[Ask], Work]] = {
            Verb.PUBLISH: self.publish,
            Verb.REQUEST: self.request,
        }

    def publish(self, ask: Ask) -> Work:
        """Subject, header lines and payload; nothing, or stream, sequence and whether it is a duplicate."""
        part, lines, payload = parts_of(ask.parts, 3)
        subject, own = subject_of(part), headers_of(lines)
        self._check("publish", subject, "publishing on")
        identity = clean_header_value(self._named(ask))
        hops = hops_line(*(call.headers for call in ask.calls))
        block = b"NATS/1.0\r\n%b%b\r\nNats-Msg-Id: %b\r\n\r\n" % (own, hops, identity.encode())
        self._fit(block, payload)
        return partial(self._publish, subject, block, payload, ask.deadline_ns)

    def request(self, ask: Ask) -> Work:
        """Subject, header lines and payload; header block and payload of the answer."""
        part, lines, payload = parts_of(ask.parts, 3)
        subject, own = subject_of(part), headers_of(lines)
        self._check("request", subject, "a request to")
        left = max(1, (ask.deadline_ns - time.monotonic_ns()) // 1_000_000)
        block = b"NATS/1.0\r\n%b%b\r\n%b: %d\r\n\r\n" % (
            own,
            hops_line(*(call.headers for call in ask.calls)),
            DEADLINE_HEADER.encode(),
            left,
        )
        self._fit(block, payload)
        return partial(self._request, subject, block, payload, ask.deadline_ns)

    def _named(self, ask: Ask) -> str:
        """What this message is called, after who publishes it."""
        asks = ask.asks
        if len(ask.calls) > 1:
            asks.together += 1
            return f"{self._identity(ask)}:{asks.together}"
        asks.published += 1
        return f"{self._identity(ask)}:{asks.published}"

    # --- once it is known to be granted ----------------------------------------------------------------------------

    def _check(self, key: str, subject: str, what: str) -> None:
        granted = self._granted[key]
        if subject in granted:
            return
        if not any(matches(pattern, subject) for pattern in self._patterns[key]):
            raise CallFailed(Failure.DENIED, not_granted(f"{what} {subject!r}", f"{key}: [{subject}]"))
        if len(granted) >= _SUBJECTS:
            granted.clear()
        granted.add(subject)

    def _fit(self, block: bytes, payload: bytes) -> None:
        size, most = len(block) + len(payload), self._max_payload()
        if size > most:
            text = f"the message has {size} bytes with its headers, more than the {most} that the server takes"
            raise CallFailed(Failure.TOO_LARGE, text)

    async def _publish(self, subject: str, block: bytes, payload: bytes, deadline_ns: int) -> Sequence[bytes]:
        questions = self._questions
        if await self._kept(subject, deadline_ns):
            try:
                answer = await questions.ask(subject, payload, headers=block, deadline_ns=deadline_ns)
            except NoResponders:
                # Nobody has heard it: its stream was deleted, or has no leader at the moment. What a stream keeps is
                # not published past it, where it would be lost without a word.
                self._streams[subject] = (True, 0)
                if await self._kept(subject, deadline_ns):
                    raise _no_leader(subject) from None
            else:
                done = acknowledged(answer.payload).taken()
                return done.stream.encode(), b"%d" % done.sequence, b"%d" % done.duplicate
        await questions.tell(subject, payload, headers=block, deadline_ns=deadline_ns)
        return ()

    async def _kept(self, subject: str, deadline_ns: int) -> bool:
        """Whether a stream keeps what is published there and says so."""
        now = time.monotonic_ns()
        kept, until = self._streams.get(subject, (False, 0))
        if now < until:
            return kept
        try:
            asked = orjson.dumps({"subject": subject})
            answer = await self._questions.ask("$JS.API.STREAM.LIST", asked, deadline_ns=deadline_ns)
        except (NoResponders, PublishRefused):
            if kept:
                raise _no_leader(subject) from None
            # There is no JetStream, or none that this workload may ask.
        else:
            streams = orjson.loads(answer.payload).get("streams") or ()
            kept = any(not stream.get("config", {}).get("no_ack") for stream in streams)
        if len(self._streams) >= _SUBJECTS:
            self._streams.clear()
        self._streams[subject] = (kept, now + _REMEMBERED_NS)
        return kept

    async def _request(self, subject: str, block: bytes, payload: bytes, deadline_ns: int) -> Sequence[bytes]:
        answer = await self._questions.ask(subject, payload, headers=block, deadline_ns=deadline_ns)
        return answer.headers, answer.payload


def _no_leader(subject: str) -> CallFailed:
    return CallFailed(Failure.UNAVAILABLE, f"the stream that keeps '{subject}' does not answer; nothing was published")
