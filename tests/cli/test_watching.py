"""What `dev` makes of feed messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nexlet_functions.cli.output import Output
from nexlet_functions.cli.watching import LogRecord, Watch, readable


@pytest.mark.parametrize(
    ("stream", "text", "shown"),
    [
        ("stdout", "printed", ("stdout", "cyan", ["printed"])),
        ("stderr", "Traceback:\n  line", ("stderr", "red", ["Traceback:", "  line"])),
        ("stdout", "", ("stdout", "cyan", [""])),
        ("stdout", '{"level":"info","message":"seen","invocation_id":"x.1"}', ("info", "cyan", ["seen"])),
        (
            "stderr",
            '{"level":"warning","message":"slow","ms":12,"by":"ada","more":{"a":[1]}}',
            ("warning", "yellow", ['slow  ms=12  by=ada  more={"a": [1]}']),
        ),
        ("stdout", '{"printed": "json"}', ("stdout", "cyan", ['{"printed": "json"}'])),
        ("stdout", "[1]", ("stdout", "cyan", ["[1]"])),
        ("stdout", '{"level": 1, "message": "x"}', ("stdout", "cyan", ['{"level": 1, "message": "x"}'])),
    ],
)
def test_log_lines_are_made_readable(stream: str, text: str, shown: tuple[str, str, list[str]]) -> None:
    assert readable(LogRecord("w", stream, text)) == shown


class Recorded(Output):
    """Keeps records in place of printing them."""

    def __init__(self) -> None:
        super().__init__(json=True)
        self.kept: list[dict[str, Any]] = []

    def record(self, kind: str, text: object = (), /, **fields: Any) -> None:
        self.kept.append({"type": kind, **fields})


def triggered(workload_id: str, subject: str, **more: object) -> bytes:
    event = {"id": workload_id, "namespace": "demo", "duration": 1.5, "subject": subject, "outcome": "ok"} | more
    return json.dumps(event).encode()


async def test_an_invocation_can_be_waited_for_and_others_do_not_count() -> None:
    output = Recorded()
    watch = Watch(None, output)  # type: ignore[arg-type]  # nothing is subscribed to here
    ended = watch.invocation("w1", "greet.hello")
    feed = "$NEX.FEED.demo.events.WORKLOADTRIGGERED"
    watch.message(feed, "", triggered("w2", "greet.hello"), b"")
    watch.message(feed, "", triggered("w1", "greet.other"), b"")
    watch.message(feed, "", b"not an event", b"")
    assert not ended.done()
    watch.message(feed, "", triggered("w1", "greet.hello"), b"")
    assert ended.done()
    assert (await ended).duration == 1.5
    assert output.kept == []  # nothing is shown yet


def test_what_was_logged_before_it_is_shown_is_kept_within_bounds() -> None:
    watch = Watch(None, Recorded())  # type: ignore[arg-type]  # as above
    for number in range(500):
        watch.message("$NEX.FEED.demo.logs.w1.stdout", "", b"%d" % number, b"")
    lines = watch.take_lines("w1")
    assert len(lines) == 200
    assert lines[-1].text == "499"
    assert watch.take_lines("w1") == []


def test_live_everything_is_a_record() -> None:
    output = Recorded()
    watch = Watch(None, output)  # type: ignore[arg-type]  # as above
    watch.live = True
    watch.names["w1"] = "greet"
    watch.message("$NEX.FEED.demo.logs.w1.stderr", "", b"\xff oops", b"")
    watch.message(
        "$NEX.FEED.demo.events.WORKLOADTRIGGERED", "", triggered("w1", "a", outcome="timeout", error="x"), b""
    )
    stopped = {"id": "w1", "namespace": "demo", "workload_type": "python", "error": {"code": "503", "message": "gone"}}
    watch.message("$NEX.FEED.demo.events.WORKLOADSTOPPED", "", json.dumps(stopped).encode(), b"")
    watch.message("$NEX.FEED.demo.events.WORKLOADSTARTED", "", b"{}", b"")
    log, invocation, gone = output.kept
    assert (log["type"], log["name"], log["stream"], log["text"]) == ("log", "greet", "stderr", "\ufffd oops")
    assert (invocation["outcome"], invocation["error"], invocation["name"]) == ("timeout", "x", "greet")
    assert (gone["type"], gone["error"]) == ("stopped", "gone")
