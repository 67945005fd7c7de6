"""The filter of system calls, executed as the kernel would: what it says to every number on both machines.

The filter is run by a small interpreter of classic BPF here, so that aarch64 is tested on x86_64 and the other way
round; that the running kernel agrees is `test_probe`'s and the corpus's to show.
"""

from __future__ import annotations

import errno
import platform
import re
import struct
from pathlib import Path

import pytest

from nexlet_sandboxes.kernel import seccomp
from nexlet_sandboxes.kernel.reference import renewed
from nexlet_sandboxes.kernel.syscalls import ALLOWED, ARCHITECTURES, NO_EXEC, PROBES

KILL, ALLOW = 0x80000000, 0x7FFF0000
PROT_READ, PROT_EXEC = 1, 4
MACHINES = sorted(ARCHITECTURES)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def verdict(code: bytes, *, number: int, audit: int, third: int = 0) -> int:
    """What the filter returns for one call: an interpreter of the four instructions it is made of."""
    data = struct.pack("<IIQ6Q", number, audit, 0, 0, 0, third, 0, 0, 0)
    program = list(struct.iter_unpack("=HBBI", code))
    at = accumulator = 0
    for _ in range(len(program)):
        operation, if_true, if_false, value = program[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            at += if_true if holds else if_false
    raise AssertionError("the filter runs off its end")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_gets_what_the_tables_say(machine: str) -> None:
    code, architecture = seccomp.build(machine), ARCHITECTURES[machine]
    column = architecture.column
    expected = {numbers[column]: ALLOW for numbers in (*ALLOWED.values(), *NO_EXEC.values())}
    expected |= {probe.numbers[column]: 0x00050000 | probe.error for probe in PROBES.values()}
    for number in (*range(700), 0x7FFFFFFF, 0xFFFFFFFF):
        assert verdict(code, number=number, audit=architecture.audit) == expected.get(number, KILL), number


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NO_EXEC)
def test_no_page_becomes_executable(machine: str, name: str) -> None:
    code, architecture = seccomp.build(machine), ARCHITECTURES[machine]
    number = NO_EXEC[name][architecture.column]
    for protection in range(16):
        expected = KILL if protection & PROT_EXEC else ALLOW
        assert verdict(code, number=number, audit=architecture.audit, third=protection) == expected
    # Bits above the lower half, which the kernel does not look at either, hide nothing.
    assert verdict(code, number=number, audit=architecture.audit, third=1 << 32 | PROT_EXEC) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_of_another_machine_or_abi_kills(machine: str) -> None:
    code, architecture = seccomp.build(machine), ARCHITECTURES[machine]
    number = ALLOWED["write"][architecture.column]
    foreign = [0x40000003, 0x40000028, *(each.audit for name, each in ARCHITECTURES.items() if name != machine)]
    for audit in foreign:  # i386, 32-bit arm, and the other one of ours
        assert verdict(code, number=number, audit=audit) == KILL
    if architecture.foreign_from:
        for other in (0, 1, number):
            assert verdict(code, number=0x40000000 | other, audit=architecture.audit) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_stands_for_one_call(machine: str) -> None:
    column = ARCHITECTURES[machine].column
    rows = [*ALLOWED.values(), *NO_EXEC.values(), *(probe.numbers for probe in PROBES.values())]
    numbers = [row[column] for row in rows if row[column] >= 0]
    assert len(set(numbers)) == len(numbers)
    names = [*ALLOWED, *NO_EXEC, *PROBES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"the kernel's headers are not installed: {header}")
    text = header.read_text()
    defined: dict[str, str] = dict(re.findall(r"#define __NR_(\w+)\s+(\w+)", text))
    # The generic table gives some names by way of another: `#define __NR_lseek __NR3264_lseek`.
    defined |= re.findall(r"#define (__NR3264_\w+)\s+(\d+)", text)
    column = ARCHITECTURES[machine].column
    for name, row in (ALLOWED | NO_EXEC | {name: probe.numbers for name, probe in PROBES.items()}).items():
        if row[column] >= 0:
            assert int(defined.get(defined[name], defined[name])) == row[column], name


def test_a_machine_without_tables_is_refused_by_name() -> None:
    with pytest.raises(OSError, match="no list of system calls for riscv64; there is for aarch64, x86_64"):
        seccomp.build("riscv64")


def test_probes_get_a_harmless_error_and_say_who_asks() -> None:
    for name, probe in PROBES.items():
        assert probe.error in (errno.EACCES, errno.EPERM, errno.ENOTTY), name
        assert probe.who, name


def test_what_would_let_a_worker_out_is_on_no_list() -> None:
    out = {
        *("execve", "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "process_vm_readv", "process_vm_writev"),
        *("kill", "tkill", "tgkill", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "connect", "bind", "accept4"),
        *("prctl", "seccomp", "setns", "unshare", "mount", "bpf", "io_uring_setup", "io_uring_enter", "userfaultfd"),
        *("perf_event_open", "keyctl", "add_key", "shmat", "shmget", "msgget", "mq_open", "setuid", "setresuid"),
        *("pkey_mprotect", "personality", "openat2", "open_by_handle_at", "memfd_secret", "remap_file_pages"),
        *("process_madvise", "sendmmsg", "recvmmsg", "splice", "vmsplice", "sendfile", "inotify_init1", "eventfd2"),
    }
    assert not out & {*ALLOWED, *NO_EXEC, *PROBES}


def test_there_are_tables_for_this_machine() -> None:
    assert platform.machine() in ARCHITECTURES


def test_the_tables_of_the_documentation_are_these_tables() -> None:
    written = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    assert written == renewed(written), "run: python -m nexlet_sandboxes.kernel.reference docs/security.md"
    for name in ("profiles", "layers", "limits", "allowed", "probes"):
        assert f"<!-- table: {name} -->" in written
    for name in (*ALLOWED, *NO_EXEC, *PROBES):
        assert f"| `{name}` |" in written, name
