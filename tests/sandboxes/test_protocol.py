"""The frame protocol with a worker at the other end that has been taken over, and says what it likes.

Whatever that is: every call ends exactly once, nobody else's is touched, what the nexlet keeps is bounded, the worker
is ended with a reason, and the next call is served by a new one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import tracemalloc

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexlet_sandboxes.frames import HEADER, RESULT, RESULT_EXTRA, Ending, Kind, frame
from nexlet_sandboxes.lograte import BURST
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.program import Limits
from tests.support.hostile import Peer, Script, answer, open_stage
from tests.support.polling import eventually
from tests.support.pools import MIB, call, limits, run

OTHERS = 0x7FFF_FFFF
"""An invocation that this worker was never asked."""


def short(**changes: object) -> Limits:
    """Limits under which a worker that says nothing is soon given up."""
    return limits(**{"timeout": 0.3, "queue_timeout": 5.0, "max_reply": 64 * 1024} | changes)


def saying(*what: bytes) -> Script:
    """A worker that takes one invocation and says this; `ID` in it is the invocation's number."""

    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        peer.marker = number
        for one in what:
            await peer.say(one.replace(ID, number.to_bytes(8, "little")))

    return script


ID = b"\xfeNUMBER\xfe"
NUMBER = int.from_bytes(ID, "little")


async def ends_with(script: Script, bounds: Limits) -> tuple[str, str]:
    """The outcome and the reason of the call that such a worker was given, after the next one was served by another."""
    async with open_stage(script, bounds) as (pool, sink, stage):
        (result,) = await run(pool, b"attacked")
        (after,) = await run(pool, b"after")
        assert (after.outcome, after.body) == (Outcome.OK, b"after"), after.error
        assert len(stage.peers) == 2
        assert stage.peers[0].killed.is_set()
        assert len(sink.results) == 2  # a sink that is told of an end twice fails by itself
        return result.outcome.value, result.error


BROKEN: dict[str, tuple[bytes, str]] = {
    "a header that claims more than there may be": (b"\xff" * 1024, "more than the"),
    "zeros": (b"\0" * 65536, "a frame of kind 0"),
    "a kind that does not exist": (frame(99), "a frame of kind 99"),  # type: ignore[arg-type]
    "a kind of ours": (frame(Kind.INVOKE, b"x" * 40, call=NUMBER), "a frame of kind 2"),
    "ready once more": (frame(Kind.READY), "a frame of kind 16"),
    "refused after it was ready": (frame(Kind.REFUSED, b"[]"), "a frame of kind 17"),
    "an answer for somebody else": (answer(OTHERS), "which it was not asked"),
    "an answer for nobody": (answer(0), "which it was not asked"),
    "a second answer": (answer(NUMBER, b"one") + answer(NUMBER, b"two"), "which it was not asked"),
    "a result without its header": (frame(Kind.RESULT, b"x", call=NUMBER), "shorter"),
    "a result shorter than it says": (
        RESULT.pack(RESULT_EXTRA, Kind.RESULT, 0, 0, NUMBER, 1, 1, 1, 1000),
        "shorter than it says",
    ),
    "an ending that does not exist": (answer(NUMBER, ending=77), "an ending 77"),
    "a code that is no refusal": (
        answer(NUMBER, b"x", ending=Ending.REJECT, code=200),
        "a rejection with the code 200",
    ),
    "handed back without a reason": (answer(NUMBER, ending=Ending.RETURNED), "though nothing before it was slow"),
    "header lines broken out of": (answer(NUMBER, headers=b"A: b\r\n\r\nPUB x 1\r\n"), "headers"),
    "a header line without its end": (answer(NUMBER, headers=b"A: b"), "headers"),
    "a bare line feed in a header": (answer(NUMBER, headers=b"A: b\nError: x\r\n"), "headers"),
    "a header of the nexlet's": (answer(NUMBER, headers=b"Workload_ID: other\r\n"), "headers"),
    "a header of ours": (answer(NUMBER, headers=b"A: b\r\nnex-invocation-id: x\r\n"), "headers"),
    "a header of NATS's": (answer(NUMBER, headers=b"A: b\r\nNats-Service-Error: x\r\n"), "headers"),
    "a reply larger than it may be": (answer(NUMBER, b"x" * (MIB + 1)), "more than the"),
    "a line of output longer than it may be": (frame(Kind.LOG, b"x" * 20_000, call=NUMBER), "longer than its limit"),
    "a line for no stream": (frame(Kind.LOG, b"x", flag=7, call=NUMBER), "for no stream"),
    "a metric that is not JSON": (frame(Kind.METRIC, b"{", call=NUMBER), "not JSON"),
    "a metric that is no object": (frame(Kind.METRIC, b"[" * 500 + b"]" * 500, call=NUMBER), "no JSON object"),
    "counts of dropped lines without end": (frame(Kind.DROPPED, call=1) * 100, "counts of dropped lines"),
}


