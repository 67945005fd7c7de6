"""The zygote process: everything preloaded, it forks a worker on request and tells how each one ended.

Executed by the nexlet, by way of `zygote_main`, with an empty environment and its control socket as standard input,
before the nexlet has connected anywhere: nothing secret is ever in its memory. One thread, no event loop, and as few
objects as can be, since every worker begins as a copy of it.

What it does for each worker is kept to the least, because each page that it writes to after a fork is from then on that
worker's alone: the nexlet brings the socket and the marker, locks are made ready once for each kind of worker, and the
descriptors of the one to come always have the same numbers, so that what uses them is made before there is any.

    nexlet: {"folder": FOLDER, "controllers": [...]}, where control groups are delegated
            NUMBER MEMORY KIND, with the worker's socket and marker      KIND: PROFILE[/LAYER TO TRY] [WITHOUT,...]
    zygote: {"spawned": NUMBER, "pid": PID}, with a pidfd; or {"spawned": NUMBER, "error": TEXT, "layer": BOOL}
            {"exited": NUMBER, "code": CODE, "peak_kib": KIB, "cpu_ns": NANOSECONDS, "oom": BOOL}
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson

from nexlet_sandboxes import language
from nexlet_sandboxes.frames import MARKER_SIZE, Kind, frame
from nexlet_sandboxes.kernel import cgroups, process
from nexlet_sandboxes.kernel.locks import Around, LayerFailed, Plan, apply, plan
from nexlet_sandboxes.kernel.namespaces import GO
from nexlet_sandboxes.kernel.steps import run
from nexlet_sandboxes.kernel.trials import TRIALS
from nexlet_sandboxes.outcomes import ModulesRefused
from nexlet_sandboxes.permitted import from_arguments
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.shortages import in_words
from nexlet_sandboxes.worker.loop import Worker
from nexlet_sandboxes.worker.rehearsal import TIMES, Again, rehearse

__all__ = ["main"]

_GIVEN: Final = ("socket", "marker")
"""What the nexlet sends along with a request, as descriptors."""

_EXITED: Final = b'{"exited":%d,"code":%d,"peak_kib":%d,"cpu_ns":%d,"oom":%b}'
_DESCRIPTOR: Final = struct.Struct("i")
_ANCILLARY: Final = socket.CMSG_SPACE(len(_GIVEN) * _DESCRIPTOR.size)


def main(modules: Sequence[str] = (), *, short_lived: bool = False) -> None:
    """Serve until the control socket ends.

    Args:
        modules: what an operator permits functions to import, as `permitted.to_arguments` says it.
        short_lived: whether it is not worth the time to rehearse what its few workers will do.
    """
    parent = os.getppid()
    run((*process.dumpable(False), *process.adopt_orphans()))
    try:
        run(process.die_with_parent(parent))
    except OSError:
        return  # it has ended already
    # See `zygote`: without TZ libc goes and looks for the machine's own.
    os.environ.clear()
    os.environ["TZ"] = "UTC"
    control = socket.socket(fileno=os.dup(0))
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # The nexlet ends us by closing the socket: a Ctrl-C at its terminal is its own business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, stack: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    # Once goes through everything: nothing is left to be imported by a worker, which reads no files.
    times = 1 if short_lived else TIMES
    # A nexlet that was killed leaves what it had not read, or a socket that takes nothing: our end all the same. So
    # does a command that was interrupted before we were ready.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            language.preload(from_arguments(modules), times=times)
        except ModulesRefused as refused:
            control.send(orjson.dumps({"refused": str(refused)}))
            return
        rehearse(times=times)
        nursery = _Nursery(control)
        language.set_aside()
        gc.collect()
        gc.freeze()
        control.send(orjson.dumps({"ready": os.getpid()}))
        nursery.serve(wake_read)


@dataclass(frozen=True, slots=True)
class _Unborn:
    """A worker whose first process is making namespaces for it.

    Attributes:
        number: of the worker.
        leash: our end of the socket over which that process says who the inner one is.
    """

    number: int
    leash: socket.socket


class _Nursery:
    """What the zygote does: makes workers, and tells how each one ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: dict[int, int] = {}
        self._unborn: dict[int, _Unborn] = {}
        self._early: dict[int, int] = {}
        # The next worker's socket, marker and leash will have the numbers of these; until then, a socket to nobody.
        with socket.socketpair()[0] as nobody:
            self._nobody = os.dup(nobody.fileno())
        self._places = sock, marker, leash = tuple(os.dup(self._nobody) for _ in range(3))
        self._marker = marker
        self._leash = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, leash)
        self._worker = Worker(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, sock))
        self._worker.rehearse = Again()
        signal.signal(signal.SIGALRM, self._worker.on_timer)
        self._around = Around(os.getpid(), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), sock, self._leash)
        self._plans: dict[bytes, Plan] = {}
        self._delegated: dict[str, Any] = {}
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
                    if self._lingering:
                        self._lingering = {path for path in self._lingering if not cgroups.remove(path)}
                    continue
                data, ancillary, _, _ = self._control.recvmsg(4096, _ANCILLARY)
                if not data:
                    return
                if data[:1] == b"{":
                    self._delegated = orjson.loads(data)
                    continue
                self._spawn(data, [number for _, _, some in ancillary for (number,) in _DESCRIPTOR.iter_unpack(some)])

    def _spawn(self, request: bytes, given: list[int]) -> None:
        name, memory, kind = request.split(b" ", 2)
        number = int(name)
        places, leash, group = self._places, None, -1
        try:
            if len(given) != len(_GIVEN):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            os.dup2(given[0], places[0], False)
            os.dup2(given[1], places[1], False)
            planned = self._plans.get(kind) or self._plan(kind)
            if planned.grouped:
                group = self._make_group(number, int(memory), 2 if planned.leashed else 1)
            if planned.leashed:
                leash, theirs = socket.socketpair()
                with theirs:
                    os.dup2(theirs.fileno(), places[2], False)
            pid, inside = _fork(group)
            if pid == 0:
                self._become_worker(number, int(memory), planned, group, inside=inside)
            if leash is None:
                self._workers[pid] = number
                self._tell_spawned(number, pid)
            else:
                self._unborn[pid] = _Unborn(number, leash)
        except OSError as error:
            if leash is not None:
                leash.close()
            self._end_group(number)
            if isinstance(error, LayerFailed):
                self._tell_refused(number, str(error), layer=True)
            else:
                self._tell_refused(number, in_words(error))
        finally:
            # What only the worker is to have, has to end with it.
            for place in places:
                os.dup2(self._nobody, place, False)
            for descriptor in given:
                os.close(descriptor)
            if group >= 0:
                os.close(group)

    def _make_group(self, number: int, memory: int, processes: int) -> int:
        """The control group of a worker to be, and a descriptor of it."""
        path = Path(self._delegated["folder"]) / str(number)
        try:
            group = cgroups.Group.make(path, self._delegated["controllers"], memory=memory, processes=processes)
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

    def _plan(self, kind: bytes) -> Plan:
        what, _, without = kind.decode().partition(" ")
        profile, _, last = what.partition("/")
        layers = PROFILES[profile].around(cgroup=bool(self._delegated))
        planned = plan(layers, self._around, without=without.split(","), last=last)
        self._plans[kind] = planned
        return planned

    def _tell_spawned(self, number: int, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            message = b'{"spawned":%d,"pid":%d}' % (number, pid)
            self._control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(pidfd))])
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
                oom = b"true" if self._groups and self._end_group(number) else b"false"
                cpu_ns = int((usage.ru_utime + usage.ru_stime) * 1e9)
                self._control.send(_EXITED % (number, code, usage.ru_maxrss, cpu_ns, oom))
            elif self._unborn:
                # An inner process that ended before its first process, which has yet to tell us its number.
                self._early[pid] = code

    def _born(self, unborn: _Unborn, code: int) -> None:
        """The first process of a leashed worker has ended: from now on the inner one is our own child."""
        number = unborn.number
        with unborn.leash as leash:
            try:
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
                self._tell_spawned(number, inner)
                leash.send(GO)
            except OSError as error:
                self._tell_refused(number, in_words(error))
            finally:
                if number not in self._workers.values():
                    self._end_group(number)

    def _become_worker(self, number: int, memory: int, planned: Plan, group: int, *, inside: bool) -> NoReturn:
        code = 1
        worker, leash = self._worker, self._leash
        try:
            # SIGINT and SIGTERM stay ignored: who ends a control group with them lets the nexlet finish what runs.
            signal.set_wakeup_fd(-1)
            worker.marker = memoryview(mmap.mmap(self._marker, MARKER_SIZE)).cast("Q")
            self._around.fill_in(number, memory, -1 if inside else group)
            trial = TRIALS[planned.last] if planned.last else None
            try:
                planted = 0
                if trial is not None:
                    planted = group if planned.last == "cgroup" else trial.prepare()
                apply(planned)
            except LayerFailed as error:
                if planned.leashed and leash.fileno() >= 0:
                    leash.sendall(str(error).encode()[:4096])
                elif trial is not None:
                    worker.sock.sendall(orjson.dumps({"refused": str(error)}))
                else:
                    worker.sock.sendall(frame(Kind.FAILED, str(error).encode()))
                os._exit(1)
            if trial is not None:
                worker.sock.sendall(orjson.dumps(trial.attempt(planted)))
                os._exit(0)
            worker.serve()
            code = 0
        except (BrokenPipeError, ConnectionResetError):
            code = 0  # the nexlet has no use for us any more
        except BaseException:  # noqa: BLE001  # nothing may climb into the zygote's loop: this is another process
            # Standard error is /dev/null by now unless a layer failed before the descriptors were closed.
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(code)


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


if __name__ == "__main__":
    main(sys.argv[1:])
