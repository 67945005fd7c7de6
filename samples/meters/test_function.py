"""Many readings at a call: each has its own answer, and a site is written once for all of them."""

import json

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.nexfn(kv={"meters": {"farm": {"1": 10, "2": 20}}})
def test_a_batch_has_an_answer_for_each(function):
    said = [
        {"subject": "meters.farm.1", "json": {"kwh": 11}},
        {"subject": "meters.farm.2", "json": {"kwh": -1}},
        {"subject": "meters.farm.3", "json": {"kwh": 30.5}},
        {"subject": "meters.farm.4", "data": "no JSON"},
    ]
    results = function.invoke_batch(said)
    assert [result.code for result in results] == [200, 422, 200, 400]
    assert json.loads(function.kv("meters")["farm"]) == {"1": 11, "2": 20, "3": 30.5}


@pytest.mark.nexfn(nats=False)  # beside a server they come as they come, in one batch or in more
def test_a_site_is_written_once_for_all_its_readings(function):
    said = [{"subject": f"meters.dam.{number}", "json": {"kwh": number}} for number in range(64)]
    results = function.invoke_batch(said)
    assert len({result.json()["revision"] for result in results}) == 1
    assert len(json.loads(function.kv("meters")["dam"])) == 64


@pytest.mark.nexfn(kv={"meters": {"sick": "no JSON"}})
def test_a_site_that_fails_takes_no_other_with_it(function):
    said = [
        {"subject": "meters.sick.1", "json": {"kwh": 1}},
        {"subject": "meters.well.1", "json": {"kwh": 1}},
        {"subject": "meters.w%ll.1", "json": {"kwh": 1}},
    ]
    results = function.invoke_batch(said)
    assert [result.outcome for result in results] == ["error", "ok", "error"]
    assert "not JSON" in results[0].error
    assert "cannot be a key" in results[2].error
