"""When a pool grows and shrinks: the rules alone, on numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.scaling import BURNS, SURPLUS, more, surplus, takes_ns, wait_ns

MS = 1_000_000
S = 1_000 * MS

AT_EASE: dict[str, Any] = {
    "wait": 40 * MS, "target": 5 * MS, "start": 3 * MS, "lasted": 3 * MS,
    "workers": 1, "room": 7, "share": 0.01, "processors": 2,
}  # fmt: skip
"""One worker of a function that waits for others, with a queue before it: there may be more."""


def asked(**changes: Any) -> int:
    return more(**(AT_EASE | changes))


# --- how long the last in line waits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "runs", "expected"),
    [
        (0, [5 * MS], 0),
        (-3, [5 * MS, 5 * MS], 0),
        (1, [5 * MS], 5 * MS),
        (8, [5 * MS], 40 * MS),
        (8, [5 * MS, 5 * MS], 20 * MS),
        (512, [4_000], 2_048_000),  # an echo with 512 in flight
        (9, [1 * MS, 1 * MS, 1 * S], int(4.4977 * MS)),  # one that hangs is as good as none
        (8, [], 0),
        (2, [0.0], 2),  # nothing takes no time at all
    ],
)
def test_the_last_in_line_waits_for_those_before_it(waiting: int, runs: list[float], expected: int) -> None:
    assert wait_ns(waiting, runs) == pytest.approx(expected, rel=0.001)


runs = st.lists(st.floats(0, 1e10), min_size=1, max_size=32)


@given(waiting=st.integers(0, 100_000), runs=runs, another=st.floats(0, 1e10))
def test_another_worker_makes_no_wait_longer(waiting: int, runs: list[float], another: float) -> None:
    assert 0 <= wait_ns(waiting, [*runs, another]) <= wait_ns(waiting, runs)


@given(waiting=st.integers(0, 100_000), runs=runs)
def test_one_more_in_line_makes_no_wait_shorter(waiting: int, runs: list[float]) -> None:
    assert wait_ns(waiting, runs) <= wait_ns(waiting + 1, runs)


# --- how long a call takes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "ran", "used", "waited", "expected"),
    [
        (0, 0, 5 * MS, 0, 0.0),
        (1, 5 * MS, 0, 0, 5 * MS),  # it waits for others
        (10, 50 * MS, 1 * MS, 0, 5 * MS),
        (10, 50 * MS, 50 * MS, 0, 5 * MS),  # it computes
        (1000, 2 * MS, 8 * MS, 0, 8_000),  # most of the work is around the call
        (10, 100 * MS, 50 * MS, 50 * MS, 5 * MS),  # something else has its processor for half of the time
        (10, 100 * MS, 1 * MS, 49 * MS, 5.1 * MS),  # it waits for others, and then for a processor
        (10, 20 * MS, 20 * MS, 90 * MS, 2 * MS),  # what it waits for between calls is no call's
    ],
)
def test_a_call_takes_no_time_in_which_something_else_has_the_processor(
    ended: int, ran: int, used: int, waited: int, expected: float
) -> None:
    assert takes_ns(ended, ran, used, waited) == expected


# --- growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # For the time of waiting, and not for the number of those that wait.
        ({"wait": 5 * MS}, 0),
        ({"wait": 5 * MS + 1}, 1),
        ({"wait": 50 * MS, "target": 60 * MS}, 0),
        # As many as it takes until the wait is short enough, but twice as many as there are at most.
        ({"workers": 4, "room": 4, "wait": 6 * MS}, 1),
        ({"workers": 4, "room": 4, "wait": 7 * MS}, 2),
        ({"workers": 4, "room": 4, "wait": 300 * MS}, 4),
        ({"workers": 4, "room": 2, "wait": 300 * MS}, 2),
        ({"workers": 4, "room": 0, "wait": 300 * MS}, 0),
        ({"target": 0}, 1),
        # A burst that is over before another worker is ready, and one that was believed to be so for long enough.
        ({"start": 40 * MS, "lasted": 0}, 0),
        ({"start": 40 * MS, "lasted": 39 * MS}, 0),
        ({"start": 40 * MS, "lasted": 40 * MS}, 1),
        ({"start": 39 * MS, "lasted": 0}, 1),
        # Of one that computes there are two for each processor.
        ({"share": 1.0}, 1),
        ({"share": 1.0, "processors": 0.7}, 0),
        ({"share": 1.0, "processors": 0.8}, 1),
        ({"share": 1.0, "workers": 3, "room": 6}, 1),
        ({"share": 1.0, "workers": 4, "room": 6}, 0),
        ({"share": 1.0, "workers": 5, "room": 6}, 0),
        ({"share": 1.0, "processors": 4, "workers": 4, "room": 4}, 4),
        ({"share": 1.0, "processors": 3, "workers": 4, "room": 4}, 2),
        ({"share": BURNS, "workers": 8, "room": 4}, 0),
        ({"share": BURNS, "workers": 7, "room": 4}, 1),
        # One that waits for others is not held back.
        ({"share": 0.4, "processors": 1, "workers": 4, "room": 4}, 4),
    ],
)
def test_more_workers(changes: dict[str, Any], expected: int) -> None:
    assert asked(**changes) == expected


nanoseconds = st.integers(0, 100 * S)
situations = st.fixed_dictionaries(
    {
        "wait": nanoseconds,
        "target": nanoseconds,
        "start": nanoseconds,
        "lasted": nanoseconds,
        "workers": st.integers(1, 64),
        "room": st.integers(0, 64),
        "share": st.floats(0, 1),
        "processors": st.floats(0, 64),
    }
)


@given(situations)
def test_it_at_most_doubles_and_stays_within_its_room(situation: dict[str, Any]) -> None:
    count = more(**situation)
    assert 0 <= count <= min(situation["room"], situation["workers"])
    if situation["wait"] <= situation["target"]:
        assert count == 0


@given(situations)
def test_who_grew_enough_grows_no_further(situation: dict[str, Any]) -> None:
    """No flapping: after the workers that it asks for, the same load asks for none, where it got all it wanted."""
    count = more(**situation)
    workers = situation["workers"]
    if count == 0 or count == min(workers, situation["room"]):
        return
    grown = situation | {"workers": workers + count, "room": situation["room"] - count}
    grown["wait"] = situation["wait"] * workers // (workers + count)
    assert more(**grown) == 0


@given(situations, nanoseconds)
def test_a_longer_wait_asks_for_no_fewer(situation: dict[str, Any], longer: int) -> None:
    assert more(**situation) <= more(**(situation | {"wait": situation["wait"] + longer}))


@given(situations, st.floats(0, 64))
def test_more_processors_ask_for_no_fewer(situation: dict[str, Any], another: float) -> None:
    assert more(**situation) <= more(**(situation | {"processors": situation["processors"] + another}))


# --- shrinking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "workers", "least", "stay", "expected"),
    [
        ([], 2, 0, 600.0, (0, 0)),
        # The last one stays for long.
        ([600 * S], 1, 0, 600.0, (1, 0)),
        ([599 * S], 1, 0, 600.0, (0, 1 * S)),
        ([600 * S], 1, 1, 600.0, (0, 0)),
        ([0], 1, 0, 0.0, (1, 0)),
        # Those of a rush do not: longest idle first, and busy ones are none of them.
        ([70 * S, 61 * S, 60 * S, 59 * S], 4, 0, 600.0, (3, 541 * S)),
        ([70 * S, 50 * S], 4, 0, 600.0, (1, 10 * S)),
        ([70 * S, 70 * S, 70 * S], 3, 2, 600.0, (1, 0)),
        ([70 * S, 70 * S, 70 * S], 3, 3, 600.0, (0, 0)),
        # What stays shorter than they would goes when it says.
        ([10 * S, 9 * S], 2, 0, 10.0, (1, 1 * S)),
    ],
)
def test_idle_workers(idle: list[int], workers: int, least: int, stay: float, expected: tuple[int, int]) -> None:
    assert surplus(idle, workers, least, stay) == expected


@given(
    idle=st.lists(st.integers(0, 2000 * S), max_size=16).map(lambda times: sorted(times, reverse=True)),
    busy=st.integers(0, 16),
    least=st.integers(0, 20),
    stay=st.floats(0, 1000),
)
def test_none_goes_that_is_to_be_kept_and_the_next_look_has_one_that_goes(
    idle: list[int], busy: int, least: int, stay: float
) -> None:
    workers = len(idle) + busy
    gone, due = surplus(idle, workers, least, stay)
    assert 0 <= gone <= len(idle)
    assert workers - gone >= min(workers, least)
    assert all(idle_ns >= int(min(stay, SURPLUS) * 1e9) for idle_ns in idle[:gone])
    if due:
        rest = [idle_ns + due for idle_ns in idle[gone:]]
        assert surplus(rest, workers - gone, least, stay)[0] >= 1
    elif gone < len(idle):
        assert workers - gone <= least, "those that are left are kept"
