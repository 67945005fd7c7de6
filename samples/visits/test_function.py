"""It counts, each page for itself, and no visit is lost."""

import pytest


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_each_page_has_its_count(function):
    before = function.invoke(subject="visits.about").json()["visits"]
    assert function.invoke(subject="visits.about").json() == {"page": "about", "visits": before + 1}
    assert function.kv("visits")["about"] == str(before + 1).encode()


@pytest.mark.nexfn(kv={"visits": {"old": 41}})
def test_it_goes_on_from_what_is_there(function):
    assert function.invoke(subject="visits.old").json()["visits"] == 42


@pytest.mark.nexfn(kv={"visits": None})
def test_without_the_bucket_it_says_which_is_missing(function):
    assert "there is no bucket 'visits'" in function.invoke(subject="visits.home").error
