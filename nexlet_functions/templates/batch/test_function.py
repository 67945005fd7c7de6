"""The function in a worker as on a node. The fixtures come with nexlet-functions; `sample_event` is each of events/."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_each_record_has_its_own_answer(function):
    records = [{"qty": 2, "price": 5}, {"qty": 1}, {"qty": "x", "price": 1.5}, {"qty": 1, "price": 3}]
    results = function.invoke_batch([{"json": record} for record in records])
    assert [result.code for result in results] == [200, 422, 500, 200]
    assert results[-1].json() == {"total": 3}
