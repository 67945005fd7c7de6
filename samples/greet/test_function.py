"""The greeting, in the worker that runs it in production."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def greet():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(greet, event):
    assert greet.invoke(event).differences(event) == []


def test_the_greeting_is_a_setting():
    with load_function(HERE, environment={"GREETING": "Moin"}) as function:
        assert function.invoke(json={"name": "Ada"}).json() == {"greeting": "Moin, Ada!"}


def test_it_logs_whom_it_greets(greet):
    (line,) = greet.invoke(json={"name": "Ada"}).logs
    assert line.json()["message"] == "greeting"
    assert line.json()["name"] == "Ada"


def test_a_message_without_a_name_is_a_fault_with_the_line_it_happened_on(greet):
    result = greet.invoke(json={})
    assert (result.outcome, result.code, result.error) == ("error", 500, "KeyError: 'name'")
    assert 'name = event.json()["name"]' in result.traceback
