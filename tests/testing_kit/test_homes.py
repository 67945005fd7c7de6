"""Where a function under test may be: one suite over a worker alone and over a deployment beside a real NATS server."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.nexfile import FunctionRefused
from nexlet_functions.testing import Invocation, SampleEvent, Sent, load_function
from nexlet_sandboxes.outcomes import Outcome
from tests.support.processes import descendants, none_left

NEXFILE = """\
name: demo
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [demo.run, "demo.*.>", {subject: demo.mute, reply: false}]
  environment: {GREETING: Hello, KEY: secret://API_KEY}
"""

SOURCE = """\
import time

print("loading")

def handler(event, context):
    what = event.text
    print("hello", what)
    if what == "tell":
        context.log.warning("careful", n=1)
        context.metrics.count("calls", 2, kind="test")
        told = {"subject": event.subject, "tokens": event.tokens, "header": event.headers.get("X")}
        return Reply(told | {"env": dict(context.env), "name": context.name}, headers={"Y": "z"})
    if what == "raise":
        return {}["x"]
    if what == "reject":
        raise Reject(422, "not that")
    if what == "hang":
        while True:
            pass
    if what == "wait":
        time.sleep(0.05)
    return what
"""


@pytest.fixture(params=[False, True], ids=["worker", "nats"])
def nats(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def demo_in(path: Path, source: str = SOURCE) -> Path:
    path.mkdir(exist_ok=True)
    (path / "Nexfile").write_text(NEXFILE)
    (path / "function.py").write_text(source)
    return path


def loading(path: Path, *, nats: bool, source: str = SOURCE, **options: Any) -> load_function:
    return load_function(demo_in(path, source), secrets={"API_KEY": "k"}, nats=nats, **options)


def lines(result: Invocation) -> list[str]:
    return [line.text for line in result.logs]


async def test_everything_that_comes_back(tmp_path: Path, nats: bool) -> None:
    async with loading(tmp_path, nats=nats, environment={"GREETING": "Moin"}, limits={"timeout": 0.3}) as function:
        told = await function.invoke(data="tell", subject="demo.a.b.c", headers={"X": "1"})
        assert (told.outcome, told.code, told.ok, told.error, told.traceback) == (Outcome.OK, 200, True, "", "")
        assert told.json() == {
            "subject": "demo.a.b.c", "tokens": ["a", "b.c"], "header": "1",
            "env": {"GREETING": "Moin", "KEY": "k"}, "name": "demo",
        }  # fmt: skip
        assert told.headers == {"Y": "z"}
        assert lines(told)[0] == "hello tell"
        assert [line.stream for line in told.logs] == ["stdout", "stderr"]
        assert (told.logs[1].json()["message"], told.logs[1].json()["invocation_id"]) == ("careful", told.invocation_id)
        assert told.metrics == ({"name": "calls", "kind": "counter", "value": 2, "labels": {"kind": "test"}},)
        assert min(told.duration_ms, told.cpu_ms, told.queue_ms, told.peak_memory_bytes) > 0

        raised = await function.invoke(data="raise", subject="demo.run")
        assert (raised.outcome, raised.code, raised.error) == (Outcome.ERROR, 500, "KeyError: 'x'")
        assert 'return {}["x"]' in raised.traceback
        assert lines(raised) == ["hello raise"]

        rejected = await function.invoke(data="reject", subject="demo.run")
        assert (rejected.outcome, rejected.code, rejected.error) == (Outcome.REJECTED_BY_FUNCTION, 422, "not that")
        assert (rejected.data, rejected.traceback, lines(rejected)) == (b"not that", "", ["hello reject"])

        hung = await function.invoke(data="hang", subject="demo.run")
        assert (hung.outcome, hung.code, lines(hung)) == (Outcome.TIMEOUT, 504, ["hello hang"])

        assert "loading" in [line.text for line in function.load_logs]


async def test_many_at_once_are_not_taken_for_one_another(tmp_path: Path, nats: bool) -> None:
    async with loading(tmp_path, nats=nats) as function:
        asked = [str(number) for number in range(20)]
        ended = await asyncio.gather(*(function.invoke(data=each, subject="demo.run") for each in asked))
        assert [result.text for result in ended] == asked
        assert [lines(result) for result in ended] == [[f"hello {each}"] for each in asked]
        assert len({result.invocation_id for result in ended}) == len(asked)


async def test_what_nobody_is_answered_is_known_all_the_same(tmp_path: Path, nats: bool) -> None:
    async with loading(tmp_path, nats=nats) as function:
        ways: list[dict[str, Any]] = [{"subject": "demo.mute"}, {"subject": "demo.run", "reply": ""}]
        event = SampleEvent("one", payload=b"raise", expect={"outcome": "error", "error": "KeyError"})
        wrong = SampleEvent("two", payload=b"raise")
        for way in ways:
            # Beside others: which of them it was is not told by an answer.
            ended = await asyncio.gather(
                function.invoke(data="wait", subject="demo.run"), function.invoke(event, **way),
                function.invoke(data="b", subject="demo.run"),
            )  # fmt: skip
            assert [each.outcome for each in ended] == [Outcome.OK, Outcome.ERROR, Outcome.OK]
            assert lines(ended[1]) == ["hello raise"]
            assert ended[1].differences(event) == []
            assert ended[1].differences(wrong) == ["outcome: expected ok, got error (KeyError: 'x')"]


KEEPING = """\
name: keeping
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers:
    - demo.run
    - {stream: ORDERS, filter: "orders.*", max_deliver: 3, backoff: [10ms], dead_letter: dead.orders}
    - {schedule: "0 0 1 1 *", timezone: Europe/Berlin, name: yearly}
"""

KEEPS = """\
def handler(event, context):
    told = [event.stream, event.sequence, event.attempt, event.reply, event.subject, event.tokens]
    print(*told, event.scheduled_time.isoformat() if event.scheduled_time else None)
    if event.text == "raise":
        raise ValueError("not now")
"""


def keeping_in(path: Path) -> Path:
    (path / "Nexfile").write_text(KEEPING)
    (path / "function.py").write_text(KEEPS)
    return path


async def test_a_message_of_a_stream(tmp_path: Path, nats: bool) -> None:
    async with load_function(keeping_in(tmp_path), nats=nats) as function:
        first = await function.invoke(data="a", subject="orders.new", headers={"X": "1"})
        assert lines(first) == ["ORDERS 1 1  orders.new ['new'] None"]
        assert first.ok
        failed, plain = await asyncio.gather(
            function.invoke(data="raise", subject="orders.old", stream="ORDERS"),
            function.invoke(data="b", subject="demo.run", reply=""),
        )
        assert (failed.outcome, failed.error) == (Outcome.ERROR, "ValueError: not now")
        assert lines(plain) == [" 0 1  demo.run [] None"]
        contradictions: list[dict[str, Any]] = [
            {"subject": "orders.new", "stream": "OTHER"}, {"subject": "demo.run", "sequence": 1},
        ]  # fmt: skip
        for contradiction in contradictions:
            with pytest.raises(ValueError, match=r"the stream 'OTHER'|is from no stream"):
                await function.invoke(**contradiction)


PASSING_ON = """\
name: passing
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers:
    - demo.run
    - {stream: ORDERS, filter: "orders.*", max_deliver: 2, backoff: [10ms], dead_letter: dead.orders}
  grants: {publish: ["out.>"]}
"""

PASSES_ON = """\
def handler(event, context):
    context.publish("out.first", event.text)
    if event.text == "raise":
        raise ValueError("not now")
    context.publish("out.second", f"attempt {event.attempt}")
"""


async def test_what_is_published_for_a_message_of_a_stream(tmp_path: Path, nats: bool) -> None:
    """Over NATS it is named after the message, and not after one of the invocations that it may take."""
    (tmp_path / "Nexfile").write_text(PASSING_ON)
    (tmp_path / "function.py").write_text(PASSES_ON)
    async with load_function(tmp_path, nats=nats) as function:
        for subject in ("orders.new", "demo.run", "orders.other"):
            told = await function.invoke(data=subject, subject=subject)
            assert told.published == (Sent("out.first", subject.encode()), Sent("out.second", b"attempt 1"))
        failed = await function.invoke(data="raise", subject="orders.new")
        assert failed.published == (Sent("out.first", b"raise"),)
        two = await asyncio.gather(*(function.invoke(data=text, subject="orders.new") for text in ("a", "b")))
        assert [[each.data for each in told.published] for told in two] == [
            [b"a", b"attempt 1"], [b"b", b"attempt 1"],
        ]  # fmt: skip


async def test_which_message_of_a_stream_it_is_says_the_test(tmp_path: Path) -> None:
    async with load_function(keeping_in(tmp_path)) as function:
        again = await function.invoke(subject="orders.new", sequence=17, attempt=2)
        assert lines(again) == ["ORDERS 17 2  orders.new ['new'] None"]


@pytest.mark.parametrize(
    ("due", "told"),
    [
        ("2026-01-01T00:00", "2026-01-01T00:00:00+01:00"),
        ("2025-12-31T23:00:00Z", "2026-01-01T00:00:00+01:00"),
        (datetime(2026, 7, 1), "2026-07-01T00:00:00+02:00"),  # noqa: DTZ001  # of the schedule's time zone
        (datetime(2026, 7, 1, tzinfo=UTC), "2026-07-01T02:00:00+02:00"),
    ],
)
async def test_a_run_by_schedule(tmp_path: Path, due: datetime | str, told: str) -> None:
    async with load_function(keeping_in(tmp_path)) as function:
        for subject in ("", "$SCHEDULE.yearly"):
            result = await function.invoke(scheduled_time=due, subject=subject)
            assert lines(result) == [f" 0 1  $SCHEDULE.yearly [] {told}"]
        for more in ({"data": "x"}, {"stream": "ORDERS"}, {"subject": "$SCHEDULE.daily"}):
            with pytest.raises(ValueError, match="schedule"):
                await function.invoke(scheduled_time=due, **more)  # type: ignore[arg-type]  # texts


async def test_what_is_a_streams_or_a_clocks_to_say_is_not_a_tests(tmp_path: Path) -> None:
    async with load_function(keeping_in(tmp_path), nats=True) as function:
        for said, why in (
            ({"sequence": 3}, "a stream numbers its messages"),
            ({"attempt": 2}, "the attempt is counted where messages are kept"),
        ):
            with pytest.raises(ValueError, match=why):
                await function.invoke(subject="orders.new", **said)  # type: ignore[arg-type]  # numbers
        with pytest.raises(ValueError, match="a schedule runs by the clock"):
            await function.invoke(scheduled_time="2026-01-01T00:00")


BATCHES = """\
def handler(events, context):
    print("hello", *[event.text for event in events])
    context.metrics.count("calls", len(events))
    outcomes = []
    for event in events:
        if event.text == "raise":
            outcomes.append(ValueError("not that"))
            continue
        context.publish("demo.out", event.text, event=event)
        outcomes.append([event.text, event.headers.get("X")])
    context.publish("demo.all", str(len(events)))
    return outcomes
"""


def batches_in(path: Path) -> Path:
    text = NEXFILE.replace("  environment:", "  batch: 4\n  grants: {publish: [demo.out, demo.all]}\n  environment:")
    demo_in(path, BATCHES)
    (path / "Nexfile").write_text(text)
    return path


async def test_a_batch_of_events(tmp_path: Path, nats: bool) -> None:
    sample = SampleEvent("one", payload=b"a", headers={"X": "1"}, subject="demo.run")
    said: list[Any] = [
        sample,
        {"data": "raise", "subject": "demo.run"},
        {"event": sample, "data": "b", "headers": {"X": "2"}},
    ]
    async with load_function(batches_in(tmp_path), secrets={"API_KEY": "k"}, nats=nats) as function:
        results = await function.invoke_batch(said)
        assert [(result.outcome, result.code) for result in results] == [
            (Outcome.OK, 200),
            (Outcome.ERROR, 500),
            (Outcome.OK, 200),
        ]
        assert [result.json() for result in (results[0], results[2])] == [["a", "1"], ["b", "2"]]
        assert len({result.invocation_id for result in results}) == 3
        told = [[(each.subject, each.text) for each in result.published] for result in results]
        assert [("demo.out", "a") in told[0], ("demo.out", "b") in told[2]] == [True, True]
        heard = [line for result in results for line in lines(result)]
        if not nats:  # beside a server they come in one batch or in more
            assert heard == ["hello a raise b"]
            assert told == [[("demo.out", "a"), ("demo.all", "3")], [], [("demo.out", "b")]]
            assert [len(result.metrics) for result in results] == [1, 0, 0]
        else:
            assert sorted(word for line in heard for word in line.split()[1:]) == ["a", "b", "raise"]
            assert sum(result.metrics[0]["value"] for result in results if result.metrics) == 3
        (alone,) = await function.invoke_batch(said[:1])
        assert alone.json() == (await function.invoke(sample)).json() == ["a", "1"]
        with pytest.raises(ValueError, match="5 events are more than a call is given: the Nexfile says batch: 4"):
            await function.invoke_batch([sample] * 5)


async def test_a_function_that_takes_no_batches_says_so(tmp_path: Path) -> None:
    async with loading(tmp_path, nats=False) as function:
        with pytest.raises(ValueError, match="the Nexfile says no batch"):
            await function.invoke_batch([{"data": "a", "subject": "demo.run"}] * 2)


async def test_what_is_refused_reads_the_same(tmp_path: Path, nats: bool) -> None:
    with pytest.raises(FunctionRefused) as refused:
        async with loading(tmp_path, nats=nats, source="import os\n\ndef handler(event, context):\n    pass\n"):
            raise AssertionError("it was loaded")
    assert [(each.place, each.line) for each in refused.value.problems] == [("function.py", 1)]
    with pytest.raises(FunctionRefused, match=r"(?s)function\.py:1.*ZeroDivisionError"):
        async with loading(tmp_path, nats=nats, source="RATE = 1 / 0\n\ndef handler(event, context):\n    pass\n"):
            raise AssertionError("it was loaded")


def test_without_a_loop_and_nothing_is_left_behind(tmp_path: Path, nats: bool) -> None:
    before = descendants(os.getpid())
    with loading(tmp_path, nats=nats, profile="oneshot") as function:
        started = descendants(os.getpid()) - before
        assert function.invoke(data="a", subject="demo.run").text == "a"
        assert function.invoke(data="b", subject="demo.run").text == "b"
    asyncio.run(none_left(started))


async def test_what_a_node_cannot_be_told_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the limit max_log_line is none that a node can be told"):
        async with loading(tmp_path, nats=True, limits={"max_log_line": 10}):
            raise AssertionError("it was deployed")
    async with loading(tmp_path, nats=True) as function:
        with pytest.raises(ValueError, match="the attempt is counted where messages are kept"):
            await function.invoke(subject="demo.run", attempt=2)
