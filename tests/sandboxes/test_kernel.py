"""Landlock's rights by the kernel's version, and the libc calls behind every lock."""

from __future__ import annotations

import ctypes
import errno
import sys

import pytest

from nexlet_sandboxes.kernel import capabilities, landlock, libc, process
from nexlet_sandboxes.kernel.rlimits import NOFILE, TABLE


@pytest.mark.parametrize(
    ("version", "words"),
    [
        # Rights over files by include/uapi/linux/landlock.h: execute (bit 0) to make_sym (12), then refer, truncate,
        # ioctl_dev; then two for TCP; then two scopes.
        (1, (0x1FFF,)),
        (2, (0x3FFF,)),
        (3, (0x7FFF,)),
        (4, (0x7FFF, 0b11)),
        (5, (0xFFFF, 0b11)),
        (6, (0xFFFF, 0b11, 0b11)),
        (7, (0xFFFF, 0b11, 0b11)),
        (99, (0xFFFF, 0b11, 0b11)),
    ],
)
def test_a_ruleset_asks_for_what_the_version_knows_and_nothing_else(version: int, words: tuple[int, ...]) -> None:
    assert landlock.rights(version) == words


@pytest.mark.parametrize("version", [1, 3, 4, 6, 42])
def test_an_older_or_newer_kernel_gets_a_ruleset_of_its_size(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def syscall(what: str, number: int, attributes: object, size: object = 0, flags: object = None) -> int:
        if attributes is None:
            return version
        assert isinstance(size, ctypes.c_size_t)
        calls.append((what, size.value))
        return 42

    monkeypatch.setattr(libc, "syscall", syscall)
    assert landlock.make_ruleset() == 42
    assert calls == [("landlock_create_ruleset", 8 * len(landlock.rights(version)))]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_landlock_is_an_error_that_says_so(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def syscall(what: str, *arguments: object) -> int:
        raise OSError(number, what)

    monkeypatch.setattr(libc, "syscall", syscall)
    assert landlock.abi_version() == 0
    with pytest.raises(OSError, match="no Landlock, or it is not enabled at boot"):
        landlock.make_ruleset()


def test_a_refused_call_is_an_error_with_its_name_and_number() -> None:
    with pytest.raises(OSError, match=r"prctl\(123456, 0\): Invalid argument") as error:
        libc.prctl(123456, 0)
    assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="unknown: Function not implemented"):
        libc.syscall("unknown", 100_000)
    with pytest.raises(OSError, match="capset: "):
        libc.call("capset", None, None)


def test_elsewhere_than_on_linux_every_lock_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    libc._libc.cache_clear()
    try:
        for lock in (capabilities.drop_all, process.adopt_orphans, process.no_new_privileges):
            with pytest.raises(OSError, match="the locks of a worker are Linux's; this is darwin"):
                lock()
    finally:
        libc._libc.cache_clear()


def test_limits_are_said_once_each_with_their_reason() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert all(row.why for row in TABLE)
    assert {row.name: row.value for row in TABLE}["nofile"] == NOFILE
