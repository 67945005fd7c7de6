"""The pool over real workers: every ending a call can have, queues, growth, replacement, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from nexlet_models.problems import Problem
from nexlet_sandboxes.calls import Call
from nexlet_sandboxes.kernel.identity import FIRST_ID
from nexlet_sandboxes.link import AHEAD_BYTES
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.pools import MIB, KeepingSink, Sandbox, call, limits, open_pool, run

ECHO = "def handler(event, context):\n    return event.data\n"

SLEEPY = """
import time
def handler(event, context):
    time.sleep(float(event.text))
    return event.data
"""

MIXED = """
import time
def handler(event, context):
    if event.data == b"spin":
        while True:
            pass
    if event.data == b"spin in C":
        sum(range(10 ** 12))
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
        return "nothing happened"
    if event.data == b"raise":
        raise ValueError("no such luck")
    if event.data == b"reject":
        raise Reject(422, "qty must be > 0")
    return event.data
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(sink: KeepingSink, count: int) -> bool:
    return len(sink.results) == count


async def begun(pool: Pool, made: Call) -> None:
    """Wait until a worker says that it runs this call."""
    await eventually(lambda: any(link.process.running_call == made.id for link in pool._links))


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        ("None", b""),
        ("b'\\x00\\xff'", b"\x00\xff"),
        ("'grüße'", "grüße".encode()),
        ("{'a': [1, 2.5, None, True]}", b'{"a":[1,2.5,null,true]}'),
        ("bytearray(b'ab')", b"ab"),
        ("Reply({'a': 1})", b'{"a":1}'),
        ("(1, 2)", b"[1,2]"),
        ("{'n': None}", b'{"n":null}'),
        ("[State.NEW, State.NONE]", b'["new",null]'),
    ],
)
async def test_a_return_value_becomes_a_body(sandbox: Sandbox, returned: str, body: bytes) -> None:
    state = "from enum import Enum\nclass State(Enum):\n    NEW, NONE = 'new', None\n"
    source = f"{state}def handler(event, context):\n    return {returned}\n"
    async with open_pool(sandbox, source, limits()) as pool:
        (result,) = await run(pool, b"")
        assert (result.outcome, result.code, result.body) == (Outcome.OK, 200, body)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("{1, 2}", "a set, which is not JSON; return a list: sorted(value)"),
        ("datetime.datetime(2026, 1, 1)", "datetime.datetime, which is not JSON; return value.isoformat()"),
        ("[float('nan')]", "nan, which is not JSON"),
        ("{'a': {'b': float('inf')}}", "inf, which is not JSON"),
        ("Lying(a=float('nan'))", "nan, which is not JSON"),
        ("Slotted(float('nan'))", "nan, which is not JSON"),
        ("(x for x in [1])", "a generator, which is not JSON; return a list: list(value)"),
        ("handler", "a function, which is not JSON"),
        ("{1: 2}", "a dict with a key that is not text (Dict key must be str); return {str(key): value"),
        ("2 ** 70", "an integer of more than 64-bit; return str(value)"),
        ("'\\ud800'", "half a character (a lone surrogate)"),
        ("['\\ud800']", "half a character (a lone surrogate)"),
        ("Reply('x', headers={'workload_id': 'y'})", "header 'workload_id' is written by the nexlet"),
        ("Reply('x', headers={'Nats-Msg-Id': 'y'})", "header 'Nats-Msg-Id' is written by the nexlet"),
        ("Reply('x', headers={'nex-invocation-id': 'y'})", "header 'nex-invocation-id' is written by the nexlet"),
        ("Reply('x', headers={'a b': 'y'})", "'a b' cannot be the name of a header"),
        ("'x' * 2_000_000", "the reply is 2000000 bytes, more than the"),
        ("itself()", "holds itself, or is nested more than 254 levels deep; return a copy"),
    ],
)
async def test_what_is_no_reply_is_an_error_that_says_so(sandbox: Sandbox, returned: str, says: str) -> None:
    source = f"""
import datetime
from dataclasses import dataclass
class Lying(dict):
    def values(self):
        return []
@dataclass(slots=True)
class Slotted:
    x: float
    y: object = None
def itself():
    made = []
    made.append(made)
    return made
def handler(event, context):
    if event.data == b"well":
        return "well"
    return {returned}
"""
    async with open_pool(sandbox, source, limits()) as pool:
        result, after = await run(pool, b"", b"well")
        assert (result.outcome, result.code, result.body) == (Outcome.ERROR, 500, b"")
        assert says in result.error
        assert after.body == b"well"
        assert pool.stats().deaths == {}


