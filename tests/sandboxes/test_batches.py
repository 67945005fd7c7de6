"""Handlers that take many events at a call: an outcome for each, what they share, what becomes of all when one ends.

Over real workers of every profile that has batches, and over workers that have been taken over.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter

import pytest

from nexlet_sandboxes.asking import Ask, Status
from nexlet_sandboxes.calls import Call
from nexlet_sandboxes.frames import Ending, frame
from nexlet_sandboxes.outcomes import Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.sandboxes.test_asking import Answers, asking
from tests.support.hostile import Peer, answer, open_stage
from tests.support.polling import eventually
from tests.support.pools import MIB, KeepingSink, Sandbox, call, limits, open_pool, run
from tests.support.row import row

MS = 1_000_000

EACH = """
class Mine(Reject):
    def __init__(self):
        pass
    @property
    def code(self):
        raise SystemExit(1)

def one(event, many):
    if event.data == b"none":
        return None
    if event.data == b"reply":
        return Reply({"a": 1}, headers={"X-A": "b"})
    if event.data == b"reject":
        return Reject(422, "qty must be > 0")
    if event.data == b"mine":
        return Mine()
    if event.data == b"error":
        return ValueError("never raised")
    if event.data == b"caught":
        try:
            return {}["key"]
        except KeyError as error:
            return error
    if event.data == b"set":
        return {1, 2}
    if event.data == b"large":
        return "x" * 2_000_000
    if event.data == b"header":
        return Reply("x", headers={"workload_id": "y"})
    return many

def handler(events, context):
    return [one(event, len(events)) for event in events]
"""

SLEEPY = """
import time
def handler(events, context):
    for event in events:
        print(event.text)
    time.sleep(max(float(event.text) for event in events))
    return [len(events) for event in events]
"""

ENDS = """
import time
def handler(events, context):
    for event in events:
        print(event.text)
    for event in events:
        if event.data == b"spin":
            while True:
                pass
        if event.data == b"sleep":
            time.sleep(30)
        if event.data == b"grow":
            kept = []
            while True:
                kept.append(b"x" * 1048576)
        if event.data == b"grow and swallow":
            kept = []
            try:
                while True:
                    kept.append(b"x" * 1048576)
            except MemoryError:
                kept = None
        if event.data == b"raise":
            raise MemoryError
    return [event.text for event in events]
