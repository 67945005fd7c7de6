"""The folder of cgroup v2 that an operator delegates, and the nexlet's part of it.

A nexlet makes a folder of its own in it, below which the zygote makes a group for each worker (`kernel.cgroups`). It is
locked for as long as the nexlet lives: what a killed one left behind is known by that, and removed by the next. Several
nexlets, and `doctor` beside them, may share what is delegated.

Only the leaves of a cgroup tree may have processes where controllers are handed on. A service manager puts the nexlet
itself into the very folder that it delegates; if it is alone there it moves aside, into a leaf of its own. Anybody else
in it is not ours to move.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nexlet_sandboxes.kernel.cgroups import CONTROLLERS, clear, words
from nexlet_sandboxes.outcomes import SandboxError

__all__ = ["Cgroup", "CgroupUnusable"]

_ASIDE: Final = "nexlet"
"""The leaf that a nexlet moves into which finds itself in the delegated folder."""

_PREFIX: Final = "workers-"


class CgroupUnusable(SandboxError):
    """The folder that was given cannot hold workers. The message says why, and what to do.

    Attributes:
        folder: which.
    """

    code = "cgroup-unusable"

    def __init__(self, folder: Path, reason: str, advice: str) -> None:
        self.folder = folder
        super().__init__(f"the cgroup folder {folder} cannot be used: {reason}; {advice}")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """What was delegated, ready for groups of workers.

    Attributes:
        folder: as the operator names it.
        own: our part of it.
        controllers: those that workers are limited by.
    """

    folder: Path
    own: Path
    controllers: tuple[str, ...]
    _lock: int

    @property
    def missing(self) -> tuple[str, ...]:
        """Controllers that are not delegated: what they would limit is not limited by a group."""
        return tuple(name for name in CONTROLLERS if name not in self.controllers)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Make our part of `folder`, and remove what killed ones left in it.

        Raises:
            CgroupUnusable: it is no folder of cgroup v2, is not delegated to this user, or holds processes of others.
        """
        delegated = _delegated(folder)
        with _locked(folder):  # what another one has made, and has yet to lock, is not left behind
            _make_room(folder)
            _hand_on(folder, delegated)
            for left in sorted(folder.glob(f"{_PREFIX}*")):
                _remove_left(left)
            own = folder / f"{_PREFIX}{secrets.token_hex(4)}"
            try:
                own.mkdir()
            except OSError as error:
                raise _refused(folder, "no group can be made in it", error) from error
            try:
                _hand_on(own, delegated)
                lock = _open(own)
            except BaseException:
                clear(own)
                raise
            fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(folder, own, delegated, lock)

    def empty(self) -> None:
        """End and remove every worker's group: their zygote is gone."""
        for group in sorted(self.own.iterdir()):
            if group.is_dir():
                clear(group)

    def close(self) -> None:
        """Remove our part. To be called when the zygote has ended."""
        clear(self.own)
        os.close(self._lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _open(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _delegated(folder: Path) -> tuple[str, ...]:
    """The controllers that we use and `folder` has."""
    try:
        there = words(folder / "cgroup.controllers")
    except FileNotFoundError:
        if (folder / "cgroup.procs").exists():
            reason, advice = "it is of cgroup v1", "the machine must mount cgroup v2, and give its controllers to that"
        else:
            reason, advice = "it is no folder of cgroup v2", "name one below where that is mounted, /sys/fs/cgroup"
        raise CgroupUnusable(folder, reason, advice) from None
    except OSError as error:
        raise _refused(folder, "it cannot be read", error) from error
    try:
        kind = " ".join(words(folder / "cgroup.type"))
    except OSError:
        kind = "domain"  # only the root of all has no type
    if kind != "domain":
        raise CgroupUnusable(folder, f"its type is '{kind}'", "delegate one of type 'domain'")
    return tuple(name for name in CONTROLLERS if name in there)


def _make_room(folder: Path) -> None:
    """Leave the folder, if we are alone in it; the root of all may have processes and groups."""
    if not (folder / "cgroup.type").exists():
        return
    try:
        inside = {int(word) for word in words(folder / "cgroup.procs")}
    except OSError as error:
        raise _refused(folder, "its processes cannot be read", error) from error
    others = sorted(inside - {os.getpid()})
    if others:
        shown = ", ".join(str(pid) if pid else "one of another container" for pid in others[:5])
        raise CgroupUnusable(
            folder,
            f"other processes than this one are in it ({shown}), and controllers are handed on by empty groups only",
            "start the nexlet as the only process of its service, or name a folder that has no processes "
            "(systemd: DelegateSubgroup=)",
        )
    if inside:
        aside = folder / _ASIDE
        try:
            aside.mkdir(exist_ok=True)
            (aside / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        except OSError as error:
            raise _refused(folder, f"this process cannot move to {aside}", error) from error


def _hand_on(folder: Path, controllers: tuple[str, ...]) -> None:
    """Have `folder` give the controllers to the groups in it."""
    control = folder / "cgroup.subtree_control"
    try:
        on = words(control)
        for name in controllers:
            if name not in on:
                control.write_text(f"+{name}", encoding="ascii")
    except OSError as error:
        raise _refused(folder, f"the controllers {', '.join(controllers)} cannot be handed on", error) from error


def _refused(folder: Path, what: str, error: OSError) -> CgroupUnusable:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "delegate it to the user that the nexlet runs as (systemd: Delegate=yes); in a container, mount it "
        advice += "writable"
    else:
        advice = "delegate another one"
    return CgroupUnusable(folder, f"{what}: {error.strerror or error}", advice)


def _remove_left(left: Path) -> None:
    """Remove what a nexlet left that does not live any more: nobody holds its lock."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError):  # another one was quicker; or its nexlet lives
        lock = _open(left)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(left)
        finally:
            os.close(lock)
