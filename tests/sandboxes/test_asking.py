"""Calls of a running function as frames: both ends, what a hostile worker may send, and what is left when one ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexlet_sandboxes.asking import ASK, Ask, Status, Verb, key_problem, pack, unpack
from nexlet_sandboxes.frames import HEADER, FrameError, Kind, Splitter, frame
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.worker.asking import Asker, Sieve
from tests.support.hostile import Peer, Script, answer, open_stage
from tests.support.polling import eventually
from tests.support.pools import KeepingSink, Sandbox, call, limits, run
from tests.support.row import row

PARTS = st.lists(st.binary(max_size=40), max_size=8)


@given(PARTS)
def test_parts_come_back(parts: list[bytes]) -> None:
    assert unpack(b"head" + pack(*parts), 4) == parts


@given(st.binary(max_size=80))
def test_any_bytes_are_parts_or_refused(body: bytes) -> None:
    try:
        parts = unpack(body)
    except FrameError:
        return
    assert pack(*parts) == body


@pytest.mark.parametrize("key", ["a", "a.b", "A/b=c_d-e.f", "0", "x" * 512])
def test_keys(key: str) -> None:
    assert key_problem(key) is None


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", "a b", "a*", "a.>", "ü", "x" * 513, "a\n"])
def test_what_is_no_key(key: str) -> None:
    assert key_problem(key) is not None


# --- the worker's end ----------------------------------------------------------------------------------------------

FRAMES = st.lists(
    st.tuples(st.sampled_from([Kind.INVOKE, Kind.ANSWER]), st.integers(0, 5), st.binary(max_size=50)), max_size=12
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(position, len(data)) for position in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@settings(max_examples=300)
@given(FRAMES, st.lists(st.integers(0, 400), max_size=12), st.integers(0, 12))
def test_answers_are_taken_out_wherever_the_stream_is_cut(
    frames: list[tuple[Kind, int, bytes]], cuts: list[int], first: int
) -> None:
    """The first pieces are read by the loop, which meets no answers; the others while an answer is waited for."""
    frames = [(Kind.INVOKE if number < first else kind, *rest) for number, (kind, *rest) in enumerate(frames)]  # type: ignore[misc]
    whole = [frame(kind, body, call=number) for kind, number, body in frames]
    looped, waited = b"".join(whole[:first]), b"".join(whole[first:])
    # The loop has read into the middle of a frame: that one is none of the answers, which come only when asked for.
    more = min(len(whole[first]) - 1, 7) if first < len(whole) and frames[first][0] is Kind.INVOKE else 0
    looped, waited = looped + waited[:more], waited[more:]
    sieve = Sieve()
    for piece in cut(looped, cuts):
        sieve.follow(piece)
    assert sieve.rest == []
    taken = [found for piece in cut(waited, cuts) for found in sieve.put(piece)]
    assert [(number, body) for _, number, body in taken] == [
        (number, body) for kind, number, body in frames if kind is Kind.ANSWER
    ]
    assert looped + b"".join(sieve.rest) == b"".join(
        one for one, (kind, *_) in zip(whole, frames, strict=True) if kind is Kind.INVOKE
    )


@pytest.mark.parametrize("step", [1, 3, 16, 17, 1000])
def test_what_was_sent_ahead_stays_in_line(step: int) -> None:
    """Invocations before, around and behind two answers reach the loop whole and in order, however they are cut."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        splitter = Splitter()
        asker = Asker(theirs, splitter, lambda data: None, max_size=100)
        ahead = [frame(Kind.INVOKE, bytes([number]) * 30, call=number) for number in range(5)]
        seen: list[int] = []

        def feed(data: bytes) -> None:
            for kind, _, _, number, _, _, _ in splitter.feed(data):
                assert kind == Kind.INVOKE
                seen.append(number)

        ours.sendall(ahead[0] + ahead[1][:20])
        feed(asker.receive(4096))
        ours.sendall(ahead[1][20:] + frame(Kind.ANSWER, pack(b"one"), call=1) + ahead[2][:5])
        assert asker.ask(0, 1, ()) == (0, [b"one"])
        ours.sendall(ahead[2][5:] + ahead[3] + frame(Kind.ANSWER, pack(b"two"), flag=3, call=2) + ahead[4])
        assert asker.ask(0, 1, ()) == (3, [b"two"])
        ours.shutdown(socket.SHUT_WR)
        while data := asker.receive(step):
            feed(data)
        assert seen == [0, 1, 2, 3, 4]