"""


def keeping(pool: Pool) -> KeepingSink:
    assert isinstance(pool.sink, KeepingSink)
    return pool.sink


def printed(pool: Pool) -> list[str]:
    return [line.decode() for _, stream, level, line in keeping(pool).lines if stream == "stdout" and not level]


def room(pool: Pool, calls: int) -> None:
    """Have so many calls sent ahead, as after quick ones, which a busy machine may not have to show."""
    pool._links[0].window = pool._links[0]._ahead = calls


# --- outcomes -------------------------------------------------------------------------------------------------------


async def test_each_event_of_a_batch_has_its_own_outcome(warm: Sandbox) -> None:
    said = (b"none", b"reply", b"reject", b"mine", b"error", b"caught", b"set", b"large", b"header", b"plain")
    async with open_pool(warm, EACH, limits(), batch=16) as pool:
        results = dict(zip(said, await run(pool, *said), strict=True))
        assert {name: (result.outcome, result.code) for name, result in results.items()} == {
            b"none": (Outcome.OK, 200),
            b"reply": (Outcome.OK, 200),
            b"reject": (Outcome.REJECTED_BY_FUNCTION, 422),
            b"mine": (Outcome.ERROR, 500),
            b"error": (Outcome.ERROR, 500),
            b"caught": (Outcome.ERROR, 500),
            b"set": (Outcome.ERROR, 500),
            b"large": (Outcome.ERROR, 500),
            b"header": (Outcome.ERROR, 500),
            b"plain": (Outcome.OK, 200),
        }
        assert (results[b"reply"].body, results[b"reply"].headers) == (b'{"a":1}', b"X-A: b\r\n")
        assert results[b"reject"].body == b"qty must be > 0"
        assert (results[b"error"].error, results[b"error"].traceback) == ("ValueError: never raised", "")
        assert results[b"caught"].error.startswith("KeyError")
        assert 'return {}["key"]' in results[b"caught"].traceback
        assert "batches.py" not in results[b"caught"].traceback
        assert "a set, which is not JSON" in results[b"set"].error
        assert "the reply is 2000000 bytes" in results[b"large"].error
        assert "written by the nexlet" in results[b"header"].error
        assert results[b"plain"].body == b"10"
        assert pool.stats().deaths == {}


async def test_none_is_an_empty_answer_to_each(warm: Sandbox) -> None:
    async with open_pool(warm, "def handler(events, context):\n    pass\n", limits(), batch=8) as pool:
        results = await run(pool, b"a", b"b", b"c")
        assert [(result.outcome, result.body) for result in results] == [(Outcome.OK, b"")] * 3


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("[1, 2]", "returns None, or a list with an outcome for each event; it returned 2 for 3"),
        ("[]", "it returned 0 for 3"),
        ("(1, 2, 3, 4)", "it returned 4 for 3"),
        ("'abc'", "it returned a str"),
        ("{1: 1, 2: 2, 3: 3}", "it returned a dict"),
        ("7", "it returned an int"),
        ("(1 for event in events)", "it returned a generator"),
        ("Three([1, 2, 3])", "it returned a Three"),
        ("Reply([1, 2, 3])", "it returned a Reply"),
    ],
)
@row("a batch handler gives no outcome for each event")
async def test_what_says_nothing_of_each_event_is_an_error_for_each_that_says_so(
    warm: Sandbox, returned: str, says: str
) -> None:
    source = f"class Three(list):\n    pass\ndef handler(events, context):\n    return {returned}\n"
    async with open_pool(warm, source, limits(), batch=64) as pool:
        results = await run(pool, b"a", b"b", b"c")
        assert {(result.outcome, result.code) for result in results} == {(Outcome.ERROR, 500)}
        assert all("a handler with batch: 64 returns" in result.error for result in results)
        assert all(result.error.endswith(says) for result in results), results[0].error


async def test_what_is_raised_is_the_outcome_of_all_and_its_traceback_is_told_once(warm: Sandbox) -> None:
    source = """
def handler(events, context):
    if events[0].data == b"reject":
        raise Reject(409, "not now")
    if events[0].data == b"json":
        return [event.json() for event in events]
    if events[0].data == b"leave":
        raise SystemExit(0)
    raise ValueError("no such luck")
