"""Conversions; the helper module beside the function comes along by itself."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def units():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(units, event):
    assert units.invoke(event).differences(event) == []


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
def test_conversions(units, value, source, target, expected):
    assert units.invoke(json={"value": value, "from": source, "to": target}).json()["value"] == pytest.approx(expected)


@pytest.mark.parametrize("wanted", [{}, [], {"value": 1, "from": "m"}])
def test_a_request_that_is_none_is_refused(units, wanted):
    assert units.invoke(json=wanted).code == 400


def test_a_value_that_is_no_number_is_refused(units):
    assert units.invoke(json={"value": "5", "from": "m", "to": "km"}).error == "value: a number is expected"
