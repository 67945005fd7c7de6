"""It closes the day before the one on which it was due, and any other by hand."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def digest():
    with load_function(HERE) as function:
        yield function


def at(digest, due):
    """A run by schedule, as the nexlet begins it."""
    return digest.invoke(subject="$SCHEDULE.nightly", headers={"Nex-Scheduled-Time": due}, reply="")


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(digest, event):
    assert digest.invoke(event).differences(event) == []


@pytest.mark.parametrize(
    ("due", "day"),
    [("2026-03-30T00:05:00+02:00", "2026-03-29"), ("2026-01-01T00:05:00+01:00", "2025-12-31")],
)
def test_the_day_is_that_of_the_schedules_time_zone(digest, due, day):
    result = at(digest, due)
    assert result.json()["day"] == day
    (line,) = result.logs
    assert line.json()["message"] == "day closed"


@pytest.mark.parametrize("asked", [{}, {"day": "tomorrow"}, {"day": 7}, []])
def test_what_is_no_day_is_refused(digest, asked):
    result = digest.invoke(json=asked, subject="digest.of")
    assert (result.code, result.outcome) == (422, "rejected_by_function")