def test_a_call_from_within_a_call_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send(data: bytes) -> None:
            with pytest.raises(RuntimeError, match="within a call"):
                asker.ask(0, 1, ())
            ours.sendall(frame(Kind.ANSWER, pack(), call=1))

        asker = Asker(theirs, Splitter(), send, max_size=100)
        assert asker.ask(0, 1, ()) == (0, [])


# --- the nexlet's end ----------------------------------------------------------------------------------------------


class Answers:
    """Answers as the test says: each call goes to `on`, once it is set."""

    def __init__(self, on: Callable[[Ask], None] = lambda ask: ask.answer(Status.OK, *ask.parts)) -> None:
        self.on = on
        self.asks: list[Ask] = []
        self.max_size = 1000

    def asked(self, ask: Ask) -> None:
        self.asks.append(ask)
        self.on(ask)


def asking(number: int, invocation: int, *parts: bytes, verb: int = Verb.PUBLISH, wait: int = 0) -> bytes:
    return frame(Kind.ASK, ASK.pack(number, wait) + pack(*parts), flag=verb, call=invocation)


async def played(script: Script, answers: Answers | None, **more: object) -> tuple[Pool, KeepingSink]:
    async with open_stage(script, limits(**more), answerer=answers) as (pool, sink, _):
        await run(pool, b"go")
        return pool, sink


async def test_a_call_reaches_its_answerer_and_comes_back() -> None:
    answers = Answers()
    heard: list[tuple[int, int, list[bytes]]] = []

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        await peer.say(asking(1, number, b"a", b"b"))
        heard.append(await peer.answer())
        await peer.say(answer(number))

    _, sink = await played(script, answers)
    assert heard == [(0, 1, [b"a", b"b"])]
    (ask,) = answers.asks
    assert (ask.verb, ask.asks.count) == (Verb.PUBLISH, 1)
    assert sink.results[1].outcome is Outcome.OK


@pytest.mark.parametrize(
    "data",
    [
        lambda call: asking(2, call),
        lambda call: asking(0, call),
        lambda call: asking(1, call + 1),
        lambda call: asking(1, call) + asking(2, call),
        lambda call: frame(Kind.ASK, b"", call=call),
        lambda call: frame(Kind.ASK, b"\1\0\0\0", call=call),
        lambda call: frame(Kind.ASK, ASK.pack(1, 0), call=call),
        lambda call: frame(Kind.ASK, ASK.pack(1, 0) + b"\1\xff\xff\xff\xff", call=call),
        lambda call: frame(Kind.ASK, ASK.pack(1, 0) + pack(b"x") + b"more", call=call),
        lambda call: frame(Kind.ASK, ASK.pack(1, 0) + b"\xff" * 2000, call=call),
        lambda call: frame(Kind.ANSWER, pack(), call=1),
        lambda call: HEADER.pack(1 << 30, Kind.ASK, 1, 0, call),
    ],
)
@row("a worker that asks otherwise than a worker of ours")
async def test_what_breaks_the_protocol_ends_the_worker(data: Callable[[int], bytes]) -> None:
    answers = Answers(lambda ask: None)

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        await peer.say(data(number))

    _, sink = await played(script, answers)
    assert sink.results[1].outcome is Outcome.CRASH
    assert "broke the frame protocol" in sink.results[1].error
    assert all(ask.on_drop is None for ask in answers.asks)


async def test_whoever_was_granted_nothing_may_not_ask() -> None:
    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        await peer.say(asking(1, number))

    _, sink = await played(script, None)
    assert "granted nothing" in sink.results[1].error


