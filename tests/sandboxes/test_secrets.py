"""Where a function's environment, source and messages are: with its own worker and the nexlet, and nowhere else.

As root the memory of the zygote and of other functions' workers is read and searched; as an ordinary user it is tried,
by somebody of the very user that they run as.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.pools import MIB, Sandbox, limits, open_pool, run
from tests.support.zygotes import children, missing, open_zygote, user_namespaces, without_calls

ROOT = Path(__file__).parents[2]

SOURCE = """
# {source}
def handler(event, context):
    if event.text.startswith("raise"):
        raise ValueError(event.text)
    if event.text.startswith("loop"):
        while True:
            pass
    return context.env["SECRET"]
"""

NEIGHBOUR = "def handler(event, context):\n    return event.data\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of a process that is locked")


def memory(pid: int) -> bytes:
    """All of a process's memory that can be read and is its own: what was written to."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, permissions, *rest = line.split()
            if not permissions.startswith("rw") or rest[-1] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            file.seek(start)
            found.append(file.read(end - start))
    return b"\n".join(found)


def described(pid: int) -> bytes:
    """What /proc says of a process to whoever may look."""
    process = Path(f"/proc/{pid}")
    said = b"\n".join((process / name).read_bytes() for name in ("environ", "cmdline", "comm", "status", "maps"))
    return said + b"\n".join(os.fsencode(os.readlink(process / "fd" / name)) for name in os.listdir(process / "fd"))


def pid_of(pool: Pool) -> int:
    return pool._links[0].process.pid


@as_root
@pytest.mark.parametrize("profile", ["strict", "isolated"])
async def test_what_is_a_functions_own_is_in_no_other_process(profile: str, zygote: Zygote) -> None:
    if profile == "isolated" and not user_namespaces():
        pytest.skip("this machine gives no user namespaces")
    warm = Sandbox(zygote, profile)
    canaries = {what: secrets.token_hex(16) for what in ("secret", "source", "payload", "error", "killed", "refused")}
    source = SOURCE.format(source=canaries["source"])
    async with (
        open_pool(warm, NEIGHBOUR, limits()) as before,
        open_pool(warm, source, limits(timeout=0.3), environment={"SECRET": canaries["secret"]}) as pool,
        open_pool(warm, NEIGHBOUR, limits()) as after,
    ):
        answers = await run(
            pool,
            b"loop " + canaries["killed"].encode(),  # its worker ends, and the zygote makes another
            canaries["payload"].encode(),
            b"raise " + canaries["error"].encode(),
        )
        assert [one.outcome for one in answers] == [Outcome.TIMEOUT, Outcome.OK, Outcome.ERROR]
        with pytest.raises(LoadRefused):
            async with open_pool(warm, f"import {canaries['refused']}", limits()):
                pass
        async with open_pool(warm, NEIGHBOUR, limits()) as latest:
            # That a search can find anything at all.
            own = memory(pid_of(pool))
            assert canaries["secret"].encode() in own
            assert canaries["source"].encode() in own
            assert zygote.pid is not None
            for pid in (zygote.pid, *(pid_of(other) for other in (before, after, latest))):
                read = memory(pid) + described(pid)
                assert len(read) > 1 << 20
                assert [what for what, canary in canaries.items() if canary.encode() in read] == []
            told = described(pid_of(pool))
            assert [what for what, canary in canaries.items() if canary.encode() in told] == []


