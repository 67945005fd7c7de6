"""What it publishes, and where."""

ORDER = {"id": "A-17", "lines": [{"price": "9.90", "qty": 2}]}


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_a_receipt_goes_out(function):
    (sent,) = function.invoke(json=ORDER).published
    assert sent.subject == "receipts.issued"
    assert sent.json() == {"order": "A-17", "total": "19.80"}
    assert sent.headers["Content-Type"] == "application/json"


def test_what_is_refused_leads_to_no_receipt(function):
    assert function.invoke(json={"lines": []}).published == ()
