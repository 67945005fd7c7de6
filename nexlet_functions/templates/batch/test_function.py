"""The function in a worker as on a node. The fixtures come with nexlet-functions; `sample_event` is each of events/."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_what_is_left_when_the_time_is_over_is_said(function):
    result = function.invoke(json=[{"qty": 1, "price": 1}], headers={"Nex-Deadline-Ms": "150"})
    assert result.json() == {"done": 0, "left": 1, "total": 0, "failed": []}