"""
    async with open_pool(warm, source, limits(), batch=8) as pool:
        results = await run(pool, b"raise", b"b", b"c")
        assert [(result.outcome, result.error) for result in results] == [
            (Outcome.ERROR, "ValueError: no such luck")
        ] * 3
        assert 'raise ValueError("no such luck")' in results[0].traceback
        assert [result.traceback for result in results[1:]] == ["", ""]
        for first, code in ((b"reject", 409), (b"json", 400)):
            results = await run(pool, first, b"b")
            assert [(result.outcome, result.code) for result in results] == [(Outcome.REJECTED_BY_FUNCTION, code)] * 2
        results = await run(pool, b"leave", b"b")
        assert [result.outcome for result in results] == [Outcome.ERROR] * 2
        assert pool.stats().deaths == {}


async def test_a_batch_is_what_lies_ready_up_to_its_size_and_waits_for_nobody(warm: Sandbox) -> None:
    source = "def handler(events, context):\n    return [len(events)] * len(events)\n"
    async with open_pool(warm, source, limits(), batch=4) as pool:
        results = await run(pool, *[b"x"] * 10)
        assert [int(result.body) for result in results] == [4] * 8 + [2] * 2
        (alone,) = await run(pool, b"x")
        assert alone.body == b"1"


async def test_what_is_delivered_again_is_run_alone(warm: Sandbox) -> None:
    source = "def handler(events, context):\n    return [len(events)] * len(events)\n"
    async with open_pool(warm, source, limits(), batch=8) as pool:
        made = [call(b"x", attempt=attempt) for attempt in (1, 1, 2, 3, 1, 1, 1)]
        assert [int(result.body) for result in await run(pool, *made)] == [2, 2, 1, 1, 3, 3, 3]


async def test_a_batch_of_the_largest_size(warm: Sandbox) -> None:
    source = "def handler(events, context):\n    return [len(events)] * len(events)\n"
    async with open_pool(warm, source, limits(), batch=256) as pool:
        results = await run(pool, *[b"x"] * 300)
        assert [int(result.body) for result in results] == [256] * 256 + [44] * 44


async def test_large_answers_of_a_batch_are_whole_and_in_order(warm: Sandbox) -> None:
    source = "def handler(events, context):\n    return [event.data * 50_000 for event in events]\n"
    async with open_pool(warm, source, limits(), batch=32) as pool:
        said = [b"%02d" % number for number in range(32)]
        results = await run(pool, *said)
        assert [result.body for result in results] == [one * 50_000 for one in said]


async def test_events_are_told_apart_and_the_context_is_of_all(warm: Sandbox) -> None:
    source = """
def handler(events, context):
    return [
        {"subject": event.subject, "tokens": event.tokens, "text": event.text, "headers": event.headers,
         "reply": event.reply, "attempt": event.attempt, "id": event.invocation_id, "name": context.name}
        for event in events
    ]
"""
    async with open_pool(warm, source, limits(), batch=8, patterns=("a.*", "b.>"), name="n1") as pool:
        made = [
            call(b"1", subject=b"a.x", headers=b"NATS/1.0\r\nX: 1\r\n\r\n", reply=b"_INBOX.x", attempt=1),
            call(b"2", subject=b"b.y.z", pattern=1, attempt=3),
        ]
        said = [json.loads(result.body) for result in await run(pool, *made)]
        ids = [pool.invocation_id(one) for one in made]
        assert said == [
            {"subject": "a.x", "tokens": ["x"], "text": "1", "headers": {"X": "1"}, "reply": "_INBOX.x",
             "attempt": 1, "id": ids[0], "name": "n1"},
            {"subject": "b.y.z", "tokens": ["y.z"], "text": "2", "headers": {}, "reply": "",
             "attempt": 3, "id": ids[1], "name": "n1"},
        ]  # fmt: skip


async def test_what_a_handler_does_to_its_list_decides_about_no_event(warm: Sandbox) -> None:
    source = "def handler(events, context):\n    count = len(events)\n    events.clear()\n    return ['x'] * count\n"
    async with open_pool(warm, source, limits(), batch=8) as pool:
        assert [result.body for result in await run(pool, b"a", b"b")] == [b"x"] * 2


async def test_output_and_metrics_go_by_the_first_event_and_come_before_the_answers(warm: Sandbox) -> None:
    source = """
def handler(events, context):
    print("one")
    context.log.info("two", about=events[-1].invocation_id)
    context.metrics.count("stored", len(events))
"""
    async with open_pool(warm, source, limits(), batch=8) as pool:
        first, last = made = [call(b"a"), call(b"b")]
        await run(pool, *made)
        sink = keeping(pool)
        assert [(number, line) for number, _, level, line in sink.lines if not level] == [(first.id, b"one")]
        ((number, entry),) = [(number, json.loads(line)) for number, _, level, line in sink.lines if level]
        assert (number, entry["invocation_id"]) == (first.id, pool.invocation_id(first))
        assert entry["about"] == pool.invocation_id(last)
        assert [number for number, _ in sink.metrics] == [first.id]


async def test_a_batch_took_as_long_for_each_and_its_processor_time_is_shared(warm: Sandbox) -> None:
    source = """
