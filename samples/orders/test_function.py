"""Prices and refusals, in the worker that runs them in production."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


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
def test_an_order_that_makes_no_sense_is_refused_where_it_is_wrong(function, order, error):
    result = function.invoke(json=order)
    assert (result.outcome, result.code) == ("rejected_by_function", 422)
    assert error in result.error


def test_no_cent_is_lost(function):
    order = {"items": [{"qty": 1, "price": "0.10"}] * 3}
    assert function.invoke(json=order).json() == {"items": 3, "net": "0.30", "tax": "0.06", "total": "0.36"}


def test_what_was_priced_is_counted(function):
    result = function.invoke(json={"items": [{"qty": 1, "price": "1"}]})
    assert result.metrics == ({"name": "orders_priced", "kind": "counter", "value": 1},)
