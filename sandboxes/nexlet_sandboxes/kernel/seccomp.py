"""Seccomp: the allow-list of system calls, last of the locks. Everything that is not listed kills the process.

The filter is classic BPF, built from the tables of `syscalls` for the machine at hand and handed over with one prctl.
A call of another architecture or ABI kills too: its numbers would mean something else. Source of the structures:
the kernel's Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import struct
from typing import Final

from nexlet_sandboxes.kernel import libc
from nexlet_sandboxes.kernel.steps import Steps
from nexlet_sandboxes.kernel.syscalls import ALLOWED, ARCHITECTURES, NO_EXEC, PROBES

__all__ = ["build", "install", "prepared"]

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06

_AT_NUMBER: Final = 0
_AT_ARCHITECTURE: Final = 4
_AT_THIRD_ARGUMENT: Final = 16 + 2 * 8
"""Its lower half: both machines are little-endian."""
_PROT_EXEC: Final = 4

_INSTRUCTION: Final = struct.Struct("=HBBI")


def build(machine: str) -> bytes:
    """The filter for a machine (`platform.machine()`), as the kernel takes it.

    Raises:
        OSError: there are no tables for this machine.
    """
    if machine not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise OSError(f"there is no list of system calls for {machine}; there is for {known}")
    architecture = ARCHITECTURES[machine]
    column = architecture.column
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    if architecture.foreign_from:
        code += [(_AT_LEAST, 0, 1, architecture.foreign_from), (_RETURN, 0, 0, _KILL)]
    for numbers in ALLOWED.values():
        if numbers[column] >= 0:
            code += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    for numbers in NO_EXEC.values():
        code += [
            (_EQUAL, 0, 4, numbers[column]),
            (_LOAD, 0, 0, _AT_THIRD_ARGUMENT),
            (_ANY_BIT, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _KILL),
            (_RETURN, 0, 0, _ALLOW),
        ]
    for probe in PROBES.values():
        if probe.numbers[column] >= 0:
            code += [(_EQUAL, 0, 1, probe.numbers[column]), (_RETURN, 0, 0, _ERRNO | probe.error)]
    code.append((_RETURN, 0, 0, _KILL))
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@functools.cache
def prepared() -> tuple[object, object]:
    """The filter for this machine: a reference to what the kernel is handed, and the memory that it points to.

    Made once, before there are workers: each of them would make the same one again.

    Raises:
        OSError: no tables for this machine.
    """
    code = build(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    return ctypes.byref(_Program(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))), buffer


def install() -> Steps:
    """Put the filter over this process, for good. Needs no_new_privs.

    Raises:
        OSError: no tables for this machine.
    """
    program, _ = prepared()
    return (libc.prctl_step(_PR_SET_SECCOMP, _MODE_FILTER, program),)