import time
def handler(events, context):
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass
"""
    async with open_pool(warm, source, limits(), batch=4) as pool:
        results = await run(pool, *[b"x"] * 4)
        assert all(result.run_ns >= 200 * MS for result in results)
        assert len({result.run_ns for result in results}) == 1
        assert sum(result.cpu_ns for result in results) <= results[0].run_ns
        assert results[0].cpu_ns > 0


# --- time -----------------------------------------------------------------------------------------------------------


@row("a batch is over its time")
async def test_a_batch_over_its_time_is_a_timeout_for_each_and_what_is_behind_it_runs(warm: Sandbox) -> None:
    async with open_pool(warm, ENDS, limits(timeout=0.3, queue_timeout=20.0), batch=3) as pool:
        room(pool, 6)
        results = await run(pool, b"a", b"spin", b"b", b"c", b"d", b"e")
        assert [(result.outcome, result.code) for result in results[:3]] == [(Outcome.TIMEOUT, 504)] * 3
        assert {result.error for result in results[:3]} == {"took longer than its limit of 0.3 s"}
        assert [result.body for result in results[3:]] == [b"c", b"d", b"e"]
        assert printed(pool) == ["a", "spin", "b", "c", "d", "e"], "nothing is run twice"
        assert pool.stats().deaths == {"timeout": 1}


async def test_what_is_left_of_the_time_is_that_of_the_first_whose_is_over(warm: Sandbox) -> None:
    source = """
import time
def handler(events, context):
    return [str(time.monotonic() + context.remaining_ms() / 1000)] * len(events)
