"""What a recording must not keep."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.recording import Masks
from nexlet_functions.recording.fields import Fields

SECRET = 's3cr"et/ü+Ж='


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "x-auth-token", "X_ACCESS_TOKEN",
        "X-Amz-Security-Token", "Session", "X-Auth",
    ],
)  # fmt: skip
def test_headers_that_are_secret_by_their_name(name: str) -> None:
    assert Masks().headers({name: "v", "X-Trace": "t"}, "headers") == (
        {name: "***", "X-Trace": "t"},
        [f"headers.{name}"],
    )


@pytest.mark.parametrize(
    "name", ["author", "X-Token-Count", "tokens", "Authority", "passworded", "Content-Type", "key"]
)
def test_names_that_only_look_like_it(name: str) -> None:
    assert Masks().headers({name: "v"}, "headers") == ({name: "v"}, [])


def test_json_is_masked_in_place_and_keeps_its_shape() -> None:
    value = {
        "user": {"password": "p", "name": "Ada"},
        "accessToken": 17,
        "items": [{"card": {"no": "4111", "ok": True, "x": None}}, {"card": "4112", "sku": "A"}],
    }
    kept, masked = Masks(["items.card"]).json(value, "json")
    assert kept == {
        "user": {"password": "***", "name": "Ada"},
        "accessToken": 0,
        "items": [{"card": {"no": "***", "ok": False, "x": None}}, {"card": "***", "sku": "A"}],
    }
    assert masked == [
        "json.user.password", "json.accessToken", "json.items.0.card.no", "json.items.0.card.ok", "json.items.1.card",
    ]  # fmt: skip
    assert value["accessToken"] == 17, "what is masked is a copy"


@pytest.mark.parametrize(
    ("field", "masked"),
    [
        ("zip", ["json.a.zip", "json.b.0.zip", "json.b.1.zip", "json.zip"]),
        ("a.zip", ["json.a.zip"]),
        ("*.zip", ["json.a.zip", "json.b.0.zip", "json.b.1.zip"]),
        ("b.1.zip", ["json.b.1.zip"]),
        ("b.*.zip", ["json.b.0.zip", "json.b.1.zip"]),
        ("a.*", ["json.a.zip"]),
        ("b.0", ["json.b.0.zip"]),
        ("c.zip", []),
    ],
)
def test_fields_that_somebody_named(field: str, masked: list[str]) -> None:
    value = {"a": {"zip": "1"}, "b": [{"zip": "2"}, {"zip": "3"}], "zip": "4"}
    assert Masks([field]).json(value, "json")[1] == masked
    without = json.dumps(Fields([field]).without(value))
    assert [number for number in "1234" if f'"{number}"' not in without] == [
        {"json.a.zip": "1", "json.b.0.zip": "2", "json.b.1.zip": "3", "json.zip": "4"}[place] for place in masked
    ]


@pytest.mark.parametrize("field", ["", "a..b", ".a", "a."])
def test_what_is_no_field_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="is no field"):
        Masks([field])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"users:" + SECRET.encode() + b"!").decode(),
    ],
)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    masks = Masks(secrets=[SECRET])
    kept = masks.text(f"before {form} after")
    assert "***" in kept
    assert kept.startswith("before ")
    assert kept.endswith(" after")
    assert form not in kept
    assert masks.data(b"\xff" + form.encode()) == b"\xff" + masks.text(form).encode()
    assert masks.json({"a": [form]}, "json") == ({"a": [masks.text(form)]}, ["json.a.0"])
    assert masks.json({form: 1}, "json")[0] == {masks.text(form): 1}


def test_short_secrets_are_masked_where_they_are_all_there_is() -> None:
    masks = Masks(secrets=["42", ""])
    assert masks.json({"a": 42, "b": "42", "c": "1427", "d": 427}, "json") == (
        {"a": 0, "b": "***", "c": "1427", "d": 427}, ["json.a", "json.b"],
    )  # fmt: skip


def test_each_line_of_a_long_secret_is_one() -> None:
    key = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0B\n-----END KEY-----"
    kept = Masks(secrets=[key]).text("key: MIIBVgIBADANBgkqhkiG9w0B")
    assert kept == "key: ***"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.text(min_size=4, max_size=20), st.text(max_size=5), st.text(max_size=5))
def test_no_text_keeps_a_secret(value: Any, secret: str, before: str, after: str) -> None:
    masks = Masks(secrets=[secret])
    kept, masked = masks.json({"value": value, "own": f"{before}{secret}{after}"}, "json")
    assert masked
    for each in texts(kept):
        assert secret not in each.replace("***", "\0"), each


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, each in value.items() for text in [name, *texts(each)]]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []
