"""The testing kit: a folder's function in a real worker, for coroutines and for plain tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nexlet_functions.nexfile import FunctionRefused
from nexlet_functions.testing import EventRefused, SampleEvent, load_function, sample_events
from nexlet_sandboxes.outcomes import Outcome
from tests.support.processes import descendants, none_left

NEXFILE = """\
name: demo
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [demo.run, "demo.*.>"]
  environment: {GREETING: Hello, KEY: secret://API_KEY}
"""


def folder_of(path: Path, source: str, nexfile: str = NEXFILE) -> Path:
    path.mkdir(exist_ok=True)
    (path / "Nexfile").write_text(nexfile)
    (path / "function.py").write_text(source)
    return path


SOURCE = """\
print("loading")

def handler(event, context):
    print("hello")
    context.log.warning("careful", n=1)
    context.metrics.count("calls", 2, kind="test")
    return Reply({
        "text": event.text, "subject": event.subject, "tokens": event.tokens, "reply": event.reply,
        "attempt": event.attempt, "header": event.headers.get("X"), "env": dict(context.env),
    }, headers={"Y": "z"})
"""


async def test_everything_that_comes_back(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", SOURCE)
    async with load_function(folder, environment={"GREETING": "Moin"}, secrets={"API_KEY": "k"}) as function:
        result = await function.invoke(data="payload", subject="demo.a.b.c", headers={"X": "1"}, attempt=2)
        assert (result.outcome, result.code, result.ok, result.error) == (Outcome.OK, 200, True, "")
        assert result.json() == {
            "text": "payload", "subject": "demo.a.b.c", "tokens": ["a", "b.c"], "reply": "_INBOX.test",
            "attempt": 2, "header": "1", "env": {"GREETING": "Moin", "KEY": "k"},
        }  # fmt: skip
        assert result.headers == {"Y": "z"}
        assert result.logs[0].text == "hello"
        assert result.logs[1].stream == "stderr"
        assert result.logs[1].json()["message"] == "careful"
        assert result.metrics == ({"name": "calls", "kind": "counter", "value": 2, "labels": {"kind": "test"}},)
        assert result.duration_ms > 0
        assert result.peak_memory_bytes > 0
        assert [line.text for line in function.load_logs] == ["loading"]
        again = await function.invoke(subject="demo.run")
        assert again.invocation_id != result.invocation_id


def test_without_a_loop(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "f", "count = [0]\ndef handler(event, context):\n    count[0] += 1\n    return count[0]\n"
    )
    with load_function(folder, secrets={"API_KEY": "k"}, limits={"max_workers": 1}) as function:
        before = descendants(os.getpid())
        assert before
        assert function.invoke(subject="demo.run").json() == 1
        assert function.invoke(subject="demo.run").json() == 2


async def test_a_callers_deadline_is_a_header_like_any_other(tmp_path: Path) -> None:
    source = "def handler(event, context):\n    if event.data:\n        return context.remaining_ms()\n"
    source += "    while True:\n        pass\n"
    async with load_function(folder_of(tmp_path / "f", source), secrets={"API_KEY": "k"}) as function:
        told = await function.invoke(data="x", subject="demo.run", headers={"Nex-Deadline-Ms": "700"})
        assert 0 < told.json() <= 700
        ended = await function.invoke(subject="demo.run", headers={"Nex-Deadline-Ms": "200"})
        assert (ended.outcome, ended.code) == (Outcome.TIMEOUT, 504)
        with pytest.raises(ValueError, match="whole number"):
            await function.invoke(subject="demo.run", headers={"Nex-Deadline-Ms": "soon"})


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "def handler(event, context):\n    while True:\n        pass\n")
    before = descendants(os.getpid())
    async with load_function(folder, secrets={"API_KEY": "k"}, limits={"timeout": 0.2}) as function:
        started = descendants(os.getpid()) - before
        assert started
        result = await function.invoke(subject="demo.run")
        assert (result.outcome, result.code) == (Outcome.TIMEOUT, 504)
    await none_left(started)


async def test_a_failure_is_a_value_with_the_authors_lines(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "def handler(event, context):\n    return {}['x']\n")
    async with load_function(folder, secrets={"API_KEY": "k"}) as function:
        result = await function.invoke(subject="demo.run")
        assert (result.outcome, result.code, result.error) == (Outcome.ERROR, 500, "KeyError: 'x'")
        assert "return {}['x']" in result.traceback
        with pytest.raises(AssertionError, match="KeyError"):
            result.json()


async def test_what_is_refused_is_what_check_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "import os\n")
    before = descendants(os.getpid())
    with pytest.raises(FunctionRefused, match=r"function\.py:1"):
        async with load_function(folder, secrets={"API_KEY": "k"}):
            raise AssertionError("it was loaded")
    await none_left(descendants(os.getpid()) - before)


def test_a_secret_that_was_not_given_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", SOURCE)
    with pytest.raises(KeyError, match="secret://API_KEY"), load_function(folder):
        pass


async def test_a_subject_has_to_be_one_of_the_triggers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "def handler(event, context):\n    pass\n")
    async with load_function(folder, secrets={"API_KEY": "k"}) as function:
        with pytest.raises(ValueError, match=r"the function's triggers are demo\.run, demo"):
            await function.invoke()
        with pytest.raises(ValueError, match="no trigger takes 'other'"):
            await function.invoke(subject="other")
        with pytest.raises(ValueError, match="one of the two"):
            await function.invoke(subject="demo.run", json=1, data="1")


def write_event(tmp_path: Path, text: str) -> Path:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "one.json").write_text(text)
    return tmp_path


def test_sample_events_are_read_in_order(tmp_path: Path) -> None:
    write_event(tmp_path, '{"subject": "a", "headers": {"X": "1"}, "json": {"ä": 1}}')
    (tmp_path / "events" / "another.json").write_text('{"base64": "AAE="}')
    (tmp_path / "events" / "zero.json").write_text("{}")
    assert sample_events(tmp_path) == [
        SampleEvent("another", payload=b"\x00\x01"),
        SampleEvent("one", subject="a", headers={"X": "1"}, payload='{"ä":1}'.encode()),
        SampleEvent("zero"),
    ]
    assert sample_events(tmp_path / "events") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not an object"),
        ("{'a': 1", "events/one.json"),
        ('{"jsn": 1}', "unknown key 'jsn'"),
        ('{"json": 1, "data": "x"}', "both 'json' and 'data'"),
        ('{"data": 1}', "'data' is not text"),
        ('{"base64": "!"}', "'base64' is not base64"),
        ('{"headers": {"a": 1}}', "'headers' is not an object of texts"),
        ('{"expect": []}', "'expect' is not an object"),
        ('{"expect": {"outcom": "ok"}}', "unknown key 'outcom'"),
        ('{"expect": {"outcome": "okay"}}', "there is no outcome 'okay'"),
        ('{"expect": {"code": "200"}}', "'code' is not a whole number"),
        ('{"expect": {"json": 1, "text": "1"}}', "both 'json' and 'text'"),
    ],
)
def test_an_event_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EventRefused) as refused:
        sample_events(write_event(tmp_path, text))
    assert message in str(refused.value)
    assert "events/one.json" in str(refused.value)


@pytest.mark.parametrize(
    ("expect", "differences"),
    [
        ({}, []),
        ({"outcome": "ok", "code": 200, "json": {"a": 1}, "headers": {"x": "1"}}, []),
        ({"text": '{"a": 1}'}, []),
        ({"base64": "eyJhIjogMX0="}, []),
        ({"outcome": "error"}, ["outcome: expected error, got ok"]),
        ({"code": 400}, ["code: expected 400, got 200"]),
        ({"json": {"a": 2}}, ["json.a: expected 2, got 1"]),
        ({"text": "b"}, ["text: expected 'b', got '{\"a\": 1}'"]),
        ({"base64": "AA=="}, ["base64: expected AA==, got eyJhIjogMX0="]),
        ({"headers": {"Z": "1"}}, ["header Z: expected '1', got None"]),
        ({"error": "x"}, ["error: expected 'x' in ''"]),
    ],
)
def test_only_what_is_expected_is_compared(expect: dict[str, object], differences: list[str]) -> None:
    event = SampleEvent("one", expect=expect)
    found = event.differences(outcome="ok", code=200, data=b'{"a": 1}', headers={"X": "1"}, error="")
    assert found == differences
    if "outcome" not in expect:
        assert event.differences(outcome="ok") == []  # what cannot be seen is not compared


def test_of_an_answer_that_did_not_come_only_that_is_said() -> None:
    event = SampleEvent("one", expect={"json": {"a": 1}, "headers": {"X": "1"}})
    assert event.differences(outcome="error", code=500, data=b"", headers={}, error="ValueError: bad") == [
        "outcome: expected ok, got error (ValueError: bad)"
    ]


def test_what_an_operator_permits_may_be_imported(tmp_path: Path) -> None:
    source = "from calendar import isleap\n\ndef handler(event, context):\n    return isleap(2024)\n"
    folder = folder_of(tmp_path / "leap", source, NEXFILE.replace(", KEY: secret://API_KEY", ""))
    file = tmp_path / "settings.yaml"
    file.write_text("modules:\n  calendar: [isleap]\n")
    with load_function(folder, settings_file=file) as leap:
        assert leap.invoke(subject="demo.run").json() is True
    with pytest.raises(FunctionRefused, match="import of 'calendar' is not allowed"), load_function(folder):
        pass
