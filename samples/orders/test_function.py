"""Prices and refusals, in the worker that runs them in production."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def orders():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(orders, event):
    assert orders.invoke(event).differences(event) == []


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ([], "items: a list with at least one item is expected"),
        ({}, "items: a list with at least one item is expected"),
        ({"items": []}, "items: a list with at least one item is expected"),
        ({"items": ["book"]}, "items[0]: an object is expected"),
        ({"items": [{"qty": True, "price": "1"}]}, "items[0].qty: a whole number above 0 is expected"),
        ({"items": [{"qty": 1, "price": 9.9}]}, "items[0].price: a decimal number in quotes is expected"),
        ({"items": [{"qty": 1, "price": "1.2.3"}]}, "items[0].price: a decimal number in quotes is expected"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_where_it_is_wrong(orders, order, error):
    result = orders.invoke(json=order)
    assert (result.outcome, result.code) == ("rejected_by_function", 422)
    assert error in result.error


def test_no_cent_is_lost(orders):
    order = {"items": [{"qty": 1, "price": "0.10"}] * 3}
    assert orders.invoke(json=order).json() == {"items": 3, "net": "0.30", "tax": "0.06", "total": "0.36"}


def test_what_was_priced_is_counted(orders):
    result = orders.invoke(json={"items": [{"qty": 1, "price": "1"}]})
    assert result.metrics == ({"name": "orders_priced", "kind": "counter", "value": 1},)
