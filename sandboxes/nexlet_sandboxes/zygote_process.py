"""The zygote process: everything preloaded, it forks a worker on request and tells how each one ended.

Executed by the nexlet as `python -I -m nexlet_sandboxes.zygote_process` with an empty environment and its control
socket as standard input, before the nexlet has connected anywhere: nothing secret is ever in its memory. One thread,
no event loop, and as few objects as can be, since every worker begins as a copy of it.
"""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, Final, NoReturn

import orjson

from nexlet_sandboxes import language
from nexlet_sandboxes.frames import Kind, frame
from nexlet_sandboxes.kernel import process
from nexlet_sandboxes.kernel.locks import Around, LayerFailed, apply
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.worker.loop import Worker

__all__ = ["main"]

MARKER_SIZE: Final = mmap.PAGESIZE
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def main() -> None:
    """Serve until the control socket ends."""
    parent = os.getppid()
    process.die_with_parent(parent)
    process.not_dumpable()
    control = socket.socket(fileno=os.dup(0))
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # The nexlet ends us by closing the socket: a Ctrl-C at its terminal is its own business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    language.preload()
    gc.collect()
    gc.freeze()
    control.send(orjson.dumps({"ready": os.getpid()}))
    workers: dict[int, int] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wake_read:
                os.read(wake_read, 4096)
                _reap(control, workers)
                continue
            data = control.recv(65536)
            if not data:
                return
            _spawn(control, orjson.loads(data), workers)


def _spawn(control: socket.socket, request: dict[str, Any], workers: dict[int, int]) -> None:
    number = request["spawn"]
    opened: list[int] = []
    try:
        ours, theirs = socket.socketpair()
        opened += [ours.detach(), theirs.detach()]
        marker = os.memfd_create("marker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        opened.append(marker)
        os.ftruncate(marker, MARKER_SIZE)
        # A worker that could shrink it would have the nexlet killed by SIGBUS at its next look.
        fcntl.fcntl(marker, fcntl.F_ADD_SEALS, _SEALS)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_worker(opened[1], marker, request, zygote)
        workers[pid] = number
        opened.append(os.pidfd_open(pid))
        socket.send_fds(control, [orjson.dumps({"spawned": number, "pid": pid})], [opened[0], opened[3], marker])
    except OSError as error:
        control.send(orjson.dumps({"spawned": number, "error": f"{type(error).__name__}: {error}"}))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _reap(control: socket.socket, workers: dict[int, int]) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = workers.pop(pid, None)
        if number is not None:
            code = os.waitstatus_to_exitcode(status)
            control.send(orjson.dumps({"exited": number, "code": code, "peak_kib": usage.ru_maxrss}))


def _become_worker(descriptor: int, marker: int, request: dict[str, Any], zygote: int) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        page = mmap.mmap(marker, MARKER_SIZE)
        sock = socket.socket(fileno=descriptor)
        try:
            around = Around(parent=zygote, keep=(descriptor,), number=request["spawn"], memory=request["memory"])
            apply(PROFILES[request["profile"]], around)
        except LayerFailed as error:
            sock.sendall(frame(Kind.FAILED, str(error).encode()))
            os._exit(1)
        Worker(sock, memoryview(page).cast("Q")).serve()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the nexlet has no use for us any more
    except BaseException:  # noqa: BLE001  # nothing may climb into the zygote's loop: this is another process
        # Standard error is /dev/null by now unless a layer failed before the descriptors were closed.
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
