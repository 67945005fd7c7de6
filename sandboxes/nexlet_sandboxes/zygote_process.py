"""The zygote process: everything preloaded, it forks a worker on request and tells how each one ended.

Executed by the nexlet, by way of `zygote_main`, with an empty environment and its control socket as standard input,
before the nexlet has connected anywhere: nothing secret is ever in its memory. One thread, no event loop, and as few
objects as can be, since every worker begins as a copy of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson

from nexlet_sandboxes import language
from nexlet_sandboxes.frames import Kind, frame
from nexlet_sandboxes.kernel import cgroups, process
from nexlet_sandboxes.kernel.locks import Around, LayerFailed, apply, prepare
from nexlet_sandboxes.kernel.namespaces import GO
from nexlet_sandboxes.kernel.trials import TRIALS
from nexlet_sandboxes.outcomes import ModulesRefused
from nexlet_sandboxes.permitted import from_arguments
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.shortages import in_words
from nexlet_sandboxes.worker.loop import Worker

__all__ = ["main"]

MARKER_SIZE: Final = mmap.PAGESIZE
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def main(modules: Sequence[str] = ()) -> None:
    """Serve until the control socket ends.

    Args:
        modules: what an operator permits functions to import, as `permitted.to_arguments` says it.
    """
    parent = os.getppid()
    process.die_with_parent(parent)
    process.dumpable(False)
    process.adopt_orphans()
    control = socket.socket(fileno=os.dup(0))
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # The nexlet ends us by closing the socket: a Ctrl-C at its terminal is its own business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    try:
        language.preload(from_arguments(modules))
    except ModulesRefused as refused:
        control.send(orjson.dumps({"refused": str(refused)}))
        return
    prepare()
    gc.collect()
    gc.freeze()
    control.send(orjson.dumps({"ready": os.getpid()}))
    # A nexlet that was killed leaves what it had not read, or a socket that takes nothing: our end all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Nursery(control).serve(wake_read)


@dataclass(frozen=True, slots=True)
class _Unborn:
    """A worker whose first process is making namespaces for it.

    Attributes:
        number: of the worker.
        leash: our end of the socket over which that process says who the inner one is.
        sock, marker: descriptors that the nexlet will get.
    """

    number: int
    leash: socket.socket
    sock: int
    marker: int


class _Nursery:
    """What the zygote does: makes workers, and tells how each one ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: dict[int, int] = {}
        self._unborn: dict[int, _Unborn] = {}
        self._early: dict[int, int] = {}
        self._groups: dict[int, cgroups.Group] = {}
        self._lingering: set[Path] = set()

    def serve(self, wake: int) -> None:
        """Serve until the control socket ends; `wake` becomes readable when a child has ended."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake:
                    os.read(wake, 4096)
                    self._reap()
                    self._lingering = {path for path in self._lingering if not cgroups.remove(path)}
                    continue
                data = self._control.recv(65536)
                if not data:
                    return
                self._spawn(orjson.loads(data))

    def _spawn(self, request: dict[str, Any]) -> None:
        number = request["spawn"]
        opened: list[int] = []
        last, without, delegated = request.get("probe", ""), request["without"], request.get("cgroup")
        layers = PROFILES[request["profile"]].around(cgroup=delegated is not None)
        wanted = layers[: layers.index(last) + 1] if last else layers
        leashed = "namespaces" in wanted and "namespaces" not in without
        leash = child_leash = None
        try:
            group = -1
            if delegated is not None and "cgroup" not in without:
                group = self._make_group(number, delegated, request["memory"], 2 if leashed else 1)
                opened.append(group)
            ours, theirs = (end.detach() for end in socket.socketpair())
            opened += [ours, theirs]
            marker = os.memfd_create("marker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            opened.append(marker)
            os.ftruncate(marker, MARKER_SIZE)
            # A worker that could shrink it would have the nexlet killed by SIGBUS at its next look.
            fcntl.fcntl(marker, fcntl.F_ADD_SEALS, _SEALS)
            if leashed:
                leash, child_leash = socket.socketpair()
            zygote = os.getpid()
            pid, inside = _fork(group)
            if pid == 0:
                _become_worker(theirs, marker, request, layers, zygote, child_leash, group, inside=inside)
            if leash is not None:
                self._unborn[pid] = _Unborn(number, leash, ours, marker)
                opened.remove(ours)
                opened.remove(marker)
                return
            self._workers[pid] = number
            self._tell_spawned(number, pid, ours, marker)
        except OSError as error:
            if leash is not None:
                leash.close()
            self._end_group(number)
            if isinstance(error, LayerFailed):
                self._tell_refused(number, str(error), layer=True)
            else:
                self._tell_refused(number, in_words(error))
        finally:
            for descriptor in opened:
                os.close(descriptor)
            if child_leash is not None:
                child_leash.close()

    def _make_group(self, number: int, delegated: dict[str, Any], memory: int, processes: int) -> int:
        """The control group of a worker to be, and a descriptor of it."""
        path = Path(delegated["folder"]) / str(number)
        try:
            group = cgroups.Group.make(path, delegated["controllers"], memory=memory, processes=processes)
        except OSError as error:
            raise LayerFailed(f"cgroup: {error.strerror or error}") from error
        self._groups[number] = group
        return group.open()

    def _end_group(self, number: int) -> bool:
        """Remove the group of a worker that is gone; whether it ended for want of memory."""
        group = self._groups.pop(number, None)
        if group is None:
            return False
        out_of_memory = cgroups.ran_out_of_memory(group.path)
        if not cgroups.remove(group.path):
            self._lingering.add(group.path)  # whatever is in it was killed, and is ours to reap: then it goes
        return out_of_memory

    def _tell_spawned(self, number: int, pid: int, sock: int, marker: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            socket.send_fds(self._control, [orjson.dumps({"spawned": number, "pid": pid})], [sock, pidfd, marker])
        finally:
            os.close(pidfd)

    def _tell_refused(self, number: int, reason: str, *, layer: bool = False) -> None:
        self._control.send(orjson.dumps({"spawned": number, "error": reason, "layer": layer}))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            unborn = self._unborn.pop(pid, None)
            if unborn is not None:
                self._born(unborn, code)
                if not self._unborn:
                    self._early.clear()
                continue
            number = self._workers.pop(pid, None)
            if number is not None:
                said = {
                    "exited": number,
                    "code": code,
                    "peak_kib": usage.ru_maxrss,
                    "cpu_ns": int((usage.ru_utime + usage.ru_stime) * 1e9),
                    "oom": self._end_group(number),
                }
                self._control.send(orjson.dumps(said))
            elif self._unborn:
                # An inner process that ended before its first process, which has yet to tell us its number.
                self._early[pid] = code

    def _born(self, unborn: _Unborn, code: int) -> None:
        """The first process of a leashed worker has ended: from now on the inner one is our own child."""
        number = unborn.number
        try:
            with unborn.leash as leash:
                leash.setblocking(False)  # what it had to say it said before it ended
                try:
                    said = leash.recv(4096)
                except BlockingIOError:
                    said = b""
                if not said:
                    self._tell_refused(number, f"it ended with code {code} while it was locked")
                    return
                if not said.isdigit():
                    self._tell_refused(number, said.decode("utf-8", "replace"), layer=True)
                    return
                inner = int(said)
                if inner in self._early:
                    self._tell_refused(number, f"it ended at once with code {self._early.pop(inner)}")
                    return
                self._workers[inner] = number
                group = self._groups.get(number)
                if group is not None:
                    group.alone()
                self._tell_spawned(number, inner, unborn.sock, unborn.marker)
                leash.send(GO)
        except OSError as error:
            self._tell_refused(number, in_words(error))
        finally:
            os.close(unborn.sock)
            os.close(unborn.marker)
            if number not in self._workers.values():
                self._end_group(number)


def _fork(group: int) -> tuple[int, bool]:
    """fork(2), into a control group where there is one: the child's number, and whether the child is in it."""
    if group < 0:
        return os.fork(), False
    try:
        return cgroups.fork_into(group)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise  # no process is to be had, in any group
        raise LayerFailed(f"cgroup: {error.strerror}") from error