@row("more calls than `limits.max_calls`")
async def test_an_invocation_has_so_many_calls_and_a_worker_that_goes_on_is_ended() -> None:
    answers, heard = Answers(), []

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        for count in range(1, 100):
            await peer.say(asking(count, number))
            heard.append((await peer.answer())[0])

    _, sink = await played(script, answers, max_calls=3)
    assert heard == [Status.OK] * 3 + [Status.DENIED] * 4
    assert len(answers.asks) == 3
    assert "as many calls" in sink.results[1].error


async def test_a_worker_that_asks_on_without_reading_its_answers_is_ended() -> None:
    answers = Answers(lambda ask: ask.answer(Status.OK, bytes(300_000)))

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        for count in range(1, 100):
            await peer.say(asking(count, number))
            # The next one is not asked while this one is under way.
            await eventually(lambda count=count: len(answers.asks) == count)  # type: ignore[misc]  # bound, not given

    _, sink = await played(script, answers)
    assert sink.results[1].outcome is Outcome.CRASH
    assert "answers it does not read" in sink.results[1].error
    assert len(answers.asks) < 10


async def test_a_call_of_an_invocation_that_has_ended_is_dropped() -> None:
    dropped: list[int] = []

    def keep(ask: Ask) -> None:
        ask.on_drop = lambda: dropped.append(ask.number)

    answers = Answers(keep)
    told = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        await peer.say(asking(1, number) + answer(number))
        number, _ = await peer.invocation()
        answers.asks[0].answer(Status.OK, b"too late")
        await peer.say(asking(2, number))
        await told.wait()
        await peer.say(answer(number))

    async with open_stage(script, limits(), answerer=answers) as (pool, sink, _):
        await run(pool, b"one")
        assert dropped == [1]
        running = asyncio.ensure_future(run(pool, b"two"))
        await eventually(lambda: len(answers.asks) == 2, what="the second call")
        told.set()
        await running
        assert dropped == [1, 2]
        assert [result.outcome for result in sink.results.values()] == [Outcome.OK] * 2


@row("the invocation is over its time, or its worker dies")
async def test_a_worker_that_dies_leaves_no_call() -> None:
    dropped: list[int] = []

    def keep(ask: Ask) -> None:
        ask.on_drop = lambda: dropped.append(ask.number)

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        peer.marker = number
        await peer.say(asking(1, number))
        peer.end()

    _, sink = await played(script, Answers(keep))
    assert dropped == [1]
    assert sink.results[1].outcome is Outcome.CRASH


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=60),
            st.builds(
                lambda body, flag, call, kind: frame(kind, body, flag=flag, call=call),
                st.binary(max_size=60),
                st.integers(0, 255),
                st.integers(0, 3),
                st.sampled_from([Kind.ASK, Kind.ANSWER, Kind.LOG, Kind.INVOKE, Kind.RESULT]),
            ),
            st.builds(
                lambda number, parts, verb, wait: asking(number, 1, *parts, verb=verb, wait=wait),
                st.integers(0, 4),
                PARTS,
                st.integers(0, 255),
                st.integers(0, 2**32 - 1),
            ),
        ),
        max_size=6,
    )
)
def test_whatever_a_worker_says_its_call_ends_once_and_nothing_stays(said: list[bytes]) -> None:
    async def go() -> None:
        open_asks: set[int] = set()

        def keep(ask: Ask) -> None:
            open_asks.add(id(ask))
            ask.on_drop = lambda: open_asks.discard(id(ask))

        async def script(peer: Peer) -> None:
            await peer.load()
            await peer.invocation()
            for data in said:
                await peer.say(data)
            peer.end()

        _, sink = await played(script, Answers(keep))
        assert len(sink.results) == 1
        assert open_asks == set()

    asyncio.run(go())


# --- real workers --------------------------------------------------------------------------------------------------

PUBLISHER = """
def handler(event, context):
    n, pause = event.json()
    for i in range(n):
        context.publish("a.b", str(i))
    return n
"""


