"""It listens, and never answers."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_it_writes_down_what_it_saw_and_answers_nothing(function):
    result = function.invoke(data=b"\x00" * 10, subject="payments.card.refused", reply="")
    (line,) = result.logs
    seen = line.json()
    assert (seen["subject"], seen["what"], seen["bytes"], seen["wants_reply"]) == (
        "payments.card.refused",
        "card.refused",
        10,
        False,
    )
    assert result.data == b""
