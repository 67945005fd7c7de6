"""What is made of events and lists about functions, by a clock of the test's own, and how it reads."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from nexlet_functions.cli.activity import KEPT_FUNCTIONS, KEPT_RUNS, Activity, Row
from nexlet_functions.cli.activity_table import cells, table
from nexlet_models.events import WorkloadFailure, WorkloadStoppedEvent, WorkloadTriggeredEvent
from nexlet_models.workloads import WorkloadLifecycle, WorkloadState, WorkloadSummary


def event(
    workload_id: str = "w1", *, duration: float = 1.0, outcome: str = "ok", **more: Any
) -> WorkloadTriggeredEvent:
    return WorkloadTriggeredEvent(id=workload_id, namespace="acme", duration=duration, outcome=outcome, **more)


def summary(workload_id: str = "w1", *, name: str = "greet", **facts: str) -> WorkloadSummary:
    return WorkloadSummary(
        id=workload_id, namespace="acme", name=name, start_time="2026-01-02T03:04:05Z", runtime="",
        workload_type="python", workload_lifecycle=WorkloadLifecycle.FUNCTION, workload_state=WorkloadState.RUNNING,
        metadata=facts, tags={},
    )  # fmt: skip


def only(activity: Activity, now: float) -> Row:
    (row,) = activity.rows(now)
    return row


def test_a_rate_is_of_the_last_ten_seconds_or_of_as_long_as_it_is_watched() -> None:
    activity = Activity()
    activity.learn([summary()], 100.0)
    assert (only(activity, 100.0).rate, only(activity, 100.0).p50_ms) == (0.0, None)
    for number in range(200):  # 20 a second from 100 to 110
        activity.observe(event(), 100.0 + number / 20)
    assert only(activity, 104.0).rate == pytest.approx(200 / 4)  # nothing was observed later than that
    assert only(activity, 110.0).rate == pytest.approx(180 / 9)  # the seconds 101 to 110, of which nine are over
    assert only(activity, 115.0).rate == pytest.approx(80 / 9)
    assert only(activity, 121.0).rate == 0.0


def test_quantiles_are_of_what_ran_in_the_last_minute() -> None:
    activity = Activity()
    for milliseconds in range(1, 101):
        activity.observe(event(duration=float(milliseconds)), 100.0)
    activity.observe(event(duration=0.0, outcome="rejected"), 100.0)
    activity.observe(event(duration=0.0, outcome="expired"), 100.0)
    assert (only(activity, 101.0).p50_ms, only(activity, 101.0).p99_ms) == (50.0, 99.0)
    activity.observe(event(duration=7.0), 150.0)
    assert (only(activity, 161.0).p50_ms, only(activity, 161.0).p99_ms) == (7.0, 7.0)
    assert only(activity, 211.0).p50_ms is None


def test_errors_are_those_of_the_last_minute_and_the_last_outcome_is_told() -> None:
    activity = Activity()
    activity.observe(event(outcome="timeout", error="took longer than 5 s"), 100.0)
    activity.observe(event(outcome="rejected_by_function", error="qty"), 101.0)
    row = only(activity, 103.0)
    assert (row.errors, row.last_outcome, row.last_error, row.last_seconds) == (1, "rejected_by_function", "qty", 2.0)
    assert only(activity, 160.0).errors == 0


def test_a_list_tells_names_states_and_workers_and_who_is_gone() -> None:
    activity = Activity()
    activity.observe(event(), 100.0)
    assert activity.unknown
    assert (only(activity, 100.0).name, only(activity, 100.0).state) == ("w1", "")
    activity.learn([summary(workers="1/4", pending="3", in_flight="2", invocations="7", outcome_ok="5")], 101.0)
    assert not activity.unknown
    row = only(activity, 101.0)
    assert (row.name, row.state, row.workers, row.max_workers, row.pending, row.in_flight) == (
        "greet", "running", 1, 4, 3, 2,
    )  # fmt: skip
    assert (row.invocations, row.failed) == (7, 2)
    activity.observe(event("w2"), 102.0)
    activity.learn([], 102.5)
    assert [row.id for row in activity.rows(102.5)] == ["w2"], "what was just heard of may be newer than the list"
    activity.learn([], 130.0)
    assert activity.rows(130.0) == []


def test_a_function_that_stopped_is_shown_until_the_next_list() -> None:
    activity = Activity()
    activity.named("w1", "greet", "acme", 100.0)
    stopped = WorkloadStoppedEvent(id="w1", namespace="acme", workload_type="python")
    activity.stopped(stopped, 101.0)
    assert (only(activity, 101.0).name, only(activity, 101.0).state) == ("greet", "stopped")
    failure = WorkloadFailure(code="503", message="its nexlet was shut down")
    activity.stopped(stopped.model_copy(update={"error": failure}), 101.0)
    assert (only(activity, 101.0).state, only(activity, 101.0).last_error) == ("error", "its nexlet was shut down")
    activity.learn([], 102.0)
    assert activity.rows(102.0) == []


def test_the_nexlets_own_count_goes_before_what_was_not_heard() -> None:
    activity = Activity()
    activity.learn([summary(invocations="100")], 100.0)
    for _ in range(10):  # an operator has events published for failures alone
        activity.observe(event(outcome="error"), 101.0)
    activity.learn([summary(invocations="500")], 102.0)
    assert only(activity, 102.0).rate == pytest.approx(200.0)
    activity.learn([summary(invocations="500")], 104.0)
    assert only(activity, 104.0).rate == pytest.approx(10 / 4)  # all that was heard, in the time that it is watched
    for _ in range(40):
        activity.observe(event(), 105.0)
    activity.learn([summary(invocations="541")], 106.0)  # one is still on its way
    assert only(activity, 106.0).rate == pytest.approx(50 / 6)
    activity.learn([summary(invocations="3")], 108.0)  # the nexlet was started again
    assert only(activity, 108.0).rate == pytest.approx(50 / 8)


def test_what_is_kept_has_a_bound() -> None:
    activity = Activity()
    for number in range(3 * KEPT_RUNS):
        activity.observe(event(), 100.0 + number / 10)
    function = activity._functions["w1"]
    assert (len(function.runs), len(function.seconds)) == (KEPT_RUNS, 60)
    for number in range(KEPT_FUNCTIONS + 10):
        activity.observe(event(f"other{number}"), 500.0)
    assert len(activity.rows(500.0)) == KEPT_FUNCTIONS
    assert "w1" not in {row.id for row in activity.rows(500.0)}


def test_rows_are_by_namespace_and_name_and_have_only_what_is_known() -> None:
    activity = Activity()
    for workload_id, name, namespace in (("w3", "b", "acme"), ("w2", "a", "zeta"), ("w1", "b", "acme")):
        activity.named(workload_id, name, namespace, 1.0)
    assert [row.id for row in activity.rows(1.0)] == ["w1", "w3", "w2"]
    assert activity.rows(1.0)[0].fields() == {
        "id": "w1", "name": "b", "namespace": "acme", "state": "running", "rate": 0.0, "errors": 0,
    }  # fmt: skip
    activity.forget("w1")
    assert [row.id for row in activity.rows(1.0)] == ["w3", "w2"]


def test_the_table_reads_and_steers_no_terminal() -> None:
    activity = Activity()
    activity.learn([summary(name="greet\x1b[2J", workers="1/4", pending="3", in_flight="2")], 90.0)
    for milliseconds in (0.26, 250.0, 12_000.0):
        activity.observe(event(duration=milliseconds), 100.0)
    activity.observe(event(duration=5000.0, outcome="timeout", error="took longer\nthan " + "x" * 80), 100.0)
    console = Console(file=io.StringIO(), width=200)
    console.print(table(activity.rows(100.5), namespaces=True))
    head, line = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split("  ")[0] == "NAMESPACE"
    assert " ".join(head.split()) == "NAMESPACE NAME ID STATE RATE/S P50 P99 ERRORS IN FLIGHT WORKERS LAST"
    assert " ".join(line.split()) == (
        "acme greet\ufffd[2J w1 running 0.4 250 ms 12 s 1 2+3 1/4 timeout now: took longer"
    )
    short = table(activity.rows(100.5), ids=False)
    assert [str(column.header) for column in short.columns][:2] == ["NAME", "STATE"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "ok now"), (59.0, "ok 59 s ago"), (3599.0, "ok 59 min ago"), (7300.0, "ok 2 h ago")]
)
def test_how_long_ago_it_was(seconds: float, text: str) -> None:
    activity = Activity()
    activity.observe(event(), 100.0)
    assert cells(only(activity, 100.0 + seconds))["LAST"][0] == text
