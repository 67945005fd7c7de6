"""It closes the day before the one on which it was due, and any other by hand."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.parametrize(
    ("due", "day"),
    [("2026-03-30T00:05:00+02:00", "2026-03-29"), ("2026-01-01T00:05:00+01:00", "2025-12-31")],
)
def test_the_day_is_that_of_the_schedules_time_zone(function, due, day):
    result = function.invoke(scheduled_time=due)
    assert result.json()["day"] == day
    (line,) = result.logs
    assert line.json()["message"] == "day closed"


@pytest.mark.parametrize("asked", [{}, {"day": "tomorrow"}, {"day": 7}, []])
def test_what_is_no_day_is_refused(function, asked):
    result = function.invoke(json=asked, subject="digest.of")
    assert (result.code, result.outcome) == (422, "rejected_by_function")