async def test_what_a_closed_generator_raises_is_told_to_nobody_but_the_log(sandbox: Sandbox) -> None:
    source = """
def steps():
    try:
        yield 1
    finally:
        raise ValueError("too late")
def handler(event, context):
    made = steps()
    next(made)
    del made
    return "ok"
"""
    async with open_pool(sandbox, source, limits()) as pool:
        (result,) = await run(pool, b"")
        assert (result.outcome, result.body) == (Outcome.OK, b"ok")
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await sink.until(lambda: bool(sink.lines))
        ((_, stream, _, line),) = sink.lines
        assert (stream, line) == ("stderr", b"ignored in a generator that was closed: ValueError: too late")


async def test_reply_headers_are_lines_that_cannot_be_broken_out_of(sandbox: Sandbox) -> None:
    source = "def handler(event, context):\n    return Reply('x', headers={'X-A': 'b\\r\\nworkload_id: forged'})\n"
    async with open_pool(sandbox, source, limits()) as pool:
        (result,) = await run(pool, b"")
        assert result.headers == b"X-A: b workload_id: forged\r\n"


async def test_an_event_shows_the_message(sandbox: Sandbox) -> None:
    source = """
def handler(event, context):
    return {
        "subject": event.subject, "text": event.text, "json": event.json(), "headers": event.headers,
        "reply": event.reply, "tokens": event.tokens, "attempt": event.attempt, "id": event.invocation_id,
        "self": [context.workload_id, context.name, context.namespace, context.env["KEY"]],
        "left": 4000 < context.remaining_ms() <= 5000,
    }
"""
    program = {
        "patterns": ("a.*.c.>", "b"),
        "workload_id": "w1",
        "name": "n1",
        "namespace": "acme",
        "environment": {"KEY": "value"},
    }
    async with open_pool(sandbox, source, limits(), **program) as pool:
        made = call(
            b'{"n": 1}',
            subject=b"a.b.c.d.e",
            headers=b"NATS/1.0\r\nX-One: 1\r\nX-One: 2\r\nEmpty:\r\n\r\n",
            reply=b"_INBOX.x",
            attempt=3,
        )
        (result,) = await run(pool, made)
        assert json.loads(result.body) == {
            "subject": "a.b.c.d.e",
            "text": '{"n": 1}',
            "json": {"n": 1},
            "headers": {"X-One": "1", "Empty": ""},
            "reply": "_INBOX.x",
            "tokens": ["b", "d.e"],
            "attempt": 3,
            "id": pool.invocation_id(made),
            "self": ["w1", "n1", "acme", "value"],
            "left": True,
        }


@pytest.mark.parametrize(
    ("payload", "says"),
    [(b"{", "the payload is not JSON"), (b"", "the payload is empty, JSON was expected"), (b"\xff", "not JSON")],
)
async def test_an_event_that_is_not_the_json_is_rejected(sandbox: Sandbox, payload: bytes, says: str) -> None:
    async with open_pool(sandbox, "def handler(event, context):\n    return event.json()\n", limits()) as pool:
        (result,) = await run(pool, payload)
        assert (result.outcome, result.code) == (Outcome.REJECTED_BY_FUNCTION, 400)
        assert says in result.body.decode()


async def test_a_rejection_answers_with_its_code_and_text(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, MIXED, limits()) as pool:
        (result,) = await run(pool, b"reject")
        assert (result.outcome, result.code, result.body) == (Outcome.REJECTED_BY_FUNCTION, 422, b"qty must be > 0")
        assert result.traceback == ""


@pytest.mark.parametrize(
    "body",
    [
        "def __init__(self):\n        pass",
        "def __init__(self):\n        self.code = 'x'",
        "@property\n    def code(self):\n        raise SystemExit(1)",
    ],
)
async def test_a_rejection_of_the_authors_own_making_cannot_end_the_worker(sandbox: Sandbox, body: str) -> None:
    source = f"""
class Mine(Reject):
    {body}
def handler(event, context):
    if event.data == b"well":
        return "well"
    raise Mine()
"""
    async with open_pool(sandbox, source, limits()) as pool:
        result, after = await run(pool, b"", b"well")
        assert result.outcome is Outcome.ERROR
        assert after.body == b"well"
        assert pool.stats().deaths == {}


