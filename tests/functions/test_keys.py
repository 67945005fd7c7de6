"""The curve key: texts and seals as Go's nkeys makes them, and a file nobody else can read."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from nexlet_functions.errors import KeyUnusable
from nexlet_functions.functions.keys import CannotOpen, CurveKey, public_key_problem

# Made with Go's nkeys 0.4.15: two curve keys, and what the first sealed to the second.
SENDER_SEED = SecretStr("SXAHETV4WLD6GUEKWSBAFKSS5IJDPSJEWCMRBUXHLR2XU4HS6767LB5UVQ")
SENDER = "XCXCDESHS2M3OXV2ZLY7SAJU67GTIWQ5UEVNSQW2OEOBHVRIWQNA4XCG"
RECIPIENT_SEED = SecretStr("SXABDD5LN72WJ34IOZXIDU7BPOVVYSJL4GAK5SWKXHNW3GIYAM5M5XJ7BE")
RECIPIENT = "XBIJAMLGOY3JHLADDDF7M6ABROAUOJGMMB4YLCGAGDFCPSNLK3PBYHCD"
SEALED = base64.b64decode(
    "eGt2MWdIi112CA4hJJkaBPoTeoOlGiEHNqLTREP7Q94ib8CF2Xokng68JnzPmyPEaUgqrLryn2AUDn/dD8sYAzq1n7nowuJIV4S8HiubNOKk"
)


def test_it_reads_what_go_wrote() -> None:
    sender, recipient = CurveKey.from_seed(SENDER_SEED), CurveKey.from_seed(RECIPIENT_SEED)
    assert (sender.public, recipient.public) == (SENDER, RECIPIENT)
    assert sender.seed() == SENDER_SEED
    assert json.loads(recipient.open(SEALED, SENDER)) == {"TOKEN": "s3cret", "GREETING": "hallo"}


@given(st.binary(max_size=2000))
def test_what_is_sealed_opens_for_the_recipient_alone(data: bytes) -> None:
    sender, recipient, other = CurveKey.generate(), CurveKey.generate(), CurveKey.generate()
    sealed = sender.seal(data, recipient.public)
    assert recipient.open(sealed, sender.public) == data
    with pytest.raises(CannotOpen, match="another key"):
        other.open(sealed, sender.public)
    with pytest.raises(CannotOpen, match="another sender"):
        recipient.open(sealed, other.public)


@given(st.binary(max_size=200), st.text(max_size=70))
def test_rubbish_is_refused_and_nothing_else_happens(sealed: bytes, sender: str) -> None:
    with pytest.raises(CannotOpen):
        CurveKey.generate().open(sealed, sender)
    with pytest.raises(CannotOpen):
        CurveKey.from_seed(RECIPIENT_SEED).open(b"xkv1" + sealed, SENDER)


@pytest.mark.parametrize("position", [0, 4, 30, -1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    changed = bytearray(SEALED)
    changed[position] ^= 1
    with pytest.raises(CannotOpen):
        CurveKey.from_seed(RECIPIENT_SEED).open(bytes(changed), SENDER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "checksum"),
        (SENDER[:-1] + "A", "checksum"),
        (SENDER.lower(), "base32"),
        ("NADBUO2SJGNJMM6KATKZJNFIWKPCYVLOB4UNJQNP7AR4NJCRD36XNYJU", "begins with X"),
        (SENDER_SEED.get_secret_value(), "begins with X"),
        ("Xä", "base32"),
    ],
)
def test_a_public_key_that_is_none_says_why(text: str, reason: str) -> None:
    problem = public_key_problem(text)
    assert problem is not None
    assert reason in problem


def test_a_public_key_that_is_one() -> None:
    assert public_key_problem(SENDER) is None


@pytest.mark.parametrize(
    "seed",
    [
        "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU",  # a user's
        "SXAHETV4WLD6GUEKWSBAFKSS5IJDPSJEWCMRBUXHLR2XU4HS6767LB5UVA",  # a wrong last character
        "rubbish",
        "",
    ],
)
def test_a_damaged_seed_is_refused_without_repeating_it(seed: str) -> None:
    with pytest.raises(KeyUnusable) as refused:
        CurveKey.from_seed(SecretStr(seed))
    assert "SX" in str(refused.value)
    assert not seed or seed not in str(refused.value)


def test_no_text_of_it_shows_the_seed() -> None:
    key = CurveKey.from_seed(SENDER_SEED)
    assert repr(key) == str(key) == f"CurveKey({SENDER})"
    assert SENDER_SEED.get_secret_value() not in repr(key.seed())


def test_the_file_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "xkey"
    first, made = CurveKey.load(path)
    assert made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["xkey"]
    second, made_again = CurveKey.load(path)
    assert not made_again
    assert second.public == first.public


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "xkey"
    CurveKey.load(path)
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        CurveKey.load(path)
    path.chmod(0o640)  # a mounted secret, readable by its group
    assert not CurveKey.load(path)[1]


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "xkey"
    path.write_text("SXNOTAKEY\n")
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match=str(path)):
        CurveKey.load(path)
    assert path.read_text() == "SXNOTAKEY\n"


def test_a_folder_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="--xkey-file"):
        CurveKey.load(tmp_path / "missing" / "xkey")
    assert not (tmp_path / "missing").exists()
