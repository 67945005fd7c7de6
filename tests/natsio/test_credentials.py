"""Credentials: which kind counts, what is read from where, and that nothing secret is ever shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys
import pytest
from pydantic import SecretStr

from nexlet_functions.natsio.credentials import DEFAULT_URL, Credentials
from nexlet_functions.natsio.errors import CredentialsInvalid
from nexlet_models.connection import NatsConnectionData

SEED = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
PUBLIC = nkeys.from_seed(bytearray(SEED.encode())).public_key.decode()


def jwt(nats: dict[str, Any]) -> str:
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, {"sub": PUBLIC, "nats": nats})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts), "sig"])


CREDS = f"""-----BEGIN NATS USER JWT-----
{jwt({})}
------END NATS USER JWT------

************************* IMPORTANT *************************
-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


def test_a_node_that_says_nothing_means_the_default_server() -> None:
    credentials = Credentials.from_connection_data(NatsConnectionData())
    assert credentials.servers == (DEFAULT_URL,)
    assert credentials.kind == "none"
    assert credentials.connect_options() == {}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"nats_user_jwt": jwt({}), "nats_user_seed": SEED, "nats_user_nkey": PUBLIC, "nats_user_name": "u"}, "jwt"),
        ({"nats_user_seed": SEED, "nats_user_nkey": PUBLIC, "nats_user_name": "u", "nats_user_password": "p"}, "nkey"),
        ({"nats_user_name": "u", "nats_user_password": "p", "nats_user_jwt": "no-seed"}, "user"),
        ({"nats_user_name": "u", "nats_user_seed": SEED}, "none"),
    ],
)
def test_what_counts_of_connection_data(fields: dict[str, str], kind: str) -> None:
    data = NatsConnectionData.from_json(json.dumps(fields))
    assert Credentials.from_connection_data(data).kind == kind


def test_connection_data_servers_may_hold_several() -> None:
    data = NatsConnectionData(nats_servers=("nats://a:1, nats://b:2", "c:3"))
    assert Credentials.from_connection_data(data).servers == ("nats://a:1", "nats://b:2", "c:3")


def test_equal_values_are_equal_credentials_whatever_they_are_called() -> None:
    one = Credentials(("nats://a:1",), user="u", password=SecretStr("p"), name="one")
    same = Credentials(("nats://a:1",), user="u", password=SecretStr("p"), name="two")
    other = Credentials(("nats://a:1",), user="u", password=SecretStr("q"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(("nats://me:hunter2@a:1",)),
        Credentials(("hunter2@a:1",)),
        Credentials(user="u", password=SecretStr("hunter2")),
        Credentials(token=SecretStr("hunter2")),
        Credentials(nkey_seed=SecretStr("hunter2")),
        Credentials(jwt=SecretStr("hunter2"), nkey_seed=SecretStr("hunter2")),
    ],
)
def test_nothing_secret_is_shown(credentials: Credentials) -> None:
    assert "hunter2" not in repr(credentials)
    assert "hunter2" not in str(credentials.addresses)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Credentials(user="u"), "a user needs a password"),
        (lambda: Credentials(password=SecretStr("x")), "a user needs a password"),
        (lambda: Credentials(jwt=SecretStr("x")), "a JWT needs the seed"),
        (lambda: Credentials(tls_cert=Path("c")), "a certificate needs its key"),
        (lambda: Credentials(token=SecretStr("t"), creds_file=Path("f")), "give one kind, not token and creds file"),
        (lambda: Credentials(("http://a",)), "begins with none of nats, tls, ws, wss"),
        (lambda: Credentials(("nats://",)), "names no host"),
        (lambda: Credentials(("nats://a:99999",)), "is not a URL"),
        (lambda: Credentials(("nats://a b:1",)), "names no host"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[], Credentials], text: str) -> None:
    with pytest.raises(CredentialsInvalid, match=text):
        make()


def test_a_creds_file_is_read_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    file.write_text(CREDS)
    credentials = Credentials(creds_file=file)
    options = credentials.connect_options()
    assert options["user_jwt_cb"]() == jwt({}).encode()
    signature = base64.b64decode(options["signature_cb"]("nonce"))
    nkeys.from_seed(bytearray(SEED.encode())).verify(b"nonce", signature)

    file.write_text(CREDS.replace(jwt({}), jwt({"rotated": True})))
    assert credentials.connect_options()["user_jwt_cb"]() == jwt({"rotated": True}).encode()


def test_an_nkey_file_may_have_remarks(tmp_path: Path) -> None:
    file = tmp_path / "user.nk"
    file.write_text(f"# of the nexlet\n{SEED}\n")
    assert Credentials(nkey_file=file).connect_options() == {"nkeys_seed_str": SEED}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("nothing of the kind", "holds no user JWT with its seed"),
        (CREDS.replace(SEED, SEED[:-4] + "AAAA"), "is not a valid seed of a user"),
        ("x" * 70_000, "is larger than"),
    ],
)
def test_a_creds_file_that_is_none(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "user.creds"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CredentialsInvalid, match=reason) as caught:
        Credentials(creds_file=file).connect_options()
    assert str(file) in str(caught.value)
    assert SEED not in str(caught.value)


def test_tls_files_that_are_missing_or_none_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for credentials, named in (
        (Credentials(tls_ca=tmp_path / "missing.pem"), "missing.pem: No such file"),
        (Credentials(tls_ca=broken), "ca.pem"),
        (Credentials(tls_cert=broken, tls_key=broken), "ca.pem with key"),
    ):
        with pytest.raises(CredentialsInvalid, match=named):
            credentials.connect_options()


@pytest.mark.parametrize(
    ("claims", "subject", "allowed"),
    [
        ({"pub": {"allow": ["$NEX.FEED.AG.logs.*.stdout"]}}, "$NEX.FEED.AG.logs.W.stdout", True),
        ({"pub": {"allow": ["$NEX.FEED.AG.logs.*.stdout"]}}, "$NEX.FEED.acme.logs.W.stdout", False),
        ({"pub": {"allow": [">"], "deny": ["$NEX.>"]}}, "$NEX.FEED.x", False),
        ({"pub": {"deny": ["$NEX.>"]}}, "$NEX.FEED.x", False),
        ({"pub": {"deny": ["$NEX.>"]}}, "other", None),
        ({"pub": {}}, "anything", None),
        ({}, "anything", None),
    ],
)
def test_what_a_jwt_permits(claims: dict[str, Any], subject: str, allowed: bool | None) -> None:
    credentials = Credentials(jwt=SecretStr(jwt(claims)), nkey_seed=SecretStr(SEED))
    assert credentials.may_publish(subject) is allowed


def test_without_a_jwt_nothing_is_known() -> None:
    assert Credentials(user="u", password=SecretStr("p")).may_publish("a") is None


@pytest.mark.parametrize("text", ["x", "a.b.c", "a.bnVsbA.c", "a.e30.c"])
def test_a_jwt_that_is_none(text: str) -> None:
    with pytest.raises(CredentialsInvalid, match="is not a user's JWT"):
        Credentials(jwt=SecretStr(text), nkey_seed=SecretStr(SEED)).may_publish("a")


@pytest.mark.parametrize(
    ("own", "told", "used"),
    [
        ("nats://u:p@a:1", "nats://b:2", "nats://u:p@b:2"),
        ("t@a:1", "tls://b:2", "tls://t@b:2"),
        ("nats://a:1", "nats://b:2", "nats://b:2"),
    ],
)
def test_servers_we_are_told_of_get_our_user_part(own: str, told: str, used: str) -> None:
    assert Credentials((own,)).with_user_part(told) == used