"""
    async with open_pool(warm, source, limits(timeout=30.0), batch=8) as pool:
        patient, hurried = call(b"a"), call(b"b")
        hurried.deadline_ns = hurried.received_ns + 5_000 * MS
        results = await run(pool, patient, hurried)
        assert all(float(result.body) * 1e9 <= hurried.deadline_ns + 1000 for result in results)


async def test_a_caller_who_gives_up_does_not_end_what_others_of_the_batch_wait_for(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=20.0), batch=8) as pool:
        worker = pool._links[0].process.pid
        made = [call(b"0.4"), call(b"0"), call(b"0")]
        made[1].deadline_ns = made[1].received_ns + 300 * MS
        results = await run(pool, *made)
        assert [result.outcome for result in results] == [Outcome.OK, Outcome.TIMEOUT, Outcome.OK]
        assert "longer than the time it had" in results[1].error
        assert pool._links[0].process.pid == worker
        assert pool.stats().deaths == {}


async def test_a_batch_is_ended_when_all_its_callers_have_given_up(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=20.0), batch=8) as pool:
        began = time.monotonic()
        made = [call(b"15"), call(b"0")]
        for one, milliseconds in zip(made, (200, 400), strict=True):
            one.deadline_ns = one.received_ns + milliseconds * MS
        results = await run(pool, *made)
        assert [(result.outcome, result.error) for result in results] == [
            (Outcome.TIMEOUT, "took longer than any of its callers gave it")
        ] * 2
        assert 0.4 <= time.monotonic() - began < 15
        assert pool.stats().deaths == {"timeout": 1}


async def test_one_that_waited_too_long_is_not_run_with_its_neighbours(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=20.0, queue_timeout=20.0), batch=2) as pool:
        room(pool, 8)
        made = [call(b"0.5"), call(b"0.1"), call(b"0.01"), call(b"0.02"), call(b"0.03")]
        made[3].deadline_ns = made[3].received_ns + 300 * MS
        results = await run(pool, *made)
        assert [result.outcome for result in results] == [
            *[Outcome.OK] * 3, Outcome.EXPIRED, Outcome.OK,
        ]  # fmt: skip
        assert [result.body for result in results] == [b"2", b"2", b"1", b"", b"1"]
        assert "0.02" not in printed(pool)


# --- death ----------------------------------------------------------------------------------------------------------


@row("a worker dies in the middle of a batch")
async def test_a_worker_that_dies_in_a_batch_is_a_crash_for_all_of_it_and_for_nothing_behind(warm: Sandbox) -> None:
    async with open_pool(warm, ENDS, limits(timeout=20.0), batch=3) as pool:
        room(pool, 6)
        made = [call(text) for text in (b"a", b"sleep", b"b", b"c", b"d", b"e")]
        running = asyncio.ensure_future(run(pool, *made))
        process = pool._links[0].process
        await eventually(lambda: process.running_call == made[2].id)
        assert process.running_first == made[0].id
        await keeping(pool).until(lambda: len(printed(pool)) == 3)
        os.kill(process.pid, signal.SIGKILL)
        results = await running
        assert [(result.outcome, result.code) for result in results[:3]] == [(Outcome.CRASH, 502)] * 3
        assert all("SIGKILL" in result.error for result in results[:3])
        assert [result.body for result in results[3:]] == [b"c", b"d", b"e"]
        assert printed(pool) == ["a", "sleep", "b", "c", "d", "e"], "nothing is run twice"
        assert pool.stats().deaths == {"crash": 1}


@pytest.mark.parametrize("how", [b"grow", b"grow and swallow", b"raise"])
@row("a batch is over its memory")
async def test_a_batch_over_its_memory_is_so_for_all_of_it_and_for_nothing_behind(warm: Sandbox, how: bytes) -> None:
    async with open_pool(warm, ENDS, limits(memory=48 * MIB), batch=3) as pool:
        room(pool, 6)
        results = await run(pool, b"a", how, b"b", b"c", b"d", b"e")
        assert [(result.outcome, result.code) for result in results[:3]] == [(Outcome.MEMORY, 507)] * 3
        assert {result.error for result in results[:3]} == {"took more memory than its limit of 48 MiB"}
        assert [result.body for result in results[3:]] == [b"c", b"d", b"e"]
        assert printed(pool) == ["a", how.decode(), "b", "c", "d", "e"], "nothing is run twice"


async def test_workers_that_are_killed_at_any_moment_run_nothing_twice(warm: Sandbox) -> None:
    source = """
import time
def handler(events, context):
    for event in events:
        print(event.text)
    time.sleep(0.003)
    return [event.text for event in events]
"""
    async with open_pool(warm, source, limits(max_workers=2, log_rate=MIB, queue_timeout=60.0), batch=8) as pool:
        sink, made = keeping(pool), [call(b"%d" % number) for number in range(400)]
        for one in made:
            pool.enqueue(one)
        pool.flush()
        for deaths in range(1, 6):
            killed = len(sink.results) + 10
            await sink.until(lambda killed=killed: len(sink.results) >= killed)  # type: ignore[misc]  # bound, not given
            await eventually(lambda: pool._links)
            if deaths % 2:  # likely in a batch; else as it is about to begin one
                await asyncio.sleep(0.001 * deaths)
            os.kill(pool._links[0].process.pid, signal.SIGKILL)
            await sink.until(lambda deaths=deaths: pool.stats().deaths.get("crash", 0) >= deaths)  # type: ignore[misc]  # as above
        await sink.until(lambda: len(sink.results) == len(made))
        ran = Counter(printed(pool))
        assert set(ran.values()) == {1}
        answered = {one.payload for one in made if sink.results[one.id].outcome is Outcome.OK}
        assert {one.encode() for one in ran} >= answered
        assert {sink.results[one.id].outcome for one in made} <= {Outcome.OK, Outcome.CRASH}
        assert len(answered) >= len(made) - 5 * 8, "a batch at most dies with its worker"


async def test_answers_that_take_more_memory_than_there_is_end_so(warm: Sandbox) -> None:
    source = """
