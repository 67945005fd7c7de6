"""Answers of a function that gives way: settled in pieces, between which the loop does whatever else there is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Final

import pytest

from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.frames import Kind, frame
from nexlet_sandboxes.link import PIECE
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.pool import Pool
from tests.support.hostile import Peer, Script, Stage, answer, open_stage
from tests.support.pools import KeepingSink, call, limits, run
from tests.support.turns import Turns, somebody_waits

CALLS: Final = 80
BODY: Final = b"x" * 100

WARM: Final = 80
"""Calls after which a worker is known to be so quick that it is sent `CALLS` ahead."""


def at_once(last: bytes = b"") -> Script:
    """A worker that answers `WARM` calls, takes `CALLS`, and answers these in one write, `last` behind them."""

    async def script(peer: Peer) -> None:
        await peer.load()
        for _ in range(WARM):
            peer.marker, payload = await peer.invocation()
            await peer.say(answer(peer.marker, payload))
        taken = [await peer.invocation() for _ in range(CALLS)]
        peer.marker = taken[-1][0]
        await peer.say(b"".join(answer(*one) for one in taken) + last)

    return script


def bodies() -> list[bytes]:
    return [b"%d %b" % (number, BODY) for number in range(CALLS)]


async def warm(pool: Pool) -> None:
    for _ in range(WARM):
        await run(pool, b"warm")


async def many(pool: Pool) -> list[Result]:
    await warm(pool)
    return await run(pool, *bodies())


@contextlib.asynccontextmanager
async def giving_way(
    script: Script, others_wait: Callable[[], bool] | None = somebody_waits, **changes: object
) -> AsyncIterator[tuple[Pool, KeepingSink, Stage]]:
    async with open_stage(script, limits(**changes)) as (pool, sink, stage):
        pool.others_wait = others_wait
        yield pool, sink, stage


def observed(sink: KeepingSink, turns: Turns) -> list[int]:
    """In which turn of the loop each call ends from now on."""
    ended: list[int] = []
    finished = sink.finished

    def finish(call: Call, result: Result) -> None:
        ended.append(turns.count)
        finished(call, result)

    sink.finished = finish  # type: ignore[method-assign]
    return ended


async def test_others_have_their_turn_between_two_pieces() -> None:
    async with giving_way(at_once()) as (pool, sink, _):
        await warm(pool)
        with Turns() as turns:
            ended = observed(sink, turns)
            results = await run(pool, *bodies())
        assert [result.body for result in results] == bodies()
        in_turn = [ended.count(turn) for turn in sorted(set(ended))]
        assert in_turn == [PIECE, PIECE, CALLS - 2 * PIECE]
        turns_with = sorted(set(ended))
        assert all(later - earlier >= 2 for earlier, later in pairwise(turns_with)), "sockets were looked at meanwhile"
        assert sink.flushed == WARM + CALLS


@pytest.mark.parametrize("others_wait", [bool, None])
async def test_while_nobody_waits_a_turn_is_whole(others_wait: Callable[[], bool] | None) -> None:
    async with giving_way(at_once(), others_wait) as (pool, sink, _):
        await warm(pool)
        with Turns() as turns:
            ended = observed(sink, turns)
            results = await run(pool, *bodies())
        assert [result.body for result in results] == bodies()
        assert len(set(ended)) == 1


async def test_output_counts_as_much_as_answers() -> None:
    line, lines = frame(Kind.LOG, BODY, call=1), 200

    async def script(peer: Peer) -> None:
        await peer.load()
        peer.marker, payload = await peer.invocation()
        await peer.say(line * lines + answer(peer.marker, payload))

    async with giving_way(script) as (pool, sink, _):
        came: list[int] = []
        logged = sink.logged

        def keep(call_id: int, stream: str, level: int, line: bytes) -> None:
            came.append(turns.count)
            logged(call_id, stream, level, line)

        sink.logged = keep  # type: ignore[method-assign]
        with Turns() as turns:
            (result,) = await run(pool, b"chatty")
        assert (result.body, len(came)) == (b"chatty", lines)
        assert max(came.count(turn) for turn in set(came)) <= PIECE


async def test_what_breaks_the_protocol_in_a_later_piece_leaves_those_before_it_answered() -> None:
    async with giving_way(at_once(last=b"\xff" * 64)) as (pool, sink, stage):
        results = await many(pool)
        assert {result.outcome for result in results} == {Outcome.OK}
        await stage.peers[0].killed.wait()
        assert sink.flushed == WARM + CALLS
        (after,) = await run(pool, b"after")
        assert after.body == b"after"
        assert len(stage.peers) == 2


async def test_a_worker_that_ends_behind_its_answers_leaves_them_answered() -> None:
    async def script(peer: Peer) -> None:
        await at_once()(peer)
        peer.end()

    async with giving_way(script) as (pool, _, stage):
        results = await many(pool)
        assert {result.outcome for result in results} == {Outcome.OK}
        (after,) = await run(pool, b"after")
        assert after.body == b"after"
        assert len(stage.peers) == 2


async def test_what_has_been_said_is_settled_before_a_deadline_is_judged() -> None:
    async with giving_way(at_once(), timeout=0.3) as (pool, sink, stage):
        finished, slow = sink.finished, list[Call]()

        def finish(call: Call, result: Result) -> None:
            if len(sink.results) == WARM + PIECE // 2 and not slow:
                slow.append(call)
                time.sleep(0.4)  # the loop is late, and the time of all calls is over
            finished(call, result)

        sink.finished = finish  # type: ignore[method-assign]
        results = await many(pool)
        assert slow
        assert {result.outcome for result in results} == {Outcome.OK}
        assert not stage.peers[0].killed.is_set()


async def test_output_that_was_said_before_an_answer_hides_it_from_no_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.load()
        peer.marker, payload = await peer.invocation()
        await peer.say(frame(Kind.LOG, BODY, call=peer.marker) * 100 + answer(peer.marker, payload))

    async with giving_way(script, timeout=0.3) as (pool, sink, stage):
        logged = sink.logged

        def keep(call_id: int, stream: str, level: int, line: bytes) -> None:
            if not sink.lines:
                time.sleep(0.4)
            logged(call_id, stream, level, line)

        sink.logged = keep  # type: ignore[method-assign]
        (result,) = await run(pool, b"chatty")
        assert (result.outcome, len(sink.lines)) == (Outcome.OK, 100)
        assert not stage.peers[0].killed.is_set()


async def test_a_pool_that_is_closed_in_the_middle_ends_every_call_once() -> None:
    async with giving_way(at_once()) as (pool, sink, _):
        await warm(pool)
        made = [call(body) for body in bodies()]
        for one in made:
            pool.enqueue(one)
        pool.flush()
        await sink.until(lambda: len(sink.results) > WARM)
        await pool.close()
        outcomes = [sink.results[one.id].outcome for one in made]
        answered = outcomes.count(Outcome.OK)
        assert 0 < answered < CALLS
        assert outcomes == [Outcome.OK] * answered + [Outcome.UNAVAILABLE] * (CALLS - answered)
        assert sink.flushed == WARM + CALLS
