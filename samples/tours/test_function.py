"""Tours that are finished, and one that its caller cannot wait for."""

import random

import pytest


def stops(count):
    points = random.Random(7)  # noqa: S311  # the same points each time
    return [[points.randint(0, 1000), points.randint(0, 1000)] for _ in range(count)]


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_every_stop_is_on_the_tour_once(function):
    planned = function.invoke(json={"stops": stops(60)}).json()
    assert planned["settled"]
    assert sorted(planned["tour"]) == list(range(60))


def test_a_caller_who_has_little_time_gets_the_best_so_far(function):
    result = function.invoke(json={"stops": stops(1500)}, headers={"Nex-Deadline-Ms": "1600"})
    planned = result.json()
    assert (result.outcome, planned["settled"]) == ("ok", False)
    assert sorted(planned["tour"]) == list(range(1500))


@pytest.mark.parametrize("wrong", [[], {}, {"stops": []}, {"stops": [[0, 0]]}, {"stops": "there and back"}])
def test_a_trip_without_stops_is_refused(function, wrong):
    assert function.invoke(json=wrong).error.startswith("stops: at least two points are expected")


@pytest.mark.parametrize("point", [None, 3, [1], [1, 2, 3], ["1", "2"]])
def test_a_stop_that_is_none_is_refused_with_its_number(function, point):
    assert function.invoke(json={"stops": [[0, 0], point]}).error.startswith("stops[1]: two numbers are expected")