READ = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def peek(pid):
    class Piece(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    ours, theirs = Piece(ctypes.addressof(buffer), 8), Piece(id(libc), 8)
    if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
def seize(pid):
    if libc.ptrace(0x4206, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
def tries(pid):
    yield from ((name, lambda: open(f"/proc/{pid}/{name}", "rb").read(1)) for name in ("environ", "mem", "auxv"))
    yield "maps", lambda: open(f"/proc/{pid}/maps").read()
    yield "fd", lambda: os.listdir(f"/proc/{pid}/fd")
    yield "cwd", lambda: os.readlink(f"/proc/{pid}/cwd")
    yield "process_vm_readv", lambda: peek(pid)
    yield "ptrace", lambda: seize(pid)
user = os.getuid()
for pid in map(int, sys.argv[1:]):
    assert f"Uid:\\t{user}\\t" in open(f"/proc/{pid}/status").read(), "it is somebody else's"
    for name, attempt in tries(pid):
        try:
            attempt()
        except PermissionError:
            continue
        except OSError:
            pass  # let in, and found nothing where it looked
        print(pid, name)
"""
"""Prints what it could do to processes of its own user that it should not."""

SCENE = f"""
import asyncio, subprocess, sys
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.pools import KeepingSink
async def read(*pids):
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", {READ!r}, *map(str, pids)], capture_output=True, text=True
    )
    return done.stdout + done.stderr
async def locked():
    zygote = await Zygote.start()
    pools = [Pool(zygote, Program({NEIGHBOUR!r}), Limits(), KeepingSink(), profile=name) for name in sys.argv[1:]]
    for pool in pools:
        await pool.start()
    try:
        return await read(zygote.pid, *(pool._links[0].process.pid for pool in pools))
    finally:
        for pool in pools:
            await pool.close()
        await zygote.close()
async def plain():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        said = await read(process.pid)
        process.kill()
        return said
print(asyncio.run(locked() if sys.argv[1:] else plain()))
"""


def as_ordinary_user(*arguments: str) -> str:
    """What `SCENE` says where it is played by an ordinary user: this one, or another one where this is root."""
    to_user = [sys.executable, "-m", "tests.support.unprivileged"] if os.geteuid() == 0 else []
    command = [*to_user, sys.executable, "-c", SCENE, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_somebody_of_the_same_user_can_read_neither_a_worker_nor_the_zygote() -> None:
    here = [name for name, profile in PROFILES.items() if "namespaces" not in profile.layers or user_namespaces()]
    assert as_ordinary_user(*here) == ""


def test_what_is_tried_there_succeeds_with_a_process_that_is_not_locked() -> None:
    done = {line.split()[1] for line in as_ordinary_user().splitlines()}
    assert done >= {"environ", "auxv", "maps", "fd", "cwd"}  # how a debugger reads may be restricted for all


# --- what a spawn leaves behind ---------------------------------------------------------------------------------------


async def test_nobody_but_a_worker_has_its_end_of_the_socket(sandbox: Sandbox) -> None:
    """Otherwise the nexlet would not notice its end, nor it the nexlet's."""
    zygote = sandbox.zygote
    before = open_in(zygote)
    workers = [await zygote.spawn(sandbox.profile, 64 * MIB) for _ in range(3)]
    await eventually(lambda: open_in(zygote) == before)  # it tells of a worker first, and then lets go of what it gave
    workers[1].kill()
    assert await end_of_stream(workers[1].sock)
    for worker in workers:
        worker.close()
    await eventually(lambda: children(zygote) == [])


ONCE = """
import os, socket
from nexlet_sandboxes import language
zygote = os.getpid()
def once(module, name, inside=False):
    real, set_aside = getattr(module, name), language.set_aside
    def refuse(*arguments):
        if (os.getpid() != zygote) is inside:
            setattr(module, name, real)
            raise OSError(24, "refused")
        return real(*arguments)
    def begin():
        set_aside()
        setattr(module, name, refuse)
    language.set_aside = begin  # the last thing before it serves
"""

NAMESPACES = """
import os, time
from nexlet_sandboxes.kernel import namespaces
"""

HALF_WAY: dict[str, tuple[str, str, str]] = {
    "without a process": ("strict", ONCE + "once(os, 'fork')", "refused|descriptors"),
    "without a descriptor of it": ("strict", ONCE + "once(os, 'pidfd_open')", "refused|descriptors"),
    "without a leash": ("isolated", ONCE + "once(socket, 'socketpair')", "refused|descriptors"),
    "without a layer": ("strict", missing("landlock"), "no such thing"),
    "without namespaces": ("isolated", without_calls("unshare"), "namespaces: unshare"),
    "without the inner process": ("isolated", ONCE + "once(os, 'fork', inside=True)", "namespaces: refused"),
    "without a descriptor of the inner process": ("isolated", ONCE + "once(os, 'pidfd_open')", "refused|descriptors"),
    "without a layer inside": ("isolated", missing("landlock"), "no such thing"),
    "without a word": (
        "isolated",
        NAMESPACES + "namespaces.enter = lambda leash: os._exit(9)\n",
        "it ended with code 9 while it was locked",
    ),
    "without a worker any more": (
        "isolated",
        NAMESPACES
        + """
def enter(leash):
    inner = os.fork()
    if not inner:
        os._exit(5)
    os.waitid(os.P_PID, inner, os.WEXITED | os.WNOWAIT)
    leash.send(b"%d" % inner)
    os._exit(0)
namespaces.enter = enter
""",
        "it ended at once with code 5|exit code 5",
    ),
}
"""What a worker is made without, by a change of the zygote; and how its start is refused."""


@pytest.mark.parametrize(("profile", "change", "reason"), HALF_WAY.values(), ids=HALF_WAY)
async def test_a_spawn_that_fails_half_way_leaves_nothing_open(profile: str, change: str, reason: str) -> None:
    if profile == "isolated" and not user_namespaces():
        pytest.skip("this machine gives no user namespaces")
    async with open_zygote(change) as zygote:
        before = open_in(zygote)
        with pytest.raises(SandboxError, match=reason):
            async with open_pool(Sandbox(zygote, profile), NEIGHBOUR, limits()):
                pass
        await eventually(lambda: children(zygote) == [])
        await eventually(lambda: open_in(zygote) == before)
        worker = await zygote.spawn("process", 64 * MIB)
        await eventually(lambda: open_in(zygote) == before)
        worker.kill()
        assert await end_of_stream(worker.sock)
        worker.close()
        assert zygote.restarts == 0


def open_in(zygote: Zygote) -> dict[str, str]:
    """The zygote's descriptors, and what each is; nothing where only root may look."""
    folder = f"/proc/{zygote.pid}/fd"
    if os.geteuid() != 0:
        return {}
    return {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}


async def end_of_stream(sock: socket.socket) -> bool:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(sock, 1) == b""
