"""The secrets of a namespace: a small protocol, and its first provider, a folder.

- `SecretStore`: what a runner asks; any object with that method will do.
- `FolderSecrets`: files `NAMESPACE/KEY`, which is what systemd credentials and Kubernetes mounts give.
- `SecretNotFound`: what an agent meets.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from nexlet_functions.runner.agent import AgentError

__all__ = ["FolderSecrets", "SecretNotFound", "SecretStore", "SecretUnreadable"]

MAX_SECRET = 64 * 1024
"""Bytes. What is larger is no secret but a file: hand it over as an artifact."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


class SecretStore(Protocol):
    """Where secrets come from."""

    async def get(self, namespace: str, key: str) -> SecretStr | None:
        """The value, or None where there is none of that name.

        Raises:
            SecretUnreadable: there is one, but it cannot be handed out.
        """
        ...


class SecretNotFound(AgentError):
    """No such secret, or no store to look in."""

    status = 400


class SecretUnreadable(AgentError):
    """A secret that is there and cannot be used. The text never has any of its content."""

    status = 500


class FolderSecrets:
    """Files `NAMESPACE/KEY` below a folder, read at each use. One line end at the end of a file is not part of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, namespace: str, key: str) -> SecretStr | None:
        """See `SecretStore.get`. A link counts as long as it stays within the folder (Kubernetes mounts are links)."""
        for name in (namespace, key):
            # Also keeps out "..", "/" and Kubernetes's own "..data".
            if _NAME.fullmatch(name) is None:
                return None
        return await asyncio.to_thread(self._read, namespace, key)

    def _read(self, namespace: str, key: str) -> SecretStr | None:
        what = f"secret {key!r} of namespace {namespace!r}"
        try:
            root = self._folder.resolve(strict=True)
            file = (root / namespace / key).resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            raise SecretUnreadable(f"{what} cannot be read: {_reason(error)}") from None
        if not file.is_relative_to(root):
            raise SecretUnreadable(f"{what} is a link that leaves the folder of secrets; put the file itself there")
        if _other_namespace(file.relative_to(root), namespace):
            raise SecretUnreadable(f"{what} is a link into another namespace; put the file itself there")
        try:
            # What was resolved is opened without following anything: it cannot become another file in between.
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecretUnreadable(f"{what} cannot be read: {_reason(error)}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretUnreadable(f"{what} is not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                data = opened.read(MAX_SECRET + 1)
        finally:
            os.close(descriptor)
        if len(data) > MAX_SECRET:
            raise SecretUnreadable(f"{what} is larger than {MAX_SECRET} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SecretUnreadable(f"{what} is not UTF-8 text") from None
        return SecretStr(text.removesuffix("\n").removesuffix("\r"))


def _other_namespace(relative: Path, namespace: str) -> bool:
    """Whether a resolved path lies in a namespace's folder that is not ours.

    Below the folder itself there may be a hidden one that the mount is made of (`..2026_11_23/acme/key`).
    """
    parts = [part for part in relative.parts[:-1] if not part.startswith("..")]
    return bool(parts) and parts[0] != namespace


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
