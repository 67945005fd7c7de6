"""The function in a worker as on a node. The fixtures come with nexlet-functions; `sample_event` is each of events/."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_the_rest_of_the_subject_is_the_path(function):
    result = function.invoke(data="one two three", subject="@NAME@.count.a.b.c")
    assert result.json() == {"path": "a.b.c", "words": 3}
