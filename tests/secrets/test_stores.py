"""The stores of secrets beside the folder: a sealed bucket on a real server, the environment, and several as one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from nexlet_functions.devnode.buckets import make_buckets
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.errors import SettingsRefused
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.runner.secrets import FolderSecrets, SecretUnreadable
from nexlet_functions.secrets import BucketSecrets, EnvironmentSecrets, SeveralSecrets, seal
from nexlet_functions.secrets.bucket import SecretsBucket
from nexlet_functions.settings import Settings

BUCKET = "nexlet-secrets"
KEY = CurveKey.generate()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def connection(nats_server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await Connection.open(Credentials(servers=(nats_server.url,))) as opened:
        yield opened


@pytest.fixture
async def bucket(nats_server: EmbeddedServer, connection: Connection) -> SecretsBucket:
    await make_buckets(nats_server.url, BUCKET)
    return SecretsBucket(connection, BUCKET)


@pytest.fixture
async def store(nats_server: EmbeddedServer) -> AsyncIterator[BucketSecrets]:
    made = BucketSecrets(lambda: Connection(Credentials(servers=(nats_server.url,))), BUCKET, lambda: KEY)
    yield made
    await made.close()


def sealed(value: str, namespace: str = "acme", key: str = "token", *, to: CurveKey = KEY) -> bytes:
    return seal(namespace, key, SecretStr(value), [to.public], now=NOW)


async def text(store: BucketSecrets, namespace: str = "acme", key: str = "token") -> str | None:
    found = await store.get(namespace, key)
    return found.get_secret_value() if found is not None else None


async def test_set_read_replaced_and_removed(bucket: SecretsBucket, store: BucketSecrets) -> None:
    assert await text(store) is None
    await bucket.put("acme", "token", sealed("one"))
    assert await text(store) == "one"
    await bucket.put("acme", "token", sealed("two"))
    assert await text(store) == "two"
    assert await text(store, "other") is None
    assert await bucket.remove("acme", "token")
    assert await text(store) is None
    assert not await bucket.remove("acme", "token")


async def test_the_list_has_names_and_no_values(bucket: SecretsBucket) -> None:
    for namespace, key in (("acme", "b.c-d"), ("acme", "a"), ("other", "x"), ("acme", "gone"), ("ac", "me.a")):
        await bucket.put(namespace, key, sealed("value", namespace, key))
    await bucket.remove("acme", "gone")
    await bucket.bucket.put("acme.odd", b"nonsense")
    listed = await bucket.list("acme")
    assert [(one.key, one.sealed_to) for one in listed] == [("a", (KEY.public,)), ("b.c-d", (KEY.public,)), ("odd", ())]
    assert listed[0].set_at == "2026-01-01T00:00:00+00:00"
    assert await bucket.list("nobody") == []


async def test_what_another_namespace_has_copied_is_refused(bucket: SecretsBucket, store: BucketSecrets) -> None:
    await bucket.put("acme", "token", sealed("hidden"))
    data = await bucket.get("acme", "token")
    assert data is not None
    await bucket.put("thief", "token", data)
    with pytest.raises(SecretUnreadable, match="sealed for another name") as refused:
        await store.get("thief", "token")
    assert "hidden" not in refused.value.text


async def test_what_is_sealed_to_another_is_refused(bucket: SecretsBucket, store: BucketSecrets) -> None:
    await bucket.put("acme", "token", sealed("hidden", to=CurveKey.generate()))
    with pytest.raises(SecretUnreadable, match=KEY.public):
        await store.get("acme", "token")


async def test_a_bucket_that_is_not_there(store: BucketSecrets, nats_server: EmbeddedServer) -> None:
    with pytest.raises(SecretUnreadable, match="no bucket 'nexlet-secrets'"):
        await store.get("acme", "token")


# --- the environment -------------------------------------------------------------------------------------------------

RULES = """
namespaces:
  acme:
    secrets: {environment_prefix: ACME_, environment: {db-password: DB_PASSWORD, token: ACME_OTHER}}
  other:
    secrets: {environment: {token: OTHER_TOKEN}}
"""
ENVIRONMENT = {"ACME_token": "prefixed", "ACME_OTHER": "mapped", "DB_PASSWORD": "db", "OTHER_TOKEN": "theirs", "A": "x"}


def settings(tmp_path: Path, rules: str) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(rules)
    return Settings.read({"settings_file": file})


@pytest.mark.parametrize(
    ("namespace", "key", "value"),
    [
        ("acme", "db-password", "db"), ("acme", "token", "mapped"), ("acme", "OTHER", "mapped"),
        ("acme", "TOKEN", None),
        ("other", "token", "theirs"), ("other", "OTHER_TOKEN", None), ("other", "A", None), ("nobody", "A", None),
    ],
)  # fmt: skip
async def test_a_namespace_sees_the_variables_that_are_said(
    tmp_path: Path, namespace: str, key: str, value: str | None
) -> None:
    store = EnvironmentSecrets(settings(tmp_path, RULES).rules, ENVIRONMENT)
    found = await store.get(namespace, key)
    assert (found.get_secret_value() if found is not None else None) == value


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("namespaces: {acme: {secrets: {environment_prefix: NEXFN_}}}", "nexlet's own"),
        ("namespaces: {acme: {secrets: {environment_prefix: N}}}", "nexlet's own"),
        ("namespaces: {acme: {secrets: {environment: {token: NEXFN_PASSWORD}}}}", "nexlet's own"),
        ("namespaces: {acme: {secrets: {environment: {token: NEX_AGENT_NATS_USER_SEED}}}}", "nexlet's own"),
        ("namespaces: {acme: {secrets: {environment: {token: A B}}}}", "no name of a variable"),
        ("namespaces: {acme: {secrets: {environment_prefix: ''}}}", "no name of a variable"),
        ("namespaces: {acme: {secrets: {enviroment: {}}}}", "did you mean 'environment'?"),
        ("defaults: {secrets: {environment_prefix: SECRET_}}", "say it under namespaces"),
        (
            "namespaces: {a: {secrets: {environment_prefix: A_}}, b: {secrets: {environment_prefix: A_B_}}}",
            "the beginning of that of 'b'",
        ),
        (
            "namespaces: {a: {secrets: {environment_prefix: A_}}, b: {secrets: {environment: {x: A_X}}}}",
            "takes in a variable of 'b'",
        ),
    ],
)  # fmt: skip
def test_rules_that_would_show_too_much_are_refused(tmp_path: Path, rules: str, said: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        settings(tmp_path, rules)
    assert said in str([problem.text() for problem in refused.value.problems])


# --- several ----------------------------------------------------------------------------------------------------------


async def test_the_first_that_has_it_gives_it_and_one_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    (folder / "acme").mkdir(parents=True)
    (folder / "acme" / "token").write_text("of the folder\n")
    (folder / "acme" / "db-password").write_bytes(b"\xff")
    several = SeveralSecrets([FolderSecrets(folder), EnvironmentSecrets(settings(tmp_path, RULES).rules, ENVIRONMENT)])
    first = await several.get("acme", "token")
    assert first is not None
    assert first.get_secret_value() == "of the folder"
    other = await several.get("acme", "OTHER")
    assert other is not None
    with pytest.raises(SecretUnreadable):
        await several.get("acme", "db-password")
    assert await several.get("acme", "nothing") is None
