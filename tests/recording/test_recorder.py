"""Invocations as they are kept: what is in the files, how many there are, and what is left out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.recording import Invoked, Masks, Recorder
from nexlet_functions.recording.dispatching import recording_to
from nexlet_functions.recording.forms import message_as
from nexlet_functions.recording.recorder import MAX_BYTES
from nexlet_functions.testing.events import read_event
from nexlet_sandboxes.outcomes import Outcome
from tests.support.agent import agent_bench


def invoked(payload: bytes = b"{}", **more: Any) -> Invoked:
    fields: dict[str, Any] = {
        "function": "greet",
        "subject": "greet.hello",
        "headers": {},
        "outcome": Outcome.OK,
        "code": 200,
        "body": b"1",
        "reply_headers": {},
        "error": "",
        "at": "2026-11-23T15:44:04Z",
    }
    return Invoked(payload=payload, **fields | more)


async def record(folder: Path, *those: Invoked, masks: Masks | None = None, **options: Any) -> Recorder:
    async with Recorder(folder, masks or Masks(), **options) as recorder:
        for one in those:
            recorder.take(masks or Masks(), one)
    return recorder


async def recorded(folder: Path, one: Invoked, masks: Masks | None = None) -> Any:
    await record(folder, one, masks=masks)
    (file,) = folder.glob("*/*.json")
    return json.loads(file.read_text())


async def test_an_invocation_becomes_a_sample_event(tmp_path: Path) -> None:
    event = await recorded(
        tmp_path / "kept",
        invoked(
            b'{"name": "Ada", "password": "x"}',
            headers={"X-Trace": "1", "Authorization": "Bearer abc", "Nex-Deadline-Ms": "250"},
            body=b'{"greeting": "Hello", "for": "tok-123"}',
            reply_headers={"X-For": "Bearer tok-123"},
        ),
        Masks(secrets=["tok-123"]),
    )
    assert event == {
        "subject": "greet.hello",
        "headers": {"X-Trace": "1", "Authorization": "***"},
        "json": {"name": "Ada", "password": "***"},
        "expect": {
            "outcome": "ok",
            "headers": {"X-For": "Bearer ***"},
            "json": {"greeting": "Hello", "for": "***"},
        },
        "recorded": {
            "function": "greet",
            "at": "2026-11-23T15:44:04Z",
            "masked": ["headers.Authorization", "json.password", "expect.headers.X-For", "expect.json.for"],
        },
    }
    (file,) = (tmp_path / "kept").glob("*/*.json")
    assert (file.parent.name, file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (
        "greet",
        0o600,
        0o700,
    )
    sample = read_event(file)
    assert (sample.function, sample.name) == ("greet", file.stem)
    came: dict[str, Any] = {"outcome": "ok", "code": 200, "headers": {"x-for": "Bearer tok-9"}}
    assert sample.differences(data=b'{"for": "other", "greeting": "Hello"}', **came) == []
    assert sample.differences(data=b'{"for": "other", "greeting": "Hi"}', **came) == [
        'json.greeting: expected "Hello", got "Hi"'
    ]
    assert sample.differences(data=None, **came | {"headers": {"x-for": "Basic tok-9"}}) == [
        "header X-For: expected 'Bearer ***', got 'Basic tok-9'"
    ]


@pytest.mark.parametrize(
    ("payload", "headers", "form"),
    [
        (b'{"a": 1}', {}, {"json": {"a": 1}}),
        (b"", {}, {}),
        (b"0", {}, {"json": 0}),
        (b"plain", {}, {"data": "plain"}),
        (b"\xff\x00", {}, {"base64": "/wA="}),
        (b'{"a": 1.10}', {}, {"data": '{"a": 1.10}'}),
        (b'{"a": 1e400}', {}, {"data": '{"a": 1e400}'}),
        (b'{"a": 1, "a": 2}', {}, {"data": '{"a": 1, "a": 2}'}),
        (b'{"a": NaN}', {}, {"data": '{"a": NaN}'}),
        (b'"\\ud800"', {}, {"data": '"\\ud800"'}),
        (b'{"a": 1}', {"X-Hub-Signature-256": "x"}, {"data": '{"a": 1}'}),
    ],
)
async def test_a_message_is_kept_as_what_it_was(
    tmp_path: Path, payload: bytes, headers: dict[str, str], form: dict[str, Any]
) -> None:
    event = await recorded(tmp_path, invoked(payload, headers=headers))
    assert {name: event[name] for name in ("json", "data", "base64") if name in event} == form
    (file,) = tmp_path.glob("*/*.json")
    again = read_event(file).payload
    assert again == payload or ("json" in form and json.loads(again) == json.loads(payload))


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        (b'{"password": "one", "password": null}', {"password": None}),
        (b'{"password": "one", "password": "two", "a": 1}', {"password": "***", "a": 1}),
        (b'{"user": {"password": "one"}, "user": {}}', {"user": {}}),
        (b'{"user": [{"token": 1, "token": 2}], "user": 3}', {"user": 3}),
        (b'{"card": "one", "card": 1.10}', {"card": 0}),
        (b'{"x": {"zip": "one"}, "x": {"no": 1, "no": 2}}', {"x": {"no": 2}}),
    ],
)
async def test_under_a_name_that_comes_twice_nothing_is_left(tmp_path: Path, payload: bytes, kept: Any) -> None:
    event = await recorded(tmp_path, invoked(payload, body=payload), Masks(["*.zip", "card"]))
    assert (event["json"], event["expect"]["json"]) == (kept, kept)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"a":' * 3000 + b'{"password": "hunter2"}' + b"}" * 3000, "JSON that is nested too deep to be masked"),
        (b"[" * 30000 + b"]" * 30000, "JSON that is nested too deep to be masked"),
        (b'{"password": "hunter2", "rate": NaN}', "something to be masked in JSON that no sample event could say"),
        (
            b'{"password": "hunter2", "half": "\\ud800"}',
            "something to be masked in JSON that no sample event could say",
        ),
    ],
)
async def test_what_cannot_be_masked_is_not_kept_and_the_next_one_is(
    tmp_path: Path, payload: bytes, reason: str
) -> None:
    recorder = await record(tmp_path, invoked(payload), invoked(b"1", body=payload), invoked(b"2"))
    assert (recorder.written, dict(recorder.left_out)) == (1, {reason: 2})
    (file,) = tmp_path.rglob("*.json")
    assert "hunter2" not in file.read_text()


async def test_a_fault_of_ours_is_one_invocations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(masks: Masks, payload: bytes, headers: Any) -> Any:
        if payload == b"1":
            raise LookupError("of a test")
        return message_as(masks, payload, headers)

    monkeypatch.setattr("nexlet_functions.recording.recorder.message_as", broken)
    recorder = await record(tmp_path, invoked(b"1"), invoked(b"2"))
    assert (recorder.written, dict(recorder.left_out)) == (1, {"a fault of the recorder: LookupError": 1})


@pytest.mark.parametrize(
    ("outcome", "code", "expect"),
    [
        (Outcome.REJECTED_BY_FUNCTION, 422, {"outcome": "rejected_by_function", "code": 422, "error": "no ***"}),
        (Outcome.ERROR, 500, {"outcome": "error", "code": 500, "error": "no ***"}),
        (Outcome.TIMEOUT, 504, {"outcome": "timeout", "code": 504}),
    ],
)
async def test_what_failed_is_kept_with_how_it_did(
    tmp_path: Path, outcome: Outcome, code: int, expect: dict[str, Any]
) -> None:
    one = invoked(outcome=outcome, code=code, error="no tok-123", body=b"")
    event = await recorded(tmp_path, one, Masks(secrets=["tok-123"]))
    assert event["expect"] == expect


async def test_the_same_is_kept_once_and_nothing_is_written_over(tmp_path: Path) -> None:
    first = await record(tmp_path, invoked(), invoked(), invoked(body=b"2"))
    assert (first.written, dict(first.left_out)) == (1, {})
    (file,) = tmp_path.glob("*/*.json")
    file.write_text("mine")
    again = await record(tmp_path, invoked(), invoked(outcome=Outcome.TIMEOUT, code=504))
    assert again.written == 1, "another outcome is another event"
    assert file.read_text() == "mine"


async def test_there_are_bounds(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    recorder = await record(
        tmp_path,
        *(invoked(b"%d" % number) for number in range(5)),
        invoked(b"x" * (MAX_BYTES + 1)),
        invoked(b"[" * 100 + b"]" * 100),
        invoked(subject="greet.tok-123"),
        invoked(outcome=Outcome.REJECTED, code=429),
        masks=Masks(secrets=["tok-123"]),
        most=3,
        on_left_out=lambda function, reason: told.append((function, reason)),
    )
    assert recorder.written == 3
    assert recorder.left_out["there are 3 already"] == 2
    assert recorder.left_out["larger than 64 KiB"] == 1
    assert recorder.left_out["a secret in its subject"] == 1
    assert recorder.left_out["no sample event could say it: nested more than 64 levels deep"] == 1
    assert sorted(told) == sorted(("greet", reason) for reason in recorder.left_out), "each is told once"
    again = await record(tmp_path, invoked(b"new"), most=3)
    assert (again.written, again.left_out["there are 3 already"]) == (0, 1), "those of earlier runs count"


async def test_what_comes_faster_than_it_is_written_is_left_out(tmp_path: Path) -> None:
    go_on = threading.Event()

    class Slow(Masks):
        def text(self, text: str) -> str:
            go_on.wait(30)
            return super().text(text)

    async with Recorder(tmp_path, Masks(), most=1000) as recorder:
        for number in range(400):
            recorder.take(Slow(), invoked(b"%d" % number))
        assert recorder.left_out == {"faster than it is written": 400 - 256}
        go_on.set()
    assert recorder.written == 256


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recorder = await record(tmp_path / "file", invoked())
    assert recorder.written == 0
    assert dict(recorder.left_out) == {f"{tmp_path / 'file'}: Not a directory": 1}


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "ü"])
async def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    await record(tmp_path / "kept", invoked(function=name))
    (file,) = tmp_path.rglob("*.json")
    assert file.parent.parent == tmp_path / "kept"


async def test_a_message_of_a_stream_that_had_no_room_is_no_invocation(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    source = "import time\n\ndef handler(event, context):\n    time.sleep(0.02)\n"
    async with (
        Recorder(tmp_path, Masks(), most=0) as recorder,
        agent_bench(nats_server, dispatchers=recording_to(recorder)) as bench,
    ):
        stream = bench.client.jetstream()
        await stream.add_stream(name="ORDERS", subjects=["orders"])
        for number in range(20):
            await stream.publish("orders", b"%d" % number)
        # One that waits at a time, and more workers than that: most of what is fetched has no room at first.
        limits = {"max_pending": 1, "queue_timeout": "5ms"}
        triggers = ["greet", {"stream": "ORDERS", "max_deliver": 1}]
        await bench.start(source=source, triggers=triggers, limits=limits, workers={"max": 2})
        await bench.event("WORKLOADTRIGGERED", count=20)
    assert dict(recorder.left_out) == {"there are 0 already": 20}, "one for each that was run"
