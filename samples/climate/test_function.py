"""The warnings, and that a frame which could not be read does no harm."""

import pytest


def reading(celsius=21.5, *, battery_low=False):
    at = "2026-07-01T12:00:00+00:00"
    return {"site": "barn", "sensor": 4, "at": at, "celsius": celsius, "battery_low": battery_low}


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.parametrize(
    ("sent", "warnings"),
    [
        (reading(), []),
        (reading(0), ["frost"]),
        (reading(38), ["heat"]),
        (reading(battery_low=True), ["change the battery"]),
        (reading(-4.5, battery_low=True), ["frost", "change the battery"]),
    ],
)
def test_what_it_warns_of(function, sent, warnings):
    result = function.invoke(json=sent, subject="readings.barn", reply="")
    assert [line.json()["message"] for line in result.logs] == warnings
    assert all((line.stream, line.json()["sensor"]) == ("stderr", 4) for line in result.logs)


def test_a_frame_that_was_refused_is_counted(function):
    result = function.invoke(data=b"", subject="readings.barn", headers={"error": "the checksum is wrong"}, reply="")
    assert (result.outcome, result.logs[0].json()["reason"]) == ("ok", "the checksum is wrong")
    assert result.metrics == ({"name": "frames_refused", "kind": "counter", "value": 1, "labels": {"site": "barn"}},)
