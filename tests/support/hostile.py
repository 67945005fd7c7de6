"""Workers that are no processes: a socket of which the test holds the other end, and says what it likes on it.

`Stage` stands in for a zygote. What it makes is played by a script: a coroutine that gets the `Peer`, the far end of
the socket. The first worker has the test's script; those after it behave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from nexlet_sandboxes.asking import Answerer, unpack
from nexlet_sandboxes.frames import HEADER, INVOKE, MAX_BODY, RESULT, RESULT_EXTRA, Ending, Kind, Splitter, frame
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Exit, WorkerProcess, Zygote
from tests.support.pools import KeepingSink

__all__ = ["Peer", "Script", "Stage", "answer", "behave", "open_stage"]


def answer(call: int, body: bytes = b"", *, ending: int = Ending.OK, headers: bytes = b"", code: int = 0) -> bytes:
    """A RESULT frame."""
    size = RESULT_EXTRA + len(headers) + len(body)
    return RESULT.pack(size, Kind.RESULT, ending, code, call, 10, 10, 1, len(headers)) + headers + body


class Peer:
    """The far end of a worker's socket.

    Attributes:
        marker: what the worker says it is at; of a batch the last one.
        first: the first one of a batch.
        began_ns: since when, as it says: when it read the last invocation.
        compiled: the compiled form that it was given to load.
        killed: whether the nexlet has ended it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._frames = Splitter(MAX_BODY)
        self._invocations: list[tuple[int, bytes]] = []
        self._answers: list[tuple[int, int, list[bytes]]] = []
        self.marker = self.first = 0
        self.began_ns = 0
        self.compiled = b""
        self._given = False
        self.killed = asyncio.Event()
        self.on_killed: Callable[[], None] = lambda: None

    async def load(self) -> None:
        """Take what is to be loaded, and be ready."""
        await self.take()
        await self.say(frame(Kind.READY))

    async def take(self) -> None:
        """Take what is to be loaded, and say nothing."""
        while not self._given:
            await self._receive()

    async def invocation(self) -> tuple[int, bytes]:
        """The next invocation: its id and its payload.

        Raises:
            ConnectionError: the nexlet has let go of the socket.
        """
        while not self._invocations:
            await self._receive()
        return self._invocations.pop(0)

    async def answer(self) -> tuple[int, int, list[bytes]]:
        """The next answer to a call: its status, the call's number, and its parts.

        Raises:
            ConnectionError: the nexlet has let go of the socket.
        """
        while not self._answers:
            await self._receive()
        return self._answers.pop(0)

    async def say(self, data: bytes) -> None:
        """Write bytes, whatever they are.

        Raises:
            ConnectionError: the nexlet has let go of the socket.
        """
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 20)
        if not data:
            raise ConnectionResetError("the nexlet has closed the socket")
        for kind, flag, _, call, buffer, start, end in self._frames.feed(data):
            if kind == Kind.LOAD:
                self._given, self.compiled = True, buffer[start + call : end]
            elif kind == Kind.ANSWER:
                self._answers.append((flag, call, unpack(buffer[start:end])))
            elif kind == Kind.INVOKE:
                self.began_ns = time.monotonic_ns()
                sizes = INVOKE.unpack_from(buffer, start - HEADER.size)[5:8]
                at = start - HEADER.size + INVOKE.size + sum(sizes)
                self._invocations.append((call, buffer[at:end]))

    def end(self) -> None:
        """Close this end, as a process does that dies."""
        self._sock.close()


class _Played(WorkerProcess):
    """A worker process as far as a link can tell."""

    __slots__ = ("peer",)

    def __init__(self, number: int, sock: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.number = number
        self.pid = os.getpid()
        self.sock = sock
        self.exited: Exit | None = None
        self.on_exit: Callable[[Exit], None] | None = None

    @property
    def running_call(self) -> int:
        return self.peer.marker

    @property
    def running_first(self) -> int:
        return self.peer.first

    @property
    def began_ns(self) -> int:
        return self.peer.began_ns

    @property
    def spent_before_ns(self) -> int:
        return 0

    def kill(self) -> None:
        if not self.peer.killed.is_set():
            self.peer.killed.set()
            asyncio.get_running_loop().call_soon(self._exit)

    def _exit(self) -> None:
        self.peer.on_killed()
        self.exited = Exit(-int(signal.SIGKILL), 0)
        if self.on_exit is not None:
            self.on_exit(self.exited)

    def close(self) -> None:
        self.sock.close()


Script = Callable[[Peer], Awaitable[None]]


async def translate(peer: Peer) -> None:
    """The first worker of a pool: it is given the sources, and says that it keeps no compiled form of them."""
    await peer.load()


async def behave(peer: Peer) -> None:
    """A worker as it should be: every payload comes back."""
    await peer.load()
    while True:
        call, payload = await peer.invocation()
        peer.marker = call
        await peer.say(answer(call, payload))


class Stage:
    """In the place of a zygote: plays its workers, the first one that is to serve by the script it is given.

    The one before it, which is to compile, follows `compiler`.

    Attributes:
        peers: those that are to serve.
    """

    def __init__(self, script: Script, compiler: Script = translate) -> None:
        self._compiler = compiler
        self._scripts = [compiler, script]
        self.peers: list[Peer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def spawn(self, profile: str, memory: int) -> WorkerProcess:
        """As `Zygote.spawn`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        peer = Peer(theirs)
        script = self._scripts.pop(0) if self._scripts else behave
        if script is not self._compiler:
            self.peers.append(peer)
        task = asyncio.create_task(self._play(peer, script))
        peer.on_killed = lambda: cast("None", task.cancel())
        self._tasks.add(task)
        return _Played(len(self.peers), ours, peer)

    @staticmethod
    async def _play(peer: Peer, script: Script) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await script(peer)
                # A script that is at its end is a worker that says no more: it is there until it is killed.
                await peer.killed.wait()
        finally:
            peer.end()

    async def close(self) -> None:
        """End whoever still plays.

        Raises:
            BaseException: what a script raised.
        """
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


@contextlib.asynccontextmanager
async def open_stage(
    script: Script,
    limits: Limits,
    *,
    compiler: Script = translate,
    answerer: Answerer | None = None,
    batch: int = 1,
) -> AsyncIterator[tuple[Pool, KeepingSink, Stage]]:
    """A started pool whose first worker follows `script`, and the process that compiles for it `compiler`."""
    stage, sink = Stage(script, compiler), KeepingSink()
    pool = Pool(cast("Zygote", stage), Program("played", batch=batch), limits, sink, answerer=answerer)
    try:
        await pool.start()
        yield pool, sink, stage
    finally:
        await pool.close()
        await stage.close()
