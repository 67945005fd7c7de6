"""When a schedule is due: each time table against the calendar, and through the nights on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_models.cron import Cadence, Cron, Every, from_moment, moment_of, parse_cron, time_zone
from nexlet_models.errors import InvalidSchedule, InvalidTimeZone

BERLIN = ZoneInfo("Europe/Berlin")
EXPRESSIONS = (
    "* * * * *", "*/5 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * *", "0 */2 * * *", "0 0 1 * *",
    "0 12 * * MON-FRI",
    "59 23 31 12 *", "0 3 L * *", "0 0 29 2 *", "*/7 2 * * SUN",
)  # fmt: skip


def dues(cadence: Cadence, begin: datetime, count: int) -> list[str]:
    """The next ones, in the zone of the schedule."""
    moment, found = moment_of(begin), []
    for _ in range(count):
        moment = cadence.after(moment)
        found.append(from_moment(moment, cadence.zone).isoformat(timespec="minutes"))
    return found


def test_an_hour_that_is_left_out() -> None:
    """On 2026-03-29 the clocks in Berlin go from 2:00 to 3:00."""
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    fixed = Cron("30 2 * * *", BERLIN)
    assert dues(fixed, before, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    assert fixed.last(moment_of(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))) == moment_of(
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    )
    always = Cron("*/30 * * * *", BERLIN)
    assert dues(always, datetime(2026, 3, 29, 0, 15, tzinfo=UTC), 3) == [
        "2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00",
    ]  # fmt: skip


def test_an_hour_that_comes_twice() -> None:
    """On 2026-10-25 the clocks in Berlin go from 3:00 back to 2:00."""
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    fixed = Cron("30 2 * * *", BERLIN)
    assert dues(fixed, before, 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    # Asked within the second of the two hours, it is over all the same.
    again = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert dues(fixed, again, 1) == ["2026-10-26T02:30+01:00"]
    assert from_moment(fixed.last(moment_of(again)), BERLIN).isoformat() == "2026-10-25T02:30:00+02:00"
    always = Cron("*/30 * * * *", BERLIN)
    assert dues(always, datetime(2026, 10, 24, 23, 45, tzinfo=UTC), 4) == [
        "2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00",
    ]  # fmt: skip


def test_an_interval_is_the_same_everywhere() -> None:
    every = Every(30.0)
    begin = datetime(2026, 1, 1, 0, 0, 7, 5, tzinfo=UTC)
    assert from_moment(every.after(moment_of(begin))) == datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert from_moment(every.last(moment_of(begin))) == datetime(2026, 1, 1, tzinfo=UTC)


moments = st.integers(moment_of(datetime(2020, 1, 1, tzinfo=UTC)), moment_of(datetime(2040, 1, 1, tzinfo=UTC)))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]).map(
    time_zone
)
cadences = st.one_of(
    st.builds(Cron, st.sampled_from(EXPRESSIONS).map(parse_cron), zones), st.builds(Every, st.floats(1.0, 1e6))
)


@given(cadences, moments)
def test_after_and_last_are_one_row_of_times(cadence: Cadence, moment: int) -> None:
    after, last = cadence.after(moment), cadence.last(moment)
    assert last <= moment < after
    assert cadence.after(last) == after
    assert cadence.last(after) == after
    assert cadence.last(after - 1) == last


def test_the_nights_of_changes_in_full() -> None:
    """Every half hour of both nights: no time is found twice, and none is found that was not due before."""
    for expression in EXPRESSIONS:
        for day in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
            cadence = Cron(parse_cron(expression), BERLIN)
            found = [cadence.last(moment_of(day + timedelta(minutes=minutes))) for minutes in range(0, 480, 5)]
            assert all(earlier <= later for earlier, later in pairwise(found)), expression
            row = [found[0]]
            while row[-1] < found[-1]:
                row.append(cadence.after(row[-1]))
            assert set(found) <= set(row), expression


def test_what_is_rare() -> None:
    assert dues(Cron("0 0 * 2 MON#5"), datetime(2026, 1, 1, tzinfo=UTC), 1) == ["2044-02-29T00:00+00:00"]


@pytest.mark.parametrize(
    ("text", "read"),
    [(" */5  * * * * ", "*/5 * * * *"), ("0 9 * * mon-fri", "0 9 * * MON-FRI"), ("@Daily", "0 0 * * *")],
)
def test_one_spelling(text: str, read: str) -> None:
    assert parse_cron(text) == read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 fields"), ("* * * *", "4 fields"), ("* * * * * *", "6 fields"), ("@midday", "@midnight"),
        ("60 * * * *", "minute"), ("* 24 * * *", "hour"), ("* * 0 * *", "day of month"), ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("*/0 * * * *", "minute"), ("0 0 31 2 *", "day of month"), ("5-1 * * * *", "minute"),
        ("0 0 31 2,4 *", "day of month"),
    ],
)  # fmt: skip
def test_what_is_no_time_table(text: str, said: str) -> None:
    with pytest.raises(InvalidSchedule, match=said.replace("@", ".")):
        parse_cron(text)


@given(st.text(st.characters(codec="utf-8"), max_size=20) | st.text("0123456789*/-,L#W ", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = parse_cron(text)
    except InvalidSchedule as error:
        said = error.reason, error.advice
        read = "* * * * *"
    else:
        said = ("read", "so")
    assert all(said)
    assert parse_cron(read) == read


@pytest.mark.parametrize("name", ["Europe", "../etc/passwd", "/etc/localtime", "Mars/Base", "", "Europe/Berlin\0"])
def test_what_is_no_time_zone(name: str) -> None:
    with pytest.raises(InvalidTimeZone):
        time_zone(name)