def handler(events, context):
    if events[0].data == b"well":
        return ["well"] * len(events)
    return [["x" * 1000000 for _ in range(40)] for event in events]
"""
    async with open_pool(warm, source, limits(memory=64 * MIB, max_reply=64 * MIB), batch=8) as pool:
        results = await run(pool, *[b"x"] * 8)
        assert {result.outcome for result in results} == {Outcome.MEMORY}
        (after,) = await run(pool, b"well")
        assert after.body == b"well"


async def test_a_stopped_worker_is_a_timeout_and_what_was_sent_with_it_runs(warm: Sandbox) -> None:
    async with open_pool(warm, ENDS, limits(timeout=0.3, queue_timeout=20.0), batch=3) as pool:
        os.kill(pool._links[0].process.pid, signal.SIGSTOP)
        results = await run(pool, b"a", b"b", b"c")
        assert [result.outcome for result in results] == [Outcome.TIMEOUT, Outcome.OK, Outcome.OK]
        assert printed(pool) == ["b", "c"]


async def test_a_slow_batch_hands_back_what_was_read_with_it(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=20.0, max_workers=2), batch=2) as pool:
        room(pool, 6)
        results = await run(pool, b"0.3", b"0.1", b"0.01", b"0.02", b"0.03", b"0.04")
        assert {result.outcome for result in results} == {Outcome.OK}
        assert sorted(printed(pool)) == ["0.01", "0.02", "0.03", "0.04", "0.1", "0.3"]
        order = [keeping(pool).order.index(number) for number in sorted(keeping(pool).results)]
        assert len(order) == 6
        assert pool.stats().deaths == {}


async def test_what_comes_while_a_slow_batch_runs_is_for_whoever_is_free(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=60.0, max_workers=2), batch=8) as pool:
        slow = call(b"30")
        pool.submit(slow)
        await eventually(lambda: pool._links[0].process.running_call == slow.id)
        results = await run(pool, b"0", b"0", b"0")
        assert [result.outcome for result in results] == [Outcome.OK] * 3
        assert slow.id not in keeping(pool).results
        assert pool.stats().workers == 2


async def test_a_drain_lets_a_batch_finish(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(timeout=20.0), batch=4) as pool:
        running = asyncio.ensure_future(run(pool, b"0.2", b"0", b"0"))
        await eventually(lambda: pool._links[0].process.running_call)
        await pool.drain(10.0)
        assert [result.outcome for result in await running] == [Outcome.OK] * 3


async def test_where_each_invocation_has_a_process_of_its_own_there_are_no_batches(zygote: Zygote) -> None:
    with pytest.raises(SandboxError, match=r"'oneshot' .* of its own, and batch: 2 .*: leave batch out, or choose"):
        Pool(zygote, Program("", batch=2), limits(), KeepingSink(), profile="oneshot")


# --- a worker that has been taken over ------------------------------------------------------------------------------


async def taken(peer: Peer, count: int) -> list[int]:
    await peer.load()
    return [(await peer.invocation())[0] for _ in range(count)]


async def test_a_batch_that_breaks_the_protocol_is_not_run_again() -> None:
    async def script(peer: Peer) -> None:
        numbers = await taken(peer, 4)
        peer.first, peer.marker = numbers[0], numbers[2]
        await peer.say(answer(numbers[0], b"done") + frame(99))  # type: ignore[arg-type]

    async with open_stage(script, limits(), batch=4) as (pool, _, stage):
        results = await run(pool, b"a", b"b", b"c", b"d")
        assert [result.outcome for result in results] == [Outcome.OK, Outcome.CRASH, Outcome.CRASH, Outcome.OK]
        assert results[3].body == b"d"
        assert len(stage.peers) == 2


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1 << 40, 1 << 41), (1, 0), (2, 1)])
async def test_a_marker_that_lies_about_a_batch_decides_about_no_other_worker(first: int, last: int) -> None:
    async def script(peer: Peer) -> None:
        await taken(peer, 3)
        peer.first, peer.marker = first, last

    async with open_stage(script, limits(timeout=0.3, queue_timeout=20.0), batch=3) as (pool, sink, _):
        results = await run(pool, b"a", b"b", b"c")
        assert results[0].outcome is Outcome.TIMEOUT
        assert {result.outcome for result in results[1:]} <= {Outcome.TIMEOUT, Outcome.CRASH, Outcome.OK}
        assert len(sink.results) == 3
        (after,) = await run(pool, b"after")
        assert after.body == b"after"


async def test_memory_that_runs_out_in_the_middle_of_the_answers_is_the_end_of_the_rest() -> None:
    async def script(peer: Peer) -> None:
        numbers = await taken(peer, 4)
        peer.first, peer.marker = numbers[0], numbers[2]
        await peer.say(answer(numbers[0], b"done") + answer(numbers[1], ending=Ending.MEMORY))

    async with open_stage(script, limits(), batch=4) as (pool, _, _):
        results = await run(pool, b"a", b"b", b"c", b"d")
        assert [result.outcome for result in results] == [Outcome.OK, Outcome.MEMORY, Outcome.MEMORY, Outcome.OK]


# --- what a batch asks for ------------------------------------------------------------------------------------------


async def asked(script_of: str, answers: Answers, *, count: int = 3, **more: object) -> tuple[list[Call], KeepingSink]:
    """Play a batch of `count` whose worker asks as `script_of` says: a number of the batch each, `-` for all of it."""

    async def script(peer: Peer) -> None:
        numbers = await taken(peer, count)
        peer.first, peer.marker = numbers[0], numbers[-1]
        for number, word in enumerate(script_of.split(), 1):
            await peer.say(asking(number, 0 if word == "-" else 77 if word == "?" else numbers[int(word)]))
            await peer.answer()
        await peer.say(b"".join(answer(number) for number in numbers))

    async with open_stage(script, limits(**more), answerer=answers, batch=4) as (pool, sink, _):
        made = [call(b"x") for _ in range(count)]
        await run(pool, *made)
        return made, sink


async def test_a_batch_asks_for_all_of_it_or_for_one_of_it() -> None:
    answers = Answers()
    made, sink = await asked("- 1 - 2", answers)
    assert {result.outcome for result in sink.results.values()} == {Outcome.OK}
    assert [ask.call for ask in answers.asks] == [made[0], made[1], made[0], made[2]]
    assert [list(ask.calls) for ask in answers.asks] == [made, made[1:2], made, made[2:]]
    assert [one.asks and one.asks.count for one in made] == [2, 1, 1]


async def test_who_is_not_in_the_batch_cannot_be_asked_for() -> None:
    made, sink = await asked("1 ?", Answers())
    assert {sink.results[one.id].outcome for one in made} == {Outcome.CRASH}
    assert all("a call of invocation 4d, which it does not run" in sink.results[one.id].error for one in made)


async def test_a_batch_of_one_asks_as_a_single_invocation_does() -> None:
    answers = Answers()
    made, _ = await asked("0 -", answers, count=1)
    assert [list(ask.calls) for ask in answers.asks] == [made, made]


async def test_a_batch_may_make_as_many_calls_as_its_invocations_might() -> None:
    answers, heard = Answers(), []

    async def script(peer: Peer) -> None:
        numbers = await taken(peer, 2)
        peer.first, peer.marker = numbers
        for count in range(1, 100):
            await peer.say(asking(count, numbers[1] if count % 2 else 0))
            heard.append((await peer.answer())[0])

    async with open_stage(script, limits(max_calls=3), answerer=answers, batch=4) as (pool, _, _):
        results = await run(pool, b"a", b"b")
    assert heard == [Status.OK] * 6 + [Status.DENIED] * 7
    assert len(answers.asks) == 6
    assert all("as many calls" in result.error for result in results)


async def test_a_call_within_a_call_of_the_same_batch_ends_the_worker() -> None:
    answers = Answers(lambda ask: None)

    async def script(peer: Peer) -> None:
        numbers = await taken(peer, 2)
        peer.first, peer.marker = numbers
        await peer.say(asking(1, numbers[0]) + asking(2, numbers[1]))

    async with open_stage(script, limits(), answerer=answers, batch=4) as (pool, _, _):
        results = await run(pool, b"a", b"b")
    assert all("while another one is under way" in result.error for result in results)


async def test_the_calls_of_a_batch_go_to_its_events_and_no_others(warm: Sandbox) -> None:
    source = """
