"""The nexlet's side of the zygote: starts the process, asks it for workers, hears how each one ended.

A worker is asked for with a socket to it and with its marker, a page of memory in which it writes what it is at. What
comes back is a descriptor of the process (a pidfd: killing can never hit another process that took over the number).

A zygote that ends takes its workers along (the kernel sees to it); the handle then starts a new one by itself, so that
the next `spawn` finds one. One that is asked for workers and says nothing at all for a while (stopped from outside,
stuck) is ended, which is the same then: nobody who waits for a worker waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import orjson

from nexlet_sandboxes.cgroup import Cgroup
from nexlet_sandboxes.frames import MARKER_SIZE
from nexlet_sandboxes.launching import ARGUMENTS, SHORT_LIVED, Launched, launch
from nexlet_sandboxes.outcomes import SandboxError
from nexlet_sandboxes.permitted import Permitted, to_arguments
from nexlet_sandboxes.processor import used_ns
from nexlet_sandboxes.shortages import in_words

__all__ = ["Exit", "LayerUnavailable", "WorkerProcess", "Zygote", "ZygoteError"]

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_START_TIMEOUT: Final = 30.0
"""Seconds for a Python with everything preloaded to be ready, on a slow and busy machine."""

_SILENCE: Final = 10
"""Looks, a second apart, at a zygote that has been asked for a worker: after so many without a word it is taken for
stuck. Looks and not seconds, since a machine that slept, or a container that was paused, stopped us with it."""

_LOOK: Final = 1.0

_RESTARTS_DELAY: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Seconds before a zygote that ended is started again, by how often in a row it failed to get ready."""


class ZygoteError(SandboxError):
    """The zygote cannot be started, or refuses to make a worker. The message has the system's reason."""

    code = "zygote"


class LayerUnavailable(SandboxError):
    """A worker could not be locked as its profile says, and has ended. The message names the layer and the reason.

    Attributes:
        reason: the layer and the system's reason alone, as in "landlock: this kernel has no Landlock".
    """

    code = "layer-unavailable"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"a worker could not be locked: {reason}; 'nexlet-functions doctor' says what to do")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker process ended.

    Attributes:
        code: as in subprocess (negative: the signal).
        peak_memory_bytes: its peak memory.
        out_of_memory: the kernel killed it because its control group was at its limit.
        cpu_ns: processor time, in all.
    """

    code: int
    peak_memory_bytes: int
    out_of_memory: bool = False
    cpu_ns: int = 0

    def reason(self) -> str:
        """For a log line: "exit code 1", "signal SIGSEGV"."""
        if self.code >= 0:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-self.code).name}"
        return f"signal {-self.code}"


class WorkerProcess:
    """One worker process, as the nexlet holds it.

    Attributes:
        number: its number with this zygote.
        pid: for logs only; signals go through the pidfd.
        sock: the non-blocking socket to it.
        exited: how it ended; None while nobody knows.
    """

    __slots__ = ("_marker", "_pidfd", "exited", "number", "on_exit", "pid", "sock")

    def __init__(self, number: int, pid: int, sock: socket.socket, pidfd: int, marker: mmap.mmap) -> None:
        self.number = number
        self.pid = pid
        self.sock = sock
        self._pidfd = pidfd
        self._marker = marker
        self.exited: Exit | None = None
        self.on_exit: Callable[[Exit], None] | None = None

    @property
    def running_call(self) -> int:
        """The invocation it says it is at; 0 for none. The word of a worker: it decides about its own calls alone.

        Of a batch, the last one.
        """
        return int.from_bytes(self._marker[:8], sys.byteorder)

    @property
    def running_first(self) -> int:
        """The first invocation of the batch it says it is at; 0 where it runs them one at a time."""
        return int.from_bytes(self._marker[32:40], sys.byteorder)

    @property
    def began_ns(self) -> int:
        """When it began that one (CLOCK_MONOTONIC, nanoseconds). Its word; `Link` says how far it is taken."""
        return int.from_bytes(self._marker[8:16], sys.byteorder)

    @property
    def spent_before_ns(self) -> int:
        """Processor time (nanoseconds) that it had spent when it began, about. Its word, like `running_call`."""
        return int.from_bytes(self._marker[16:24], sys.byteorder)

    def usage(self) -> tuple[int, int]:
        """Processor time (nanoseconds) and peak memory (bytes) of the living process; 0 for what cannot be seen."""
        if self.exited is not None:
            return self.exited.cpu_ns, self.exited.peak_memory_bytes
        cpu, peak = used_ns(self.pid), 0
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        return cpu, peak

    @property
    def writes_json(self) -> bool:
        """Whether it says that it writes JSON: the library does not survive that memory runs out."""
        return any(self._marker[24:32])

    def kill(self) -> None:
        """End the process now (SIGKILL); nothing happens where it has ended already."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Have the process stand still (SIGSTOP) until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Give back the descriptors. The process, if it still runs, sees its socket end and ends too."""
        if self._pidfd >= 0:
            self.sock.close()
            os.close(self._pidfd)
            self._marker.close()
            self._pidfd = -1


