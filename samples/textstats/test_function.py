"""Word counts, and what the subject tells."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def textstats():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(textstats, event):
    assert textstats.invoke(event).differences(event) == []


def test_the_wildcards_say_whose_text_it_is(textstats):
    result = textstats.invoke(data="Ein Wort", subject="texts.de.a.b.c").json()
    assert (result["language"], result["document"], result["words"]) == ("de", "a/b/c", 2)


def test_words_have_letters_of_any_script(textstats):
    result = textstats.invoke(data="Größe naïve Ελλάδα 42 l'été", subject="texts.xx.y").json()
    assert result["words"] == 4


def test_bytes_that_are_no_text_are_refused(textstats):
    result = textstats.invoke(data=b"\xff\xfe", subject="texts.en.x")
    assert (result.outcome, result.code) == ("rejected_by_function", 400)
    assert "not UTF-8" in result.error