kept = []
def handler(events, context):
    context.publish("for.all", "x")
    context.publish("for.last", "x", event=events[-1])
    said = []
    for wrong in (*kept, "an event"):
        try:
            context.publish("for.nobody", "x", event=wrong)
        except (TypeError, ValueError) as error:
            said.append(str(error))
    kept.append(events[-1])
    return [said] * len(events)
"""
    asks: list[tuple[bytes, list[Call]]] = []

    def publish(ask: Ask) -> None:
        asks.append((ask.parts[0], list(ask.calls)))
        ask.answer(Status.OK)

    pool = Pool(
        warm.zygote,
        Program(source, batch=8),
        limits(),
        KeepingSink(),
        profile=warm.profile,
        answerer=Answers(publish),
    )
    try:
        await pool.start()
        made = [call(b"a"), call(b"b")]
        results = await run(pool, *made)
        assert [json.loads(result.body) for result in results] == [
            ["event is one that the handler was given, not str"]
        ] * 2
        assert asks == [(b"for.all", made), (b"for.last", made[1:])]
        (alone,) = await run(pool, b"c")
        assert json.loads(alone.body) == [
            "event is of an invocation that has ended",
            "event is one that the handler was given, not str",
        ]
    finally:
        await pool.close()


async def test_what_was_sent_ahead_while_a_batch_asks_is_the_next_batch(warm: Sandbox) -> None:
    source = """