class _Spawning:
    """A worker that was asked for: our end of its socket, and its marker, which are closed if it does not come."""

    __slots__ = ("future", "marker", "sock")

    def __init__(self, future: asyncio.Future[WorkerProcess], sock: socket.socket, marker: mmap.mmap) -> None:
        self.future = future
        self.sock = sock
        self.marker = marker

    @classmethod
    def begin(cls, future: asyncio.Future[WorkerProcess]) -> tuple[Self, list[int]]:
        """What we keep, and the descriptors that the worker gets.

        Raises:
            OSError: out of descriptors or memory; nothing is left open.
        """
        with contextlib.ExitStack() as made:
            marker = os.memfd_create("marker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            made.callback(os.close, marker)
            os.ftruncate(marker, MARKER_SIZE)
            # A worker that could shrink it would have us killed by SIGBUS at our next look.
            fcntl.fcntl(marker, fcntl.F_ADD_SEALS, _SEALS)
            page = mmap.mmap(marker, MARKER_SIZE, prot=mmap.PROT_READ)  # it keeps a descriptor of its own
            made.callback(page.close)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            made.pop_all()
            return cls(future, ours, page), [theirs.detach(), marker]

    def close(self) -> None:
        """Give back what we keep."""
        self.sock.close()
        self.marker.close()


class Zygote:
    """A zygote process and the workers it made.

    Attributes:
        arguments: what the interpreter is executed with.
        cgroup: where each worker gets a control group; None where no folder for these is delegated.
        on_restart: called with a reason when it ended by itself and a new one is started.
        without: layers that are left out of every worker: the machine lacks them, and the operator permits that.
        restarts: how often it ended by itself and was started again.
    """

    arguments: ClassVar[tuple[str, ...]] = ARGUMENTS

    def __init__(
        self,
        *,
        modules: Permitted | None = None,
        cgroup: Cgroup | None = None,
        on_restart: Callable[[str], None] | None = None,
        short_lived: bool = False,
    ) -> None:
        self.cgroup = cgroup
        self._arguments = (*self.arguments, *([SHORT_LIVED] if short_lived else []), *to_arguments(modules or {}))
        self.on_restart = on_restart
        self._refusal = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._next = 0
        self._spawning: dict[int, _Spawning] = {}
        self._workers: dict[int, WorkerProcess] = {}
        self._ready: asyncio.Future[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._closed = False
        self._looking: asyncio.TimerHandle | None = None
        self._unheard = 0
        self.without: frozenset[str] = frozenset()
        self.restarts = 0

    @classmethod
    async def start(
        cls,
        *,
        modules: Permitted | None = None,
        cgroup: Path | None = None,
        on_restart: Callable[[str], None] | None = None,
        short_lived: bool = False,
        launched: Launched | None = None,
    ) -> Self:
        """Start a zygote and wait until it is ready.

        Args:
            modules: what an operator permits functions to import, beside the allowed ones: workers can import nothing
                that is not in their memory from the beginning.
            cgroup: a delegated folder in which each worker gets a control group (see `Cgroup.open`).
            on_restart: called with a reason when it ended by itself and a new one is started.
            short_lived: see `launching.SHORT_LIVED`.
            launched: a process that may be on its way already. One that is another than is wanted here is ended.

        Raises:
            ZygoteError: it ended at once, is not ready within half a minute, or cannot be had on this system;
                or one of `modules` cannot be given to functions.
            CgroupUnusable: the folder cannot hold the groups of workers.
        """
        if sys.platform != "linux":
            raise ZygoteError(
                f"workers are locked by the Linux kernel, and this is {sys.platform}: run the nexlet on Linux, such as "
                "in a container or a virtual machine"
            )
        # First of all: this process may have to leave that folder, and its children are born where it is.
        opened = Cgroup.open(cgroup) if cgroup is not None else None
        zygote = cls(modules=modules, cgroup=opened, on_restart=on_restart, short_lived=short_lived)
        if launched is not None and (opened is not None or launched.arguments != zygote._arguments):
            launched.end()
            launched = None
        try:
            await zygote._launch(launched)
        except BaseException:
            if opened is not None:
                opened.close()
            raise
        return zygote

    @property
    def pid(self) -> int | None:
        """Of the running process; None between two of them."""
        return self._process.pid if self._process is not None else None

    @property
    def lives(self) -> bool:
        """Whether workers can be had of it now: it runs, is ready, and is not being started again."""
        return self._control is not None and self._restarting is None and not self._closed

    async def _launch(self, launched: Launched | None = None) -> None:
        loop = asyncio.get_running_loop()
        launched = launched or launch(self._arguments)
        self._process, self._control = launched.process, launched.control
        self._ready = loop.create_future()
        self._refusal = ""
        loop.add_reader(self._control, self._on_readable)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._ready
            if self.cgroup is not None:
                delegated = {"folder": str(self.cgroup.own), "controllers": self.cgroup.controllers}
                self._control.send(orjson.dumps(delegated))
        except BaseException as error:
            # Cancelled, too: nobody but us knows of the process.
            self._drop()
            self._process.wait()  # it was killed: a matter of milliseconds
            if isinstance(error, TimeoutError):
                raise ZygoteError(f"the zygote was not ready within {_START_TIMEOUT:.0f} seconds") from None
            raise

    async def spawn(
        self, profile: str, memory: int, *, probe: str = "", without: Collection[str] = ()
    ) -> WorkerProcess:
        """A new worker process, locked as `profile` says and waiting for what to load.

        Args:
            memory: bytes it may grow by, above what it is when it is ready to load.
            probe: a layer to be tried (see `kernel.trials`), by a process that loads nothing and ends with the trial.
            without: layers to leave out, besides those that all workers of this zygote are `without`.

        Raises:
            LayerUnavailable: there are no namespaces to be had; about other layers the worker itself says so.
            ZygoteError: it could not be made: out of processes, memory or descriptors, or the zygote is gone.
        """
        if self._restarting is not None:
            await asyncio.shield(self._restarting)
        if self._closed or self._control is None:
            raise ZygoteError("the zygote is closed")
        self._next += 1
        number = self._next
        loop = asyncio.get_running_loop()
        future: asyncio.Future[WorkerProcess] = loop.create_future()
        missing = ",".join(sorted(self.without.union(without)))
        request = f"{number} {memory} {profile}{f'/{probe}' if probe else ''} {missing}"
        try:
            spawning, given = _Spawning.begin(future)
        except OSError as error:
            raise ZygoteError(in_words(error)) from error
        self._spawning[number] = spawning
        if self._looking is None:
            self._unheard = 0
            self._looking = loop.call_later(_LOOK, self._look)
        try:
            try:
                socket.send_fds(self._control, [request.encode()], given)
            finally:
                for descriptor in given:
                    os.close(descriptor)
            return await future
        except asyncio.CancelledError:
            # It may have come in the very moment in which nobody waits any more.
            if future.done() and not future.cancelled() and future.exception() is None:
                worker = future.result()
                worker.kill()
                worker.close()
            raise
        except OSError as error:
            raise ZygoteError(f"the zygote does not take a request: {error}") from error
        finally:
            # Whoever stopped waiting gets no worker: it is killed when it comes (`_on_spawned`).
            if self._spawning.pop(number, None) is not None:
                spawning.close()

    def _look(self) -> None:
        self._looking = None
        if not self._spawning or self._control is None:
            return
        self._unheard += 1
        if self._unheard > _SILENCE:
            self._lost(f"it was asked for a worker and has said nothing for {_SILENCE * _LOOK:g} seconds")
            return
        self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    async def close(self) -> None:
        """End the zygote and, with it, every worker."""
        self._closed = True
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        process = self._process
        self._drop()
        loop = asyncio.get_running_loop()
        if process is not None:
            await loop.run_in_executor(None, process.wait)
        if self.cgroup is not None:
            await loop.run_in_executor(None, self.cgroup.close)

    def _drop(self) -> None:
        """Forget the process: close the control socket (it ends then), and kill it in case it does not."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
        error = ZygoteError("the zygote ended")
        for spawning in self._spawning.values():
            if not spawning.future.done():
                spawning.future.set_exception(error)
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            # Their parent is gone and they with it; nobody is left to tell the exit code.
            self._exited(worker, Exit(-int(signal.SIGKILL), 0))

    def _on_readable(self) -> None:
        assert self._control is not None
        while self._control is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 4)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(f"its socket failed: {error}")
                return
            if not data:
                self._lost("it ended")
                return
            self._on_message(orjson.loads(data), descriptors)

    def _on_message(self, message: dict[str, Any], descriptors: list[int]) -> None:
        self._unheard = 0
        if "exited" in message:
            worker = self._workers.pop(message["exited"], None)
            if worker is not None:
                self._exited(
                    worker, Exit(message["code"], message["peak_kib"] * 1024, message["oom"], message["cpu_ns"])
                )
        elif "spawned" in message:
            self._on_spawned(message, descriptors)
        elif "refused" in message:
            self._refusal = message["refused"]  # its end is next
        elif self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _on_spawned(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number = message["spawned"]
        spawning = self._spawning.get(number)
        awaited = spawning is not None and not spawning.future.done()
        if "error" in message:
            if spawning is not None and awaited:
                reason = message["error"]
                spawning.future.set_exception(LayerUnavailable(reason) if message["layer"] else ZygoteError(reason))
            return
        if not descriptors:
            # We have no room for it, and the kernel has dropped it. The worker ends with our end of its socket.
            if spawning is not None and awaited:
                error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                spawning.future.set_exception(ZygoteError(in_words(error)))
            return
        (pidfd,) = descriptors
        if spawning is None or not awaited:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return
        del self._spawning[number]
        worker = WorkerProcess(number, message["pid"], spawning.sock, pidfd, spawning.marker)
        self._workers[number] = worker
        spawning.future.set_result(worker)

    @staticmethod
    def _exited(worker: WorkerProcess, how: Exit) -> None:
        worker.exited = how
        if worker.on_exit is not None:
            worker.on_exit(how)

    def _lost(self, reason: str) -> None:
        starting = self._ready is not None and not self._ready.done()
        process = self._process
        self._drop()
        if process is not None:
            code = process.wait()  # it has ended or was just killed: there is nothing to wait for
            reason = f"{reason} (exit code {code})"
        if starting:
            assert self._ready is not None
            self._ready.set_exception(ZygoteError(self._refusal or f"the zygote did not start: {reason}"))
            return
        if not self._closed:
            self._restarting = asyncio.get_running_loop().create_task(self._restart(reason), name="zygote restart")

    async def _restart(self, reason: str) -> None:
        for delay in itertools.chain(_RESTARTS_DELAY, itertools.repeat(_RESTARTS_DELAY[-1])):
            if self.on_restart is not None:
                self.on_restart(reason)
            await asyncio.sleep(delay)
            try:
                if self.cgroup is not None:
                    await asyncio.get_running_loop().run_in_executor(None, self.cgroup.empty)
                await self._launch()
            except ZygoteError as error:
                reason = str(error)
            else:
                self.restarts += 1
                self._restarting = None
                return
