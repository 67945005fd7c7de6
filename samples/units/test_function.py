"""Conversions; the helper module beside the function comes along by itself."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (100, "C", "F", 212.0),
        (-40, "F", "C", -40.0),
        (0, "K", "C", -273.15),
        (1, "mi", "km", 1.609344),
        (2, "kg", "lb", 4.409245),
    ],
)
def test_conversions(function, value, source, target, expected):
    converted = function.invoke(json={"value": value, "from": source, "to": target}).json()
    assert converted["value"] == pytest.approx(expected)


@pytest.mark.parametrize("wanted", [{}, [], {"value": 1, "from": "m"}])
def test_a_request_that_is_none_is_refused(function, wanted):
    assert function.invoke(json=wanted).code == 400


def test_a_value_that_is_no_number_is_refused(function):
    assert function.invoke(json={"value": "5", "from": "m", "to": "km"}).error == "value: a number is expected"