def handler(events, context):
    context.publish("a", "x")
    return [[event.text, len(events)] for event in events]
"""
    waiting: list[Ask] = []
    pool = Pool(
        warm.zygote,
        Program(source, batch=4),
        limits(),
        KeepingSink(),
        profile=warm.profile,
        answerer=Answers(waiting.append),
    )
    try:
        await pool.start()
        room(pool, 8)
        first = asyncio.ensure_future(run(pool, b"a"))
        await eventually(lambda: waiting)
        second = asyncio.ensure_future(run(pool, b"b", b"c", b"d"))
        await asyncio.sleep(0)
        waiting.pop().answer(Status.OK)
        assert [json.loads(result.body) for result in await first] == [["a", 1]]
        await eventually(lambda: waiting)
        waiting.pop().answer(Status.OK)
        assert [json.loads(result.body) for result in await second] == [["b", 3], ["c", 3], ["d", 3]]
    finally:
        await pool.close()


async def test_an_answer_that_comes_after_its_batch_is_dropped() -> None:
    dropped: list[int] = []

    def keep(ask: Ask) -> None:
        ask.on_drop = lambda: dropped.append(ask.number)

    async def script(peer: Peer) -> None:
        numbers = await taken(peer, 2)
        peer.first, peer.marker = numbers
        await peer.say(asking(1, numbers[1]) + b"".join(answer(number) for number in numbers))
        await peer.killed.wait()

    async with open_stage(script, limits(), answerer=Answers(keep), batch=4) as (pool, _, _):
        results = await run(pool, b"a", b"b")
        assert {result.outcome for result in results} == {Outcome.OK}
        assert dropped == [1]