async def open_real(sandbox: Sandbox, source: str, answers: Answers, **more: object) -> Pool:
    pool = Pool(
        sandbox.zygote, Program(source), limits(**more), KeepingSink(), profile=sandbox.profile, answerer=answers
    )
    await pool.start()
    return pool


async def test_a_thousand_calls_with_invocations_behind_them(sandbox: Sandbox) -> None:
    answers = Answers(lambda ask: ask.answer(Status.OK))
    pool = await open_real(sandbox, PUBLISHER, answers)
    try:
        await run(pool, *[b"[0, 0]"] * 50)  # quick ones: from now on a worker is sent many ahead
        results = await run(pool, b"[1000, 0]", *[b"[3, 0]"] * 40)
        assert [result.outcome for result in results] == [Outcome.OK] * 41
        assert [ask.parts[2] for ask in answers.asks[:1000]] == [b"%d" % number for number in range(1000)]
        assert len(answers.asks) == 1000 + 40 * 3
    finally:
        await pool.close()


async def test_more_calls_than_are_allowed_is_denied_by_name(sandbox: Sandbox) -> None:
    source = (
        "def handler(event, context):\n    try:\n        for i in range(9):\n            context.publish('a', '')\n"
        "    except Denied as error:\n        return [i, str(error)]\n"
    )
    pool = await open_real(sandbox, source, Answers(lambda ask: ask.answer(Status.OK)), max_calls=5)
    try:
        (result,) = await run(pool, b"")
        assert result.body == (
            b'[5,"more than the 5 calls that one invocation may make: limits.max_calls in the Nexfile"]'
        )
    finally:
        await pool.close()


async def test_the_time_of_an_invocation_goes_on_while_it_waits(sandbox: Sandbox) -> None:
    answers = Answers(lambda ask: None)
    pool = await open_real(sandbox, PUBLISHER, answers, timeout=0.3)
    try:
        (result,) = await run(pool, b"[1, 0]")
        assert result.outcome is Outcome.TIMEOUT
        assert answers.asks[0].on_drop is None
        assert answers.asks[0].deadline_ns < answers.asks[0].call.received_ns + 10**9
        answers.on = lambda ask: ask.answer(Status.OK)
        (result,) = await run(pool, b"[1, 0]")
        assert result.outcome is Outcome.OK
    finally:
        await pool.close()


async def test_a_worker_that_is_killed_while_it_waits(sandbox: Sandbox) -> None:
    dropped = asyncio.Event()

    def kill(ask: Ask) -> None:
        ask.on_drop = dropped.set
        (link,) = pool._links
        os.kill(link.process.pid, 9)

    answers = Answers(kill)
    pool = await open_real(sandbox, PUBLISHER, answers)
    try:
        (result,) = await run(pool, b"[1, 0]")
        assert result.outcome is Outcome.CRASH
        assert dropped.is_set()
    finally:
        await pool.close()


async def test_an_answer_larger_than_the_memory_ends_as_memory(sandbox: Sandbox) -> None:
    source = "def handler(event, context):\n    return len(context.objects('a').get('b').data)\n"
    info = b'{"name":"b","size":1,"digest":"","modified":"","description":""}'
    answers = Answers(lambda ask: ask.answer(Status.OK, bytes(60 << 20), info))
    pool = await open_real(sandbox, source, answers, memory=32 << 20, timeout=20.0)
    try:
        (result,) = await run(pool, b"")
        assert result.outcome is Outcome.MEMORY
    finally:
        await pool.close()


async def test_a_call_larger_than_it_may_be_is_the_authors_to_catch(sandbox: Sandbox) -> None:
    source = (
        "def handler(event, context):\n    try:\n        context.publish('a', b'x' * 2000)\n"
        "    except TooLarge as error:\n        return str(error)\n"
    )
    pool = await open_real(sandbox, source, Answers())
    try:
        (result,) = await run(pool, b"")
        assert result.body == b"2001 bytes are more than the 1000 that one call may carry"
    finally:
        await pool.close()


def test_an_ask_has_room_for_its_numbers() -> None:
    assert ASK.size == struct.calcsize("<II")
    assert call().asks is None
