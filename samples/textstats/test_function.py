"""Word counts, and what the subject tells."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_the_wildcards_say_whose_text_it_is(function):
    result = function.invoke(data="Ein Wort", subject="texts.de.a.b.c").json()
    assert (result["language"], result["document"], result["words"]) == ("de", "a/b/c", 2)


def test_words_have_letters_of_any_script(function):
    result = function.invoke(data="Größe naïve Ελλάδα 42 l'été", subject="texts.xx.y").json()
    assert result["words"] == 4


def test_bytes_that_are_no_text_are_refused(function):
    result = function.invoke(data=b"\xff\xfe", subject="texts.en.x")
    assert (result.outcome, result.code) == ("rejected_by_function", 400)
    assert "not UTF-8" in result.error