@pytest.mark.parametrize(("said", "reason"), BROKEN.values(), ids=BROKEN)
async def test_what_is_no_frame_of_the_protocol_ends_the_worker_and_says_why(said: bytes, reason: str) -> None:
    outcome, error = await ends_with(saying(said), short(timeout=10.0))
    if said.startswith(answer(NUMBER, b"one")):
        assert outcome == "ok"  # its first answer was in order
    else:
        assert outcome == "crash"
        assert "broke the frame protocol" in error
        assert reason in error


async def test_a_worker_that_says_nothing_is_ended_by_the_clock() -> None:
    outcome, error = await ends_with(saying(), short())
    assert (outcome, error) == ("timeout", "took longer than its limit of 0.3 s")


async def test_half_a_frame_is_ended_by_the_clock() -> None:
    for size in (1, HEADER.size - 1, HEADER.size, RESULT.size, RESULT.size + 3):
        outcome, _ = await ends_with(saying(answer(NUMBER, b"body")[:size]), short(timeout=0.1))
        assert outcome == "timeout"


async def test_output_does_not_put_off_the_deadline() -> None:
    async def chat(peer: Peer) -> None:
        await peer.load()
        peer.marker, _ = await peer.invocation()
        for _ in itertools.count():
            await peer.say(frame(Kind.LOG, b"still here", call=peer.marker))
            await asyncio.sleep(0.01)

    outcome, _ = await ends_with(chat, short(log_rate=MIB))
    assert outcome == "timeout"


