"""The signature check, with a key that only the test knows."""

import pytest

# What the sample events are signed with.
KEY = "for-development-only"

pytestmark = pytest.mark.nexfn(secrets={"WEBHOOK_SIGNING_KEY": KEY})


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.parametrize("missing", ["X-Timestamp", "X-Signature"])
def test_what_is_not_signed_is_refused(function, missing):
    headers = {"X-Timestamp": "1", "X-Signature": "2"}
    del headers[missing]
    result = function.invoke(json={}, subject="webhooks.shop", headers=headers)
    assert (result.code, result.error) == (401, "X-Timestamp and X-Signature are expected")


def test_a_forged_signature_is_logged_without_the_key(function):
    headers = {"X-Timestamp": "1", "X-Signature": "0" * 64}
    result = function.invoke(json={}, subject="webhooks.shop", headers=headers)
    (line,) = result.logs
    assert (line.stream, line.json()["message"], line.json()["source"]) == ("stderr", "bad signature", "shop")
    assert KEY not in line.text