def _become_worker(
    descriptor: int,
    marker: int,
    request: dict[str, Any],
    layers: Sequence[str],
    zygote: int,
    leash: socket.socket | None,
    group: int,
    *,
    inside: bool,
) -> NoReturn:
    code = 1
    try:
        # SIGINT and SIGTERM stay ignored: who ends a whole control group with them lets the nexlet finish what runs.
        signal.set_wakeup_fd(-1)
        page = mmap.mmap(marker, MARKER_SIZE)
        sock = socket.socket(fileno=descriptor)
        probe = request.get("probe", "")
        trial = TRIALS[probe] if probe else None
        try:
            keep = (descriptor,) if leash is None else (descriptor, leash.fileno())
            around = Around(zygote, keep, request["spawn"], request["memory"], leash, -1 if inside else group)
            planted = 0
            if trial is not None:
                planted = group if probe == "cgroup" else trial.prepare()
            apply(layers, around, without=request["without"], last=probe)
        except LayerFailed as error:
            if leash is not None and leash.fileno() >= 0:
                leash.sendall(str(error).encode()[:4096])
            elif trial is not None:
                sock.sendall(orjson.dumps({"refused": str(error)}))
            else:
                sock.sendall(frame(Kind.FAILED, str(error).encode()))
            os._exit(1)
        if trial is not None:
            sock.sendall(orjson.dumps(trial.attempt(planted)))
            os._exit(0)
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
    main(sys.argv[1:])
