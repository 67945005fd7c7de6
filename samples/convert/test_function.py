"""Rates that are there, that are not, and that nobody knows; who answers HTTP is said by each test."""

from pathlib import Path

import pytest

from nexlet_functions.authoring import TimedOut, Unavailable
from nexlet_functions.testing import HttpReply, load_function, sample_events

HERE = Path(__file__).parent
RATES = "https://rates.example.com/latest"


def converting(answer):
    return load_function(HERE, http={RATES: answer})


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(event):
    with load_function(HERE) as convert:
        assert convert.invoke(event).differences(event) == []


def test_the_rate_of_the_day_is_asked_for_once():
    with converting({"date": "2026-11-24", "rates": {"USD": 1.1}}) as convert:
        first, second = (convert.invoke(json={"euros": "10", "to": "USD"}) for _ in range(2))
    assert first.json() == {"amount": "11.00", "currency": "USD", "rate_of": "2026-11-24"}
    assert [(each.method, each.url) for each in first.called] == [("GET", f"{RATES}?base=EUR&symbols=USD")]
    assert (second.json(), second.called) == (first.json(), ())


@pytest.mark.parametrize("answer", [Unavailable("no network"), TimedOut("too slow"), HttpReply(503)], ids=str)
def test_without_it_an_older_one_does(answer):
    with converting(answer) as convert:
        result = convert.invoke(json={"euros": "10", "to": "GBP"})
        assert result.json() == {"amount": "8.50", "currency": "GBP", "rate_of": "an older day"}
        assert "no rates to be had" in result.logs[0].text
        assert convert.invoke(json={"euros": "10", "to": "CHF"}).code == 503


def test_a_currency_that_nobody_knows_is_refused():
    with converting(HttpReply(404)) as convert:
        result = convert.invoke(json={"euros": "10", "to": "XXX"})
    assert (result.outcome, result.code, result.error) == (
        "rejected_by_function",
        422,
        "to: nobody knows a currency XXX",
    )
