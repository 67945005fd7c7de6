"""Header blocks and publish commands: what is encoded reads back, and nothing from outside can add a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.natsio.protocol import (
    Publish,
    clean_header_value,
    decode_headers,
    encode_headers,
    encode_publish,
    parse_publishes,
)

names = st.text("abcXYZ019-_./", min_size=1, max_size=20)
values = st.text(max_size=60)
subjects = st.lists(st.text("abcXYZé_-", min_size=1, max_size=8), min_size=1, max_size=5).map(".".join)


@given(st.dictionaries(names, values, max_size=5))
def test_headers_read_back_cleaned(headers: dict[str, str]) -> None:
    assert decode_headers(encode_headers(headers)) == {k: clean_header_value(v) for k, v in headers.items()}


@given(values)
def test_a_value_never_ends_its_line(value: str) -> None:
    block = encode_headers({"error": value, "after": "1"})
    assert block.count(b"\r\n") == 4
    assert block.count(b"\n") == 4
    assert block.count(b"\r") == 4
    assert list(decode_headers(block)) == ["error", "after"]


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("a\r\nNats-Service-Error-Code: 200", "a Nats-Service-Error-Code: 200"),
        ("  both ends \x00 ", "both ends"),
        ("line\u2028separator", "line separator"),
        ("\ud800", "?"),
        ("größe", "größe"),
    ],
)
def test_clean_header_value(given_text: str, expected: str) -> None:
    assert clean_header_value(given_text) == expected


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä"])
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        encode_headers({name: "x"})


def test_no_headers_are_no_block() -> None:
    assert encode_headers({}) == b""


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0\r\nA:b\r\nA: c\r\nno colon\r\n\xff: x\r\n sp ace: y\r\n\r\n", {"A": "c"}),
        (b"", {}),
        (b"NATS/1.0", {}),
    ],
)
def test_decode_headers(block: bytes, expected: dict[str, str]) -> None:
    assert decode_headers(block) == expected


@given(st.binary(max_size=200))
def test_decode_headers_takes_anything(block: bytes) -> None:
    assert isinstance(decode_headers(block), dict)


messages = st.builds(
    Publish,
    subject=subjects,
    reply=st.one_of(st.just(""), subjects),
    headers=st.one_of(st.just(b""), st.dictionaries(names, values, min_size=1, max_size=3).map(encode_headers)),
    payload=st.binary(max_size=100),
)


@given(st.lists(messages, max_size=6))
def test_a_blob_reads_back_as_the_messages_it_was_made_of(published: list[Publish]) -> None:
    blob = b"".join(encode_publish(m.subject, m.payload, headers=m.headers, reply=m.reply) for m in published)
    assert list(parse_publishes(blob)) == published


@pytest.mark.parametrize(
    "blob",
    [
        b"PUB a 1",
        b"PUB a 1\r\nxx\r\n",
        b"PUB a\r\n\r\n",
        b"SUB a 1\r\n",
        b"HPUB a 9 3\r\nabc\r\n",
        b"PUB a -2\r\n\r\n",
        b"HPUB a 3\r\nabc\r\n",
    ],
)
def test_what_is_no_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError):
        list(parse_publishes(blob))
