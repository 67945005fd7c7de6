"""What a worker may ask of the kernel, as two tables: calls it may make, and probes that get an error number.

Everything in neither table kills the process. The tables are data: the filter is built from them, tests read them, and
`docs/security.md` shows them. Numbers are those of the kernel's own tables (`arch/x86/entry/syscalls/syscall_64.tbl`,
`include/uapi/asm-generic/unistd.h`).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

__all__ = ["ALLOWED", "ARCHITECTURES", "GROUPS", "NO_EXEC", "PROBES", "Architecture", "Probe"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one machine is told apart by the filter.

    Attributes:
        audit: the value of `seccomp_data.arch` (AUDIT_ARCH_*).
        column: which number of a row is its own.
        foreign_from: numbers from here on belong to another ABI of the same machine (x32); 0 for none.
    """

    audit: int
    column: int
    foreign_from: int


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "x86_64": Architecture(audit=0xC000003E, column=0, foreign_from=0x40000000),
    "aarch64": Architecture(audit=0xC00000B7, column=1, foreign_from=0),
}

GROUPS: Final[dict[str, dict[str, tuple[int, int]]]] = {
    "its socket, and what else is an open descriptor": {
        "read": (0, 63),
        "write": (1, 64),
        "close": (3, 57),
        "recvfrom": (45, 207),
        "sendto": (44, 206),
        "recvmsg": (47, 212),
        "sendmsg": (46, 211),
        "poll": (7, -1),
        "ppoll": (271, 73),
        "dup": (32, 23),
        "fstat": (5, 80),
        "lseek": (8, 62),
    },
    "memory": {
        "brk": (12, 214),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "madvise": (28, 233),
        "futex": (202, 98),
    },
    "time": {
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "clock_nanosleep": (230, 115),
        "nanosleep": (35, 101),
        "gettimeofday": (96, 169),
        "time": (201, -1),
        "setitimer": (38, 103),
        "getrusage": (98, 165),
        "times": (100, 153),
    },
    "signals of its own": {
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "sigaltstack": (131, 132),
        "restart_syscall": (219, 128),
    },
    "who it is, chance, and the end": {
        "getpid": (39, 172),
        "gettid": (186, 178),
        "getppid": (110, 173),
        "getuid": (102, 174),
        "getrandom": (318, 278),
        "sched_yield": (24, 124),
        "exit": (60, 93),
        "exit_group": (231, 94),
    },
}
"""Calls that a worker makes, by what for, with their numbers on x86_64 and aarch64 (-1: there is none)."""

ALLOWED: Final[dict[str, tuple[int, int]]] = {
    name: numbers for group in GROUPS.values() for name, numbers in group.items()
}
"""All of them."""

NO_EXEC: Final[dict[str, tuple[int, int]]] = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Allowed as long as no page becomes executable: their third argument must not have PROT_EXEC."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A harmless question of CPython or libc that gets an error instead of an end.

    Attributes:
        numbers: on x86_64 and aarch64.
        error: the error number it gets.
        who: who asks, and why it is harmless to say no.
    """

    numbers: tuple[int, int]
    error: int
    who: str


PROBES: Final[dict[str, Probe]] = {
    "open": Probe((2, -1), errno.EACCES, "old libcs, for files of locale and time zone"),
    "openat": Probe((257, 56), errno.EACCES, "imports, linecache for a traceback, /etc/localtime"),
    "stat": Probe((4, -1), errno.EACCES, "old libcs, as newfstatat"),
    "newfstatat": Probe((262, 79), errno.EACCES, "importlib's finders, linecache, tzset"),
    "statx": Probe((332, 291), errno.EACCES, "newer libcs, as newfstatat"),
    "access": Probe((21, -1), errno.EACCES, "old libcs, as newfstatat"),
    "readlink": Probe((89, -1), errno.EACCES, "realpath of a module's file"),
    "readlinkat": Probe((267, 78), errno.EACCES, "realpath of a module's file"),
    "getcwd": Probe((79, 17), errno.EACCES, "relative paths of a module's file"),
    "getdents64": Probe((217, 61), errno.EACCES, "importlib's finders"),
    "ioctl": Probe((16, 29), errno.ENOTTY, "isatty on a stream that is opened"),
    "fcntl": Probe((72, 25), errno.EPERM, "flags of a descriptor"),
    "uname": Probe((63, 160), errno.EPERM, "platform and libc's version checks"),
    "sysinfo": Probe((99, 179), errno.EPERM, "glibc's qsort, for how much memory there is"),
    "prlimit64": Probe((302, 261), errno.EPERM, "glibc, for the size of a stack"),
    "getrlimit": Probe((97, 163), errno.EPERM, "glibc, for the size of a stack"),
    "sched_getaffinity": Probe((204, 123), errno.EPERM, "glibc's malloc, for how many arenas"),
    "memfd_create": Probe((319, 279), errno.EPERM, "nobody; a clear error for a common idea"),
    "socket": Probe((41, 198), errno.EACCES, "nobody; a clear error for a common idea"),
    "set_robust_list": Probe((273, 99), errno.EPERM, "glibc, at a fork that is not to be"),
    "rseq": Probe((334, 293), errno.EPERM, "glibc, at a thread that is not to be"),
}
"""Probes, each with the error number it gets."""
