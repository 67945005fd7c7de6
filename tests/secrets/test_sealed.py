"""Sealed secrets: who can open one, for which name, and what of it can be seen."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.secrets.sealed import NotForUs, keys_of, seal, set_at, unseal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OURS, THEIRS = CurveKey.generate(), CurveKey.generate()
CANARY = "canary-51ec2e7"


def sealed(value: str = CANARY, *, to: tuple[CurveKey, ...] = (OURS,)) -> bytes:
    return seal("acme", "token", SecretStr(value), [key.public for key in to], now=NOW)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_what_was_sealed_is_what_is_opened(value: str) -> None:
    assert unseal(sealed(value), "acme", "token", OURS).get_secret_value() == value


def test_each_nexlet_that_it_is_sealed_to_opens_it_and_no_other() -> None:
    data = sealed(to=(OURS, THEIRS))
    assert keys_of(data) == (OURS.public, THEIRS.public)
    assert set_at(data) == "2026-01-01T00:00:00+00:00"
    for key in (OURS, THEIRS):
        assert unseal(data, "acme", "token", key).get_secret_value() == CANARY
    with pytest.raises(NotForUs, match="not sealed to this nexlet's key"):
        unseal(data, "acme", "token", CurveKey.generate())


@pytest.mark.parametrize(("namespace", "key"), [("other", "token"), ("acme", "other"), ("acme.token", "")])
def test_a_copy_under_another_name_is_of_no_use(namespace: str, key: str) -> None:
    with pytest.raises(NotForUs, match="sealed for another name"):
        unseal(sealed(), namespace, key, OURS)


def test_nothing_of_the_value_is_to_be_seen() -> None:
    data = sealed()
    assert CANARY.encode() not in data
    assert base64.b64encode(CANARY.encode()).rstrip(b"=")[:-1] not in data
    assert CANARY not in repr(unseal(data, "acme", "token", OURS))


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"[]", b"{}", b'{"sealed": {}}', b'{"sealed": [], "sealed_by": "X"}', b"\xff"]
)
def test_what_is_no_sealed_secret(data: bytes) -> None:
    with pytest.raises(NotForUs, match="set it"):
        unseal(data, "acme", "token", OURS)


@given(st.data())
def test_what_was_changed_is_refused(data: st.DataObject) -> None:
    said = json.loads(sealed())
    box = bytearray(base64.b64decode(said["sealed"][OURS.public]))
    at = data.draw(st.integers(0, len(box) - 1))
    box[at] ^= data.draw(st.integers(1, 255))
    said["sealed"][OURS.public] = base64.b64encode(box).decode()
    with pytest.raises(NotForUs) as refused:
        unseal(json.dumps(said).encode(), "acme", "token", OURS)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("box", [7, None, "", "%", "eGt2MQ=="])
def test_a_box_that_is_none_is_refused(box: object) -> None:
    said = json.loads(sealed()) | {"sealed": {OURS.public: box}}
    with pytest.raises(NotForUs):
        unseal(json.dumps(said).encode(), "acme", "token", OURS)
