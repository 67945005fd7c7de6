"""Deadlines of calls: the function's limit, the caller's own, what each counts from, and what the function is told."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from nexlet_sandboxes.calls import Call
from nexlet_sandboxes.outcomes import Outcome
from tests.support.hostile import Peer, open_stage
from tests.support.pools import KeepingSink, Sandbox, call, limits, open_pool, run

MS = 1_000_000

TIMED = """
import time
def handler(event, context):
    if event.data == b"until when":
        return str(time.monotonic() + context.remaining_ms() / 1000)
    if event.data == b"say and spin":
        print(time.monotonic() + context.remaining_ms() / 1000)
        while True:
            pass
    if event.data.startswith(b"busy"):
        until = time.monotonic() + float(event.text[4:])
        while time.monotonic() < until:
            pass
        return "busy no more"
    time.sleep(float(event.text))
    return "slept"
"""


def within(milliseconds: float, payload: bytes) -> Call:
    made = call(payload)
    made.deadline_ns = made.received_ns + int(milliseconds * MS)
    return made


@pytest.mark.parametrize("own", [False, True], ids=["its limit", "its caller's"])
async def test_what_a_function_is_told_is_what_is_enforced(sandbox: Sandbox, own: bool) -> None:
    async with open_pool(sandbox, TIMED, limits(timeout=30.0 if own else 0.3)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        one = within(300, b"say and spin") if own else call(b"say and spin")
        (result,) = await run(pool, one)
        ended = time.monotonic()
        assert result.outcome is Outcome.TIMEOUT
        assert result.error == ("took longer than its caller gave it" if own else "took longer than its limit of 0.3 s")
        (told,) = [float(line) for _, stream, _, line in sink.lines if stream == "stdout"]
        assert ended >= told - 0.001, "it is not ended before the time it was told"
        assert result.run_ns >= (300 * MS if not own else 0) - MS
        (after,) = await run(pool, b"0")
        assert after.body == b"slept"


async def test_a_callers_deadline_shortens_and_never_lengthens(warm: Sandbox) -> None:
    async with open_pool(warm, TIMED, limits(timeout=10.0)) as pool:
        shorter, longer = within(5_000, b"until when"), within(60_000, b"until when")
        results = await run(pool, shorter, longer)
        assert float(results[0].body) * 1e9 <= shorter.deadline_ns + 1000
        assert float(results[1].body) * 1e9 < longer.deadline_ns - 40e9


async def test_what_a_caller_does_not_wait_for_is_not_run(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, TIMED, limits(timeout=20.0, queue_timeout=20.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        gone = within(-1, b"0")
        pool.submit(gone)
        assert sink.results[gone.id].outcome is Outcome.EXPIRED, "at once"
        long, patient, hurried = call(b"1"), call(b"0"), within(50, b"0")
        for one in (long, patient, hurried):
            pool.submit(one)
        await sink.until(lambda: len(sink.results) == 4)
        order = [sink.order.index(one.id) for one in (gone, hurried, long, patient)]
        assert order == [0, 1, 2, 3], "it is answered when its time is up, wherever in the queue it is"
        result = sink.results[hurried.id]
        assert (result.outcome, result.code) == (Outcome.EXPIRED, 503)
        assert result.error.endswith("ms for a worker, as long as its caller gave it, and was not run")
        assert pool.stats().pending_bytes == 0


async def test_a_deadline_behind_the_head_ends_the_call_when_it_is_the_head(warm: Sandbox) -> None:
    async with open_pool(warm, TIMED, limits(timeout=20.0, queue_timeout=20.0)) as pool:
        pool._links[0].window = 3  # as after quick calls, which a busy machine may not have to show
        first, spinning, behind = call(b"0.05"), within(400, b"say and spin"), call(b"0")
        results = await run(pool, first, spinning, behind)
        assert [result.outcome for result in results] == [Outcome.OK, Outcome.TIMEOUT, Outcome.OK]


async def test_an_answer_that_comes_too_late_is_none_and_its_worker_stays(warm: Sandbox) -> None:
    async with open_pool(warm, TIMED, limits(timeout=0.2)) as pool:
        worker = pool._links[0].process.pid
        late, hurried = call(b"busy 0.3"), call(b"0.1")
        pool.submit(late)
        time.sleep(0.6)  # noqa: ASYNC251  # a loop that is busy: nobody ends the call in time
        (result,) = await run(pool, hurried)
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        said = sink.results[late.id]
        assert (said.outcome, said.code, said.body) == (Outcome.TIMEOUT, 504, b"")
        assert "longer than the time it had" in said.error
        assert said.run_ns >= 300 * MS
        assert result.outcome is Outcome.OK
        assert pool._links[0].process.pid == worker
        assert pool.stats().deaths == {}


async def test_the_time_of_a_call_counts_from_when_it_begins(warm: Sandbox) -> None:
    async with open_pool(warm, TIMED, limits(timeout=1.5)) as pool:
        worker = pool._links[0].process.pid
        os.kill(worker, signal.SIGSTOP)  # as on a machine that has no time for it
        running = asyncio.ensure_future(run(pool, b"1.1"))
        await asyncio.sleep(0.7)
        os.kill(worker, signal.SIGCONT)
        (result,) = await running
        assert result.outcome is Outcome.OK


async def test_each_of_those_sent_ahead_has_its_whole_time(warm: Sandbox) -> None:
    async with open_pool(warm, TIMED, limits(timeout=0.4, queue_timeout=20.0)) as pool:
        await run(pool, *(b"0",) * 50)
        results = await run(pool, *(b"0.05",) * 20)
        assert {result.outcome for result in results} == {Outcome.OK}


@pytest.mark.parametrize("began", [0, 1 << 60])
async def test_a_worker_that_lies_about_when_it_began_is_ended_all_the_same(began: int) -> None:
    async def lie(peer: Peer) -> None:
        await peer.load()
        peer.marker, _ = await peer.invocation()
        peer.began_ns = began

    async with open_stage(lie, limits(timeout=0.2)) as (pool, _, _):
        (result,) = await run(pool, b"x")
        assert result.outcome is Outcome.TIMEOUT
        assert 0 <= result.run_ns < 60_000 * MS


async def test_what_waited_too_long_behind_a_stopped_worker_is_answered_and_not_run(sandbox: Sandbox) -> None:
    source = "ran = []\ndef handler(event, context):\n    ran.append(event.text)\n    return ran\n"
    async with open_pool(sandbox, source, limits(timeout=0.4, queue_timeout=0.2)) as pool:
        os.kill(pool._links[0].process.pid, signal.SIGSTOP)
        results = await run(pool, b"first", b"second", b"third")
        assert [result.outcome for result in results] == [Outcome.TIMEOUT, Outcome.EXPIRED, Outcome.EXPIRED]
        (after,) = await run(pool, b"after")
        assert after.body == b'["after"]'
