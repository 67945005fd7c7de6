"""The greeting, in the worker that runs it in production."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.nexfn(environment={"GREETING": "Moin"})
def test_the_greeting_is_a_setting(function):
    assert function.invoke(json={"name": "Ada"}).json() == {"greeting": "Moin, Ada!"}


def test_it_logs_whom_it_greets(function):
    (line,) = function.invoke(json={"name": "Ada"}).logs
    assert line.json()["message"] == "greeting"
    assert line.json()["name"] == "Ada"


def test_a_message_without_a_name_is_a_fault_with_the_line_it_happened_on(function):
    result = function.invoke(json={})
    assert (result.outcome, result.code, result.error) == ("error", 500, "KeyError: 'name'")
    assert 'name = event.json()["name"]' in result.traceback