async def test_an_error_gives_one_line_to_the_caller_and_the_authors_frames_to_the_log(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, MIXED, limits()) as pool:
        (result,) = await run(pool, b"raise")
        assert (result.outcome, result.code, result.body) == (Outcome.ERROR, 500, b"")
        assert result.error == "ValueError: no such luck"
        assert "function.py" in result.traceback
        assert 'raise ValueError("no such luck")' in result.traceback
        assert "loop.py" not in result.traceback


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt()", "GeneratorExit()"])
async def test_leaving_by_exception_is_an_error_and_not_an_end(sandbox: Sandbox, raised: str) -> None:
    source = f"def handler(event, context):\n    if event.data == b'x':\n        raise {raised}\n    return b'on'\n"
    async with open_pool(sandbox, source, limits()) as pool:
        result, after = await run(pool, b"x", b"y")
        assert result.outcome in (Outcome.ERROR,)
        assert after.body == b"on"
        assert pool.stats().deaths == {}


# --- output ---------------------------------------------------------------------------------------------------------


async def test_output_comes_by_lines_and_before_the_answer(sandbox: Sandbox) -> None:
    source = """
def handler(event, context):
    print("one\\ntwo")
    print("three", end="")
    context.log.info("four", n=4)
    context.log.error("five")
    context.metrics.count("orders", 2, currency="EUR")
    return "done"
"""
    async with open_pool(sandbox, source, limits()) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        made = call()
        await run(pool, made)
        assert [(stream, line) for _, stream, level, line in sink.lines if level == 0] == [
            ("stdout", b"one"),
            ("stdout", b"two"),
            ("stdout", b"three"),
        ]
        entries = [(stream, json.loads(line)) for _, stream, level, line in sink.lines if level]
        invocation = pool.invocation_id(made)
        assert entries == [
            ("stdout", {"level": "info", "message": "four", "invocation_id": invocation, "n": 4}),
            ("stderr", {"level": "error", "message": "five", "invocation_id": invocation}),
        ]
        assert [json.loads(data) for _, data in sink.metrics] == [
            {"name": "orders", "kind": "counter", "value": 2, "labels": {"currency": "EUR"}}
        ]