async def test_a_frame_in_single_bytes_is_a_frame() -> None:
    whole = answer(NUMBER, b"one at a time", headers=b"A: b\r\n")

    async def drip(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        for at in range(len(whole)):
            await peer.say(whole.replace(ID, number.to_bytes(8, "little"))[at : at + 1])
            await asyncio.sleep(0)

    async with open_stage(drip, limits()) as (pool, _, _):
        (result,) = await run(pool, b"x")
        assert (result.outcome, result.body, result.headers) == (Outcome.OK, b"one at a time", b"A: b\r\n")


@pytest.mark.parametrize("idle", [False, True], ids=["while it runs", "while it is idle"])
@pytest.mark.parametrize("kind", [Kind.LOG, Kind.METRIC])
async def test_a_flood_of_output_ends_the_worker_and_costs_nobody_memory(kind: Kind, idle: bool) -> None:
    """A million lines: the worker's own rate would have kept them back, so it is not what we started."""
    flooded = asyncio.Event()

    async def flood(peer: Peer) -> None:
        await peer.load()
        number, payload = await peer.invocation()
        peer.marker = number
        if idle:
            await peer.say(answer(number, payload))
            peer.marker = 0
        lines = frame(kind, b'{"n":"%s"}' % (b"x" * 90), call=number) * 1000
        try:
            for _ in range(1000):
                await peer.say(lines)
        finally:
            flooded.set()

    began = time.monotonic()
    async with open_stage(flood, short(timeout=30.0)) as (pool, sink, stage):
        tracemalloc.start()
        try:
            made = call(b"x")
            pool.submit(made)
            await flooded.wait()
            await sink.until(lambda: made.id in sink.results and pool.stats().workers == 1 and len(stage.peers) == 2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sink.results[made.id].outcome is (Outcome.OK if idle else Outcome.CRASH)
        assert "as much output as its limit" in pool.last_failure
        assert peak < 8 * MIB
        # What the rate gave while it lasted, which on a busy machine is seconds, is kept on top of a burst.
        most = (BURST + time.monotonic() - began) * pool.limits.log_rate
        assert sum(len(line) for _, _, _, line in sink.lines) <= most
        (after,) = await run(pool, b"after")
        assert after.body == b"after"


async def test_a_body_that_never_ends_is_kept_only_up_to_what_a_reply_may_be() -> None:
    async def swell(peer: Peer) -> None:
        await peer.load()
        peer.marker, _ = await peer.invocation()
        await peer.say(answer(peer.marker, b"x" * (64 * 1024))[: RESULT.size + 60 * 1024])

    async with open_stage(swell, short()) as (pool, sink, _):
        made = call(b"x")
        pool.submit(made)
        link = pool._links[0]
        await eventually(lambda: link._splitter.buffered)
        assert link._splitter.buffered <= pool.limits.max_reply + 64 * 1024
        assert not sink.results
        (after,) = await run(pool, b"after")
        assert after.body == b"after"


async def test_a_worker_that_stops_reading_is_sent_no_more_than_it_has_room_for() -> None:
    async def deaf(peer: Peer) -> None:
        await peer.load()

    async with open_stage(deaf, short(max_pending_bytes=4 * MIB + 1024, max_reply=2 * MIB)) as (pool, sink, _):
        calls = [call(b"x" * MIB) for _ in range(20)]
        for one in calls:
            pool.submit(one)
        assert pool.stats().pending_bytes <= 4 * MIB + 1024
        await sink.until(lambda: len(sink.results) == len(calls))
        outcomes = [sink.results[one.id].outcome for one in calls]
        assert outcomes[0] is Outcome.TIMEOUT
        assert outcomes.count(Outcome.REJECTED) == 15
        assert outcomes[1:5] == [Outcome.OK] * 4  # by the next worker


async def test_what_broke_the_protocol_is_not_run_again_whatever_its_marker_says() -> None:
    ran: list[int] = []

    async def deny(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        ran.append(number)
        peer.marker = 0  # "I have begun nothing"
        await peer.say(frame(99))  # type: ignore[arg-type]

    outcome, _ = await ends_with(deny, short(timeout=10.0))
    assert outcome == "crash"
    assert len(ran) == 1


@pytest.mark.parametrize("marker", [0, OTHERS, 1 << 63])
async def test_a_marker_that_lies_decides_about_no_other_call(marker: int) -> None:
    async def lie(peer: Peer) -> None:
        await peer.load()
        await peer.invocation()
        peer.marker = marker

    outcome, _ = await ends_with(lie, short())
    assert outcome == "timeout"


async def test_what_was_handed_back_before_the_protocol_broke_is_still_served() -> None:
    async def half(peer: Peer) -> None:
        await peer.load()
        # So quick that it is sent more ahead.
        for _ in range(20):
            number, payload = await peer.invocation()
            await peer.say(answer(number, payload))
        waiting = [await peer.invocation() for _ in range(3)]
        first, second, third = (number for number, _ in waiting)
        said = answer(first, b"slow") + answer(second, ending=Ending.RETURNED)
        peer.marker = third
        await peer.say(said + answer(OTHERS))

    async with open_stage(half, limits(max_workers=2)) as (pool, sink, _):
        for number in range(20):
            await run(pool, b"%d" % number)
        results = await run(pool, b"a", b"b", b"c")
        assert [(one.outcome, one.body) for one in results] == [
            (Outcome.OK, b"slow"),
            (Outcome.OK, b"b"),
            (Outcome.CRASH, b""),
        ]
        assert len(sink.results) == 23


async def test_calls_that_are_handed_back_for_ever_are_not() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.load()
        while True:
            number, _ = await peer.invocation()
            await peer.say(answer(number, ending=Ending.RETURNED))

    outcome, error = await ends_with(refuse, short(max_workers=1, timeout=10.0))
    assert outcome == "crash"
    assert "handed back" in error


# --- while it loads -------------------------------------------------------------------------------------------------

LOADING: dict[str, tuple[bytes, type[SandboxError], str]] = {
    "an answer": (answer(1), SandboxError, "which it was not asked"),
    "a kind that does not exist": (frame(99), SandboxError, "a frame of kind 99"),  # type: ignore[arg-type]
    "a refusal larger than it may be": (frame(Kind.REFUSED, b"x" * MIB), SandboxError, "more than the"),
    "a refusal that is not JSON": (frame(Kind.REFUSED, b"{"), SandboxError, "not JSON"),
    "a refusal that is nested": (frame(Kind.REFUSED, b"[" * 900 + b"]" * 900), SandboxError, "no list of problems"),
    "a refusal of nothing": (frame(Kind.REFUSED, b"[]"), SandboxError, "no list of problems"),
    "a refusal without its fields": (frame(Kind.REFUSED, b"[{}]"), LoadRefused, "refused without a reason"),
    "fields of other types": (
        frame(Kind.REFUSED, orjson.dumps([{"message": ["x"], "line": True, "column": "x", "unknown": 1}])),
        LoadRefused,
        "refused without a reason",
    ),
}


@pytest.mark.parametrize(("said", "kind", "reason"), LOADING.values(), ids=LOADING)
async def test_a_worker_that_is_taken_over_while_it_loads_is_refused(
    said: bytes, kind: type[SandboxError], reason: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(said)

    with pytest.raises(kind, match=reason):
        async with open_stage(script, short()):
            pass


async def test_ten_thousand_problems_are_a_hundred_of_bounded_length() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(frame(Kind.REFUSED, orjson.dumps([{"message": "x" * 3000, "line": 1 << 60}] + [{}] * 10_000)))

    with pytest.raises(LoadRefused) as refused:
        async with open_stage(script, short()):
            pass
    assert len(refused.value.problems) == 100
    assert len(refused.value.problems[0].message) <= 2000
    assert refused.value.problems[0].line <= 1 << 31


# --- anything at all ------------------------------------------------------------------------------------------------

FRAMES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda kind, body, flag, aux, number: HEADER.pack(len(body), kind, flag, aux, number) + body,
        st.sampled_from([*Kind, 0, 3, 15, 23, 255]),
        st.binary(max_size=100),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.sampled_from([0, 1, 2, NUMBER, OTHERS]),
    ),
    st.builds(
        lambda number, ending, code, headers, body: answer(number, body, ending=ending, headers=headers, code=code),
        st.sampled_from([NUMBER, NUMBER, NUMBER, 1, OTHERS]),
        st.integers(0, 7),
        st.sampled_from([0, 200, 400, 599, 600]),
        st.sampled_from([b"", b"A: b\r\n", b"A: b", b"error: x\r\n"]),
        st.binary(max_size=20),
    ),
    st.builds(lambda body: frame(Kind.LOG, body, call=NUMBER), st.binary(max_size=100)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said=st.lists(FRAMES, max_size=8), marker=st.sampled_from([0, NUMBER, OTHERS]), leaves=st.booleans())
def test_anything_at_all_ends_each_call_once_and_the_next_is_served(
    said: list[bytes], marker: int, leaves: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.load()
        number, _ = await peer.invocation()
        peer.marker = number if marker == NUMBER else marker
        for one in said:
            await peer.say(one.replace(ID, number.to_bytes(8, "little")))
        if leaves:
            peer.end()

    async def scene() -> None:
        async with (
            open_stage(script, short(timeout=0.02, max_workers=2)) as (pool, sink, _),
            open_stage(_echo, limits()) as (other, _, other_stage),
        ):
            calls = [call(b"%d" % number) for number in range(5)]
            for one in calls:
                pool.enqueue(one)
            pool.flush()
            (neighbours,) = await run(other, b"neighbour")
            await sink.until(lambda: len(sink.results) == len(calls))
            assert (neighbours.outcome, neighbours.body) == (Outcome.OK, b"neighbour")
            assert len(other_stage.peers) == 1
            (after,) = await run(pool, call(b"after", timeout_ns=int(20e9)))
            assert after.outcome in (Outcome.OK, Outcome.CRASH)  # the same worker, if all it said was in order
            assert sum(len(line) for _, _, _, line in sink.lines) < 2000

    asyncio.run(scene())


async def _echo(peer: Peer) -> None:
    await peer.load()
    while True:
        number, payload = await peer.invocation()
        await peer.say(answer(number, payload))
