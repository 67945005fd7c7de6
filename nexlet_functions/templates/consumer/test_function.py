"""The function in a worker as on a node. The fixtures come with nexlet-functions; `sample_event` is each of events/."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_an_order_is_logged_and_counted(function):
    result = function.invoke(json={"id": "A-17"}, reply="")
    assert result.data == b""
    assert (result.logs[0].json()["message"], result.logs[0].json()["id"]) == ("order seen", "A-17")
    assert result.metrics == ({"name": "orders_seen", "kind": "counter", "value": 1},)