async def test_a_flood_of_output_is_dropped_and_counted_and_the_answer_comes(sandbox: Sandbox) -> None:
    source = "def handler(event, context):\n    for n in range(20000):\n        print('x' * 100)\n    return 'done'\n"
    async with open_pool(sandbox, source, limits(log_rate=1000)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        (result,) = await run(pool, b"")
        assert result.body == b"done"
        passed = [line for _, _, _, line in sink.lines if line == b"x" * 100]
        assert 10 < len(passed) < 200  # four seconds' worth of the rate in a burst, a little for the time it takes
        dropped = pool.stats().log_lines_dropped
        assert dropped + len(passed) == 20000
        await sink.until(lambda: sink.lines[-1][3] == b"%d lines dropped: output over the limit log_rate" % dropped)


async def test_a_long_line_is_cut_and_says_so(sandbox: Sandbox) -> None:
    source = "def handler(event, context):\n    print('x' * 50000, end='')\n    context.log.info('y' * 50000)\n"
    async with open_pool(sandbox, source, limits(max_log_line=1024, log_rate=MIB)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await run(pool, b"")
        assert all(len(line) <= 1024 for _, _, _, line in sink.lines)
        assert any(b"(cut, " in line for _, _, level, line in sink.lines if level == 20)


async def test_what_a_long_call_prints_is_seen_while_it_runs(sandbox: Sandbox) -> None:
    source = "import time\ndef handler(event, context):\n    print('begun')\n    time.sleep(30)\n"
    async with open_pool(sandbox, source, limits(timeout=60.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        pool.submit(call())
        await sink.until(lambda: bool(sink.lines))
        assert sink.results == {}


# --- time, memory, death ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [b"spin", b"spin in C"])
async def test_over_its_time_is_a_timeout_and_the_next_call_has_a_fresh_worker(sandbox: Sandbox, how: bytes) -> None:
    async with open_pool(sandbox, MIXED, limits(timeout=0.2)) as pool:
        began = time.monotonic()
        (result,) = await run(pool, how)
        assert (result.outcome, result.code) == (Outcome.TIMEOUT, 504)
        assert "0.2 s" in result.error
        assert time.monotonic() - began >= 0.2
        (after,) = await run(pool, b"on")
        assert after.body == b"on"
        assert pool.stats().deaths == {"timeout": 1}
        assert pool.stats().cold_starts == 2


@pytest.mark.parametrize("how", [b"grow", b"grow and swallow"])
async def test_over_its_memory_ends_so_even_when_the_error_was_swallowed(sandbox: Sandbox, how: bytes) -> None:
    async with open_pool(sandbox, MIXED, limits(memory=48 * MIB)) as pool:
        (result,) = await run(pool, how)
        assert (result.outcome, result.code) == (Outcome.MEMORY, 507)
        assert "48 MiB" in result.error
        assert result.peak_memory_bytes > 30 * MIB
        (after,) = await run(pool, b"on")
        assert after.body == b"on"


async def test_neighbours_of_a_call_that_hangs_get_their_due(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, MIXED, limits(timeout=0.3)) as pool:
        for _ in range(5):  # quick calls, so that many are sent ahead
            await run(pool, *[b"%d" % n for n in range(50)])
        payloads = [b"before %d" % n for n in range(20)] + [b"spin in C"] + [b"after %d" % n for n in range(20)]
        results = await run(pool, *payloads)
        assert results[20].outcome is Outcome.TIMEOUT
        for result, payload in zip(results[:20], payloads[:20], strict=True):
            # What ran and lost its answer with the worker is never a timeout, and never run again.
            assert (result.outcome, result.body) in ((Outcome.OK, payload), (Outcome.CRASH, b""))
        for result, payload in zip(results[21:], payloads[21:], strict=True):
            assert (result.outcome, result.body) == (Outcome.OK, payload)


async def test_a_python_loop_does_not_strand_the_answers_before_it(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, MIXED, limits(timeout=0.3)) as pool:
        for _ in range(5):
            await run(pool, *[b"%d" % n for n in range(50)])
        results = await run(pool, *[b"%d" % n for n in range(20)], b"spin")
        assert [result.outcome for result in results] == [Outcome.OK] * 20 + [Outcome.TIMEOUT]


async def test_a_killed_worker_is_a_crash_with_its_reason_and_what_was_behind_runs(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, SLEEPY, limits(timeout=20.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        running, waiting = call(b"10"), call(b"0")
        pool.submit(running)
        pool.submit(waiting)
        await begun(pool, running)
        os.kill(pool._links[0].process.pid, signal.SIGKILL)
        await sink.until(lambda: len(sink.results) == 2)
        died = sink.results[running.id]
        assert (died.outcome, died.code) == (Outcome.CRASH, 502)
        assert "SIGKILL" in died.error
        assert sink.results[waiting.id].outcome is Outcome.OK


async def test_a_stopped_worker_is_a_timeout(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits(timeout=0.2)) as pool:
        os.kill(pool._links[0].process.pid, signal.SIGSTOP)
        (result,) = await run(pool, b"x")
        assert result.outcome is Outcome.TIMEOUT
        (after,) = await run(pool, b"y")
        assert after.body == b"y"


async def test_workers_that_die_one_after_another_are_started_ever_more_rarely(sandbox: Sandbox) -> None:
    source = "import time\ndef handler(event, context):\n    time.sleep(30)\n"
    async with open_pool(sandbox, source, limits(timeout=60.0, queue_timeout=60.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        for number in range(3):
            made = call()
            pool.submit(made)
            await begun(pool, made)
            os.kill(pool._links[0].process.pid, signal.SIGKILL)
            await sink.until(partial(ended, sink, number + 1))
        assert pool.unwell
        assert pool.stats().starting == 0  # the next start waits
        assert "SIGKILL" in pool.last_failure


async def test_a_worker_that_dies_as_soon_as_it_is_ready_is_replaced(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits()) as pool:
        assert sandbox.zygote.pid is not None
        children = Path(f"/proc/{sandbox.zygote.pid}/task/{sandbox.zygote.pid}/children")
        killed = 0
        async with asyncio.timeout(10):
            while killed < 3:
                # At whatever moment of its life the kill meets it, ready or not, known to the pool or not.
                with contextlib.suppress(ProcessLookupError):
                    for pid in children.read_text().split()[:1]:
                        os.kill(int(pid), signal.SIGKILL)
                        killed += 1
                await asyncio.sleep(0.001)
        (result,) = await run(pool, b"x")
        assert result.body == b"x"


async def test_the_end_of_the_zygote_ends_its_workers_and_a_new_one_serves_on(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits()) as pool:
        await run(pool, b"before")
        await eventually(lambda: pool._links)
        worker = pool._links[0].process.pid
        assert sandbox.zygote.pid is not None
        os.kill(sandbox.zygote.pid, signal.SIGKILL)
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await sink.until(lambda: pool.stats().deaths != {})
        (result,) = await run(pool, b"after")
        assert result.body == b"after"
        assert sandbox.zygote.restarts == 1
        assert not alive(worker)


# --- queue and growth -------------------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_at_once(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, SLEEPY, limits(max_pending=2)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        calls = [call(b"0.2") for _ in range(5)]
        for one in calls:
            pool.submit(one)
        refused = [sink.results[one.id] for one in calls[3:]]
        assert [(one.outcome, one.code) for one in refused] == [(Outcome.REJECTED, 429)] * 2
        assert "2 invocations" in refused[0].error
        await sink.until(lambda: len(sink.results) == 5)
        assert [sink.results[one.id].outcome for one in calls[:3]] == [Outcome.OK] * 3


async def test_the_bytes_that_wait_are_bounded_too(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, SLEEPY, limits(max_pending_bytes=1000)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        pool.submit(call(b"0.1"))
        pool.submit(call(b"0." + b"0" * 900))
        pool.submit(call(b"0." + b"0" * 900))
        assert [result.outcome for result in sink.results.values()] == [Outcome.REJECTED]
        await sink.until(lambda: len(sink.results) == 3)


async def test_large_payloads_wait_in_the_queue_and_not_in_sockets(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, "def handler(event, context):\n    return str(len(event.data))\n", limits()) as pool:
        for _ in range(5):  # quick calls, so that many would be sent ahead
            await run(pool, *[b"%d" % n for n in range(50)])
        size = AHEAD_BYTES * 2 // 3
        calls = [call(bytes(size)) for _ in range(8)]
        for one in calls:
            pool.enqueue(one)
        in_flight = pool.stats().in_flight
        pool.flush()
        results = await run(pool, b"last")
        assert in_flight <= 1
        assert [pool.sink.results[one.id].body for one in calls] == [b"%d" % size] * 8  # type: ignore[attr-defined]
        assert results[0].body == b"4"


async def test_what_waited_too_long_is_answered_and_not_run(warm: Sandbox) -> None:
    source = """
import time
seen = []
def handler(event, context):
    seen.append(event.text)
    time.sleep(0.3)
    return seen
"""
    async with open_pool(warm, source, limits(queue_timeout=0.1)) as pool:
        first, second = await run(pool, b"first", b"second")
        assert first.outcome is Outcome.OK
        assert (second.outcome, second.code) == (Outcome.EXPIRED, 503)
        (third,) = await run(pool, b"third")
        assert json.loads(third.body) == ["first", "third"]


async def test_one_worker_runs_in_order(warm: Sandbox) -> None:
    source = "seen = []\ndef handler(event, context):\n    seen.append(event.text)\n    return len(seen)\n"
    async with open_pool(warm, source, limits()) as pool:
        results = await run(pool, *[b"%d" % n for n in range(500)])
        assert [int(result.body) for result in results] == list(range(1, 501))


async def test_calls_that_queue_get_more_workers_and_others_do_not(warm: Sandbox) -> None:
    async with open_pool(warm, SLEEPY, limits(max_workers=3, timeout=20.0)) as pool:
        for _ in range(50):
            await run(pool, b"0")
        assert pool.stats().workers == 1
        results = await run(pool, *[b"0.05"] * 12)
        assert {result.outcome for result in results} == {Outcome.OK}
        assert pool.stats().workers == 3


async def test_idle_workers_go_and_come_back(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits(idle=0.1)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        pid = pool._links[0].process.pid
        await sink.until(lambda: pool.stats().workers == 0)
        (result,) = await run(pool, b"x")
        assert result.body == b"x"
        assert pool.stats().cold_starts == 2
        await eventually(lambda: not alive(pid))


async def test_min_workers_are_kept(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits(min_workers=2, max_workers=2, idle=0.05)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        await sink.until(lambda: pool.stats().workers == 2)
        await run(pool, b"x")
        await asyncio.sleep(0.2)  # longer than idle: nothing may happen in it
        assert pool.stats().workers == 2


# --- loading ---------------------------------------------------------------------------------------------------------


async def refusal(sandbox: Sandbox, source: str, **changes: object) -> tuple[Problem, ...]:
    pool = Pool(sandbox.zygote, Program(source), limits(**changes), KeepingSink(), profile=sandbox.profile)
    with pytest.raises(LoadRefused) as refused:
        await pool.start()
    assert pool.stats().workers == 0
    return refused.value.problems


async def test_what_cannot_be_loaded_says_why_and_leaves_nothing(sandbox: Sandbox) -> None:
    (problem,) = await refusal(sandbox, "def handler(event, context:\n    pass\n")
    assert (problem.place, problem.line) == ("function.py", 1)
    (problem,) = await refusal(sandbox, "import os\ndef handler(event, context):\n    pass\n")
    assert "os" in problem.message
    (problem,) = await refusal(sandbox, "x = 1 / 0\ndef handler(event, context):\n    pass\n")
    assert "ZeroDivisionError" in problem.message
    (problem,) = await refusal(sandbox, "while True:\n    pass\n", load_timeout=0.2)
    assert "handler" in problem.message or "0.2 s" in problem.message
    (problem,) = await refusal(
        sandbox, "while True:\n    pass\ndef handler(event, context):\n    pass\n", load_timeout=0.2
    )
    assert problem.code == "load-timeout"
    grow = "kept = []\nwhile True:\n    kept.append(b'x' * 1048576)\ndef handler(event, context):\n    pass\n"
    (problem,) = await refusal(sandbox, grow, memory=48 * MIB)
    assert problem.code == "load-memory"
    assert sandbox.zygote.pid is not None
    assert Path(f"/proc/{sandbox.zygote.pid}/task/{sandbox.zygote.pid}/children").read_text().split() == []


async def test_an_unknown_profile_is_refused_by_name(zygote: Zygote) -> None:
    with pytest.raises(SandboxError, match="no sandbox profile 'nosuch'; there are: "):
        Pool(zygote, Program(ECHO), limits(), KeepingSink(), profile="nosuch")


# --- ending ----------------------------------------------------------------------------------------------------------


async def test_a_drain_lets_finish_what_runs_and_refuses_what_comes(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, SLEEPY, limits(timeout=20.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        running = [call(b"0.2"), call(b"0.1")]
        for one in running:
            pool.submit(one)
        draining = asyncio.create_task(pool.drain(10.0))
        await asyncio.sleep(0)
        late = call(b"0")
        pool.submit(late)
        assert (sink.results[late.id].outcome, sink.results[late.id].code) == (Outcome.UNAVAILABLE, 503)
        await draining
        assert [sink.results[one.id].outcome for one in running] == [Outcome.OK, Outcome.OK]


async def test_a_drain_ends_with_its_grace(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, SLEEPY, limits(timeout=20.0)) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        calls = [call(b"15"), call(b"15")]
        for one in calls:
            pool.submit(one)
        await pool.drain(0.2)
        assert [(sink.results[one.id].outcome, sink.results[one.id].code) for one in calls] == [
            (Outcome.UNAVAILABLE, 503)
        ] * 2


async def test_closing_leaves_no_process_and_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    zygote = await Zygote.start()
    pool = Pool(zygote, Program(SLEEPY), limits(max_workers=2), KeepingSink())
    await pool.start()
    pool.submit(call(b"10"))
    pid, zygote_pid = pool._links[0].process.pid, zygote.pid
    await pool.close()
    assert not alive(pid)
    await zygote.close()
    assert zygote_pid is not None
    assert not alive(zygote_pid)
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_a_worker_has_nothing_of_ours(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, ECHO, limits(), environment={"SECRET": "in the frame alone"}) as pool:
        await run(pool, b"x")
        await eventually(lambda: pool._links)
        layers = PROFILES[sandbox.profile].layers
        process = Path(f"/proc/{pool._links[0].process.pid}")
        assert (process / "environ").read_bytes() == b"TZ=UTC\x00"
        descriptors = {int(name): os.readlink(process / "fd" / name) for name in os.listdir(process / "fd")}
        assert {number for number, target in descriptors.items() if target != "/dev/null"} == {
            number for number, target in descriptors.items() if target.startswith("socket:")
        }
        assert sum(target.startswith("socket:") for target in descriptors.values()) == 1
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert status["NoNewPrivs"] == ("1" if "no-new-privs" in layers else "0")
        assert status["Seccomp"] == ("2" if "seccomp" in layers else "0")
        if os.geteuid() == 0 and "identity" in layers:
            assert int(status["Uid"].split()[0]) >= FIRST_ID
        assert status["Threads"] == "1"
        session = int((process / "stat").read_text().rsplit(")", 1)[1].split()[3])
        assert (session == pool._links[0].process.pid) == ("session" in layers)
        assert Path(f"/proc/{sandbox.zygote.pid}/environ").read_bytes() == b"TZ=UTC\x00"
