"""The function in a worker as on a node. The fixtures come with nexlet-functions; `sample_event` is each of events/."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.nexfn(environment={"GREETING": "Moin"})
def test_the_greeting_is_a_setting(function):
    result = function.invoke(json={"name": "Ada"})
    assert result.json() == {"greeting": "Moin, Ada!"}
    assert result.logs[0].json()["message"] == "greeting"
