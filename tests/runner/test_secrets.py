"""Secrets from a folder: only what is in it, only the namespace's own, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexlet_functions.natsio import Credentials
from nexlet_functions.runner import FolderSecrets, Runner
from nexlet_functions.runner.secrets import MAX_SECRET, SecretNotFound, SecretUnreadable
from tests.support.echo_agent import EchoAgent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    (folder / "acme").mkdir(parents=True)
    (folder / "other").mkdir()
    (folder / "acme" / "api-key").write_text("hunter2\n")
    (folder / "other" / "theirs").write_text("not yours")
    (tmp_path / "outside").write_text("outside")
    return folder


async def test_a_secret(folder: Path) -> None:
    (folder / "acme" / "two").write_text("line one\nline two\r\n\r\n")
    store = FolderSecrets(folder)
    value = await store.get("acme", "api-key")
    assert value is not None
    assert value.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(value)
    two = await store.get("acme", "two")
    assert two is not None
    assert two.get_secret_value() == "line one\nline two\r\n"
    (folder / "acme" / "api-key").write_text("rotated")
    value = await store.get("acme", "api-key")
    assert value is not None
    assert value.get_secret_value() == "rotated"


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ("acme", "nosuch"), ("nosuch", "api-key"), ("acme", "../other/theirs"), ("acme", ".."), ("..", "outside"),
        ("acme", "/etc/passwd"), ("", "api-key"), ("acme", ""), ("acme/../other", "theirs"), ("acme", "api-key\x00"),
        ("acme", "..data"), (".", "acme"), ("acme", "api-key/x"),
    ],
)  # fmt: skip
async def test_what_is_not_there_or_not_a_name_is_none(folder: Path, namespace: str, key: str) -> None:
    assert await FolderSecrets(folder).get(namespace, key) is None


async def test_links_that_leave_are_refused(folder: Path) -> None:
    (folder / "acme" / "out").symlink_to(folder.parent / "outside")
    (folder / "acme" / "across").symlink_to(folder / "other" / "theirs")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "acme" / "loop").symlink_to(folder / "acme" / "loop")
    store = FolderSecrets(folder)
    for namespace, key, reason in (
        ("acme", "out", "a link that leaves"),
        ("acme", "across", "a link into another namespace"),
        ("linked", "outside", "a link that leaves"),
        ("acme", "loop", "cannot be read"),
    ):
        with pytest.raises(SecretUnreadable, match=reason):
            await store.get(namespace, key)


async def test_the_links_of_a_kubernetes_mount_are_followed(folder: Path) -> None:
    mount = folder / "mounted"
    (mount / "..2026_11_23").mkdir(parents=True)
    (mount / "..2026_11_23" / "key").write_text("v")
    (mount / "..data").symlink_to("..2026_11_23")
    (mount / "key").symlink_to("..data/key")
    value = await FolderSecrets(folder).get("mounted", "key")
    assert value is not None
    assert value.get_secret_value() == "v"


async def test_what_cannot_be_a_secret(folder: Path) -> None:
    (folder / "acme" / "large").write_bytes(b"x" * (MAX_SECRET + 1))
    (folder / "acme" / "binary").write_bytes(b"hunter2\xff")
    (folder / "acme" / "folder").mkdir()
    store = FolderSecrets(folder)
    for key, reason in (("large", "is larger than"), ("binary", "is not UTF-8"), ("folder", "is not a file")):
        with pytest.raises(SecretUnreadable, match=reason) as caught:
            await store.get("acme", key)
        assert "hunter2" not in str(caught.value)


async def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert await FolderSecrets(tmp_path / "nosuch").get("acme", "key") is None


async def test_what_an_agent_is_told(folder: Path) -> None:
    services = Runner(EchoAgent, credentials=Credentials(), secrets=FolderSecrets(folder)).services
    assert (await services.get_namespace_secret("acme", "api-key")).get_secret_value() == "hunter2"
    with pytest.raises(SecretNotFound, match="secret 'nosuch': namespace 'acme' has none of that name"):
        await services.get_namespace_secret("acme", "nosuch")
    with pytest.raises(SecretNotFound, match="has no store of secrets"):
        await Runner(EchoAgent, credentials=Credentials()).services.get_namespace_secret("acme", "api-key")
