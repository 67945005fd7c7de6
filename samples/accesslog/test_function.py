"""The figures and lines that an entry leaves."""

import pytest


def entry(**changed):
    return {"method": "GET", "path": "/", "status": 200, "ms": 3.5, "bytes": 1024, **changed}


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_what_is_measured(function):
    result = function.invoke(json=entry(), subject="logs.access.shop", reply="")
    assert [(each["name"], each["kind"], each["value"], each["labels"]) for each in result.metrics] == [
        ("requests", "counter", 1, {"site": "shop", "status": "2xx"}),
        ("bytes_sent", "counter", 1024, {"site": "shop"}),
        ("request_ms", "histogram", 3.5, {"site": "shop"}),
    ]


@pytest.mark.parametrize(
    ("changed", "stream", "level", "message"),
    [
        ({"status": 503}, "stderr", "error", "request failed"),
        ({"ms": 500.1}, "stderr", "warning", "request was slow"),
        ({}, "stdout", "debug", "request"),
    ],
)
def test_what_is_logged(function, changed, stream, level, message):
    (line,) = function.invoke(json=entry(**changed), subject="logs.access.shop").logs
    said = line.json()
    assert (line.stream, said["level"], said["message"], said["site"]) == (stream, level, message, "shop")


@pytest.mark.nexfn(environment={"SLOW_MS": "1"})
def test_what_is_slow_is_a_setting(function):
    (line,) = function.invoke(json=entry(), subject="logs.access.shop").logs
    assert line.json()["message"] == "request was slow"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [([], "an entry is an object"), ({}, "of another kind: method, path,"), (entry(status="200"), "kind: status")],
)
def test_an_entry_that_is_none_is_refused_and_leaves_no_figure(function, wrong, error):
    result = function.invoke(json=wrong, subject="logs.access.shop")
    assert (result.code, result.metrics) == (422, ())
    assert error in result.error
