"""Files that nobody else may read and that are either whole or not there: the curve key, what workloads run.

Everything is written beside its place first (mode 0600; synced, unless it can be made again) and moved there in one
step, so that a nexlet that is killed while it writes leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["create_private", "private_folder", "replace_private"]


def private_folder(path: Path) -> Path:
    """Make `path` (mode 0700) with its parents where it is missing, and return it.

    Raises:
        OSError: it cannot be made, or something else is in its place.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def replace_private(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Put `data` at `path`, in place of what was there.

    Args:
        sync: wait for the disk; without, a power cut may leave something else there, or nothing.

    Raises:
        OSError: the folder cannot be written to.
    """
    beside = _write_beside(path, data, sync=sync)
    try:
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def create_private(path: Path, data: bytes) -> bool:
    """Put `data` at `path` unless something is there already; whether it was put.

    Of two nexlets that come at the same time, one creates the file and both see the same content.

    Raises:
        OSError: the folder cannot be written to.
    """
    beside = _write_beside(path, data)
    try:
        os.link(beside, path)  # unlike rename, link never takes the place of what is there
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def _write_beside(path: Path, data: bytes, *, sync: bool = True) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            beside.unlink()
        raise
    return beside
