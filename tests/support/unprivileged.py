"""Executes a command as an ordinary user, also where the interpreter lies in a folder that only root may enter.

    python -m tests.support.unprivileged COMMAND ARGUMENT ...

Root's own Python is often below /root, which nobody else may enter. The command then sees, in a mount namespace of its
own, that folder with nothing in it but the interpreter and this project; the machine's own view does not change.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

__all__ = ["IMPOSSIBLE", "USER", "execute"]

USER: Final = 65534
"""`nobody` on every distribution; no group but its own."""

IMPOSSIBLE: Final = 77
"""The exit code where it cannot be done here; standard error says why."""

_CLONE_NEWNS: Final = 0x00020000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18


def execute(command: list[str]) -> NoReturn:
    """Become an ordinary user, for good, and execute `command`.

    Raises:
        OSError: this is not root, or there is no mount namespace to be had and the interpreter cannot be reached.
    """
    needed = {Path(place).resolve() for place in (sys.base_prefix, sys.prefix, Path(__file__).parents[2])}
    for closed, below in _closed(sorted(one for one in needed if not needed & set(one.parents))):
        _open_up(closed, below)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.execve(command[0], command, {"PATH": os.defpath, "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"})


def _closed(prefixes: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders that others may not enter, each with the prefixes below it."""
    below: dict[Path, list[Path]] = {}
    for prefix in prefixes:
        for folder in reversed((prefix, *prefix.parents)):
            if not folder.stat().st_mode & 0o001:
                below.setdefault(folder, []).append(prefix)
                break
    yield from below.items()


def _open_up(closed: Path, prefixes: list[Path]) -> None:
    _libc("unshare", _CLONE_NEWNS)
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
    with contextlib.ExitStack() as stack:
        held = [(prefix, os.open(prefix, os.O_PATH)) for prefix in prefixes]
        for _, descriptor in held:
            stack.callback(os.close, descriptor)
        kept = []
        for prefix, descriptor in held:
            place = tempfile.mkdtemp(prefix="interpreter-", dir="/tmp")
            _mount(b"/proc/self/fd/%d" % descriptor, os.fsencode(place), None, _MS_BIND)
            kept.append((prefix, place))
        _mount(b"none", os.fsencode(closed), b"tmpfs", 0, b"mode=755")
        for prefix, place in kept:
            prefix.mkdir(parents=True, exist_ok=True)
            _mount(os.fsencode(place), os.fsencode(prefix), None, _MS_BIND)
            _libc("umount2", ctypes.c_char_p(os.fsencode(place)), 0)
            os.rmdir(place)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    arguments = (source, target, kind)
    _libc("mount", *map(ctypes.c_char_p, arguments), ctypes.c_ulong(flags), ctypes.c_char_p(data))


def _libc(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        execute(sys.argv[1:])
    except OSError as error:
        print(f"an ordinary user cannot be had here: {error}", file=sys.stderr)
        sys.exit(IMPOSSIBLE)
