"""The signature check, with a key that only the test knows."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent
# What the sample events are signed with.
KEY = "for-development-only"


@pytest.fixture(scope="module")
def webhook():
    with load_function(HERE, secrets={"WEBHOOK_SIGNING_KEY": KEY}) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(webhook, event):
    assert webhook.invoke(event).differences(event) == []


@pytest.mark.parametrize("missing", ["X-Timestamp", "X-Signature"])
def test_what_is_not_signed_is_refused(webhook, missing):
    headers = {"X-Timestamp": "1", "X-Signature": "2"}
    del headers[missing]
    result = webhook.invoke(json={}, subject="webhooks.shop", headers=headers)
    assert (result.code, result.error) == (401, "X-Timestamp and X-Signature are expected")


def test_a_forged_signature_is_logged_without_the_key(webhook):
    headers = {"X-Timestamp": "1", "X-Signature": "0" * 64}
    result = webhook.invoke(json={}, subject="webhooks.shop", headers=headers)
    (line,) = result.logs
    assert (line.stream, line.json()["message"], line.json()["source"]) == ("stderr", "bad signature", "shop")
    assert KEY not in line.text
