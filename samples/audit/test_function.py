"""It listens, and never answers."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def audit():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(audit, event):
    assert audit.invoke(event).differences(event) == []


def test_it_writes_down_what_it_saw_and_answers_nothing(audit):
    result = audit.invoke(data=b"\x00" * 10, subject="payments.card.refused", reply="")
    (line,) = result.logs
    seen = line.json()
    assert (seen["subject"], seen["what"], seen["bytes"], seen["wants_reply"]) == (
        "payments.card.refused",
        "card.refused",
        10,
        False,
    )
    assert result.data == b""
