"""Zygotes on machines that lack something: real ones, in which a layer was replaced before the first worker."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from nexlet_sandboxes.zygote import Zygote

__all__ = [
    "arguments",
    "children",
    "doing_nothing",
    "missing",
    "open_zygote",
    "user_namespaces",
    "without_calls",
]

_START = "\nfrom nexlet_sandboxes.zygote_process import main\nmain()\n"

_NO_NAMESPACES = """
import os
from nexlet_sandboxes.kernel import namespaces
def enter(leash):
    inner = os.fork()
    if inner:
        leash.send(b"%d" % inner)
        os._exit(0)
    with leash:
        leash.recv(2)
namespaces.enter = enter
namespaces.empty_root = lambda: None
"""


def missing(layer: str) -> str:
    """A machine without `layer`: applying it fails."""
    return f"""
from nexlet_sandboxes.kernel import locks
def fail(around, layers):
    raise OSError(38, "no such thing on this machine")
locks.LAYERS[{layer!r}] = fail
"""


def doing_nothing(layer: str) -> str:
    """A machine on which `layer` can be applied and does nothing."""
    if layer == "namespaces":
        # The way in takes a second fork all the same; and nobody's files are to be mounted over without it.
        return _NO_NAMESPACES
    if layer == "not-dumpable":
        # The zygote itself is not, and its children would be as it is.
        return "from nexlet_sandboxes.kernel import locks, process\n" + (
            "locks.LAYERS['not-dumpable'] = lambda around, layers: process.dumpable(True)\n"
        )
    return f"from nexlet_sandboxes.kernel import locks\nlocks.LAYERS[{layer!r}] = lambda around, layers: ()\n"


def without_calls(*names: str) -> str:
    """A kernel that does not know these system calls, for the zygote and its workers: a filter answers ENOSYS."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    numbers = [_NUMBERS[name][column] for name in names]
    return f"""
import ctypes, os, struct
code = [(0x20, 0, 0, 0)]
for number in {numbers}:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38)]
code.append((0x06, 0, 0, 0x7FFF0000))
filter = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(filter)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if os.geteuid() != 0:
    prctl(38, 1, 0, 0, 0)
if prctl(22, 2, program, 0, 0):
    raise OSError(ctypes.get_errno(), "no filter")
"""


_NUMBERS = {
    "clone3": (435, 435),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "unshare": (272, 97),
}
"""On x86_64 and on aarch64."""


def arguments(change: str) -> tuple[str, ...]:
    """What the interpreter of a zygote is executed with so that it executes `change` before it serves."""
    return ("-I", "-c", change + _START)


@contextlib.asynccontextmanager
async def open_zygote(change: str) -> AsyncIterator[Zygote]:
    """A zygote that executes `change` before it serves."""

    class Changed(Zygote):
        pass

    Changed.arguments = arguments(change)
    zygote = await Changed.start()
    try:
        yield zygote
    finally:
        await zygote.close()


def user_namespaces() -> bool:
    """Whether this machine gives an ordinary process namespaces with a mount of its own, by util-linux's own word."""
    try:
        command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        return False


def children(zygote: Zygote) -> list[str]:
    return Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text().split()
