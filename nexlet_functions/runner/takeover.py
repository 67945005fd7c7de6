"""One nexlet takes over from another on the same machine, under load and without a lost request.

The one that runs (`HandOver` is its side) listens on a socket in its state folder. The new one (`Predecessor` is its
end of the conversation) reads what the state has, starts all of it beside the old one, in the same queue groups, and
subscribes to the endpoints without answering yet. Only when everything runs does it ask for the state: the old one ends
its endpoints, finishes what it is asked, and passes the lock of the folder on, as a descriptor. The new one catches up
with what has changed meanwhile, answers, and says so; then the old one drains and ends. Whatever goes wrong before that
last word leaves the old one in charge.

    new                                  old
    {"ask": "begin"}             ->
                                 <-      {"pid", "not_running": [...]}          starts everything, subscribes
    {"ask": "hand over"}         ->
                                 <-      {"handed": true} + the lock            catches up, answers
    {"ask": "done", "same": ...} ->                                            drains, ends

A message is one packet of JSON. The socket is for the folder's owner alone (and root), which the kernel tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import structlog

from nexlet_functions.errors import NexletFunctionsError

__all__ = ["HandOver", "HandsOver", "Predecessor", "TakeOverFailed"]

VERSION = 1
SOCKET = "handover.sock"

_MOST = 128 * 1024
"""Bytes of one message."""
_ANSWER = 90.0
"""Seconds for an answer: a start that the old one is being asked for may take a minute."""
_DONE = 90.0
"""Seconds that the new one has to catch up, before the old one goes on as before."""

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class TakeOverFailed(NexletFunctionsError):
    """The other nexlet stays in charge."""

    code = "take-over-failed"


class HandsOver(Protocol):
    """What the side that hands over needs of its runner."""

    async def not_running(self) -> Sequence[str]:
        """Workloads that are kept but do not run here: the new one need not do better.

        Raises:
            TakeOverFailed: nothing can be handed over now; the text says why.
        """
        ...

    async def hand_over(self) -> int:
        """Answer no endpoint any more, finish what was asked, and give the lock of the state, which stays ours too.

        Raises:
            TakeOverFailed: not all of the state is on the disk.
        """
        ...

    async def go_on(self) -> None:
        """It came to nothing: serve as before."""
        ...

    def leave(self, *, same: bool) -> None:
        """It is done: drain and end. `same` says that our id to the node lives on."""
        ...


class HandOver:
    """The side that runs: listens for one that wants to take over. `open` it with a locked folder, `close` it."""

    def __init__(self, side: HandsOver, listener: socket.socket) -> None:
        """Use `open`."""
        self._side = side
        self._listener = listener
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    @classmethod
    def open(cls, folder: Path, side: HandsOver) -> Self | None:
        """Listen in `folder`; None, with a word in the log, where that cannot be done: the nexlet can do without."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with _within(folder) as place:
                place.unlink(missing_ok=True)  # of one that is gone: the folder's lock is ours
                listener.bind(str(place))
                place.chmod(0o600)
            listener.listen(4)
        except OSError as error:
            listener.close()
            _log.warning("another nexlet will not be able to take over from this one", reason=error.strerror)
            return None
        listener.setblocking(False)
        return cls(side, listener)

    async def close(self) -> None:
        """Listen no more. The socket's name stays: it may be that of our successor by now."""
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # it has gone away again
        task = asyncio.create_task(self._talk(peer), name="hand-over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, peer: socket.socket) -> None:
        with peer:
            peer.setblocking(False)
            uid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in (os.geteuid(), 0):
                return
            if self._busy:
                _send(peer, refused="another nexlet is taking over already")
                return
            self._busy = True
            try:
                await self._converse(peer)
            except (OSError, TimeoutError, _Gone) as error:
                _log.warning("another nexlet that wanted to take over went away", reason=str(error) or "no answer")
            finally:
                self._busy = False

    async def _converse(self, peer: socket.socket) -> None:
        await _receive(peer, "begin", within=_ANSWER)
        try:
            not_running = await self._side.not_running()
        except TakeOverFailed as failure:
            _send(peer, refused=str(failure))
            return
        _send(peer, pid=os.getpid(), not_running=list(not_running))
        _log.info("another nexlet starts what runs here, to take over")
        await _receive(peer, "hand over", within=None)
        done = False
        try:
            try:
                lock = await self._side.hand_over()
            except TakeOverFailed as failure:
                _send(peer, refused=str(failure))
                return
            socket.send_fds(peer, [_packed({"handed": True})], [lock])
            word = await _receive(peer, "done", within=_DONE)
            done = True
        finally:
            if not done:
                await self._side.go_on()
        _log.info("handed over to another nexlet; what is still in flight is finished here")
        self._side.leave(same=word.get("same") is True)


class Predecessor:
    """The new one's end of the conversation. `find` it, `close` it.

    Attributes:
        pid: of the nexlet that runs.
        not_running: kept workloads that do not run there.
    """

    def __init__(self, link: socket.socket, pid: int, not_running: Sequence[str]) -> None:
        """Use `find`."""
        self._link = link
        self.pid = pid
        self.not_running = frozenset(not_running)

    @classmethod
    async def find(cls, folder: Path) -> Self:
        """Reach the nexlet that has the state folder.

        Raises:
            TakeOverFailed: it cannot be reached, or does not hand over now.
        """
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            link.setblocking(False)
            with _within(folder) as place:
                link.connect(str(place))  # a local socket connects at once or not at all
            _send(link, ask="begin")
            answer, _ = await _answered(link)
        except (OSError, TimeoutError, _Gone) as error:
            link.close()
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or "no answer"
            raise TakeOverFailed(
                f"the nexlet that has the state folder {folder} cannot be asked to hand over: {reason}; "
                "stop it, and start this one without --take-over"
            ) from None
        except BaseException:
            link.close()
            raise
        return cls(link, int(answer.get("pid", 0)), answer.get("not_running", ()))

    async def hand_over(self) -> int:
        """Have it end its endpoints; returns the lock of the state, a descriptor.

        Raises:
            TakeOverFailed: it does not, and goes on.
        """
        try:
            _send(self._link, ask="hand over")
            _, descriptors = await _answered(self._link)
        except (OSError, TimeoutError, _Gone) as error:
            raise TakeOverFailed(f"the other nexlet went away while it handed over: {error}") from None
        if len(descriptors) != 1:
            raise TakeOverFailed("the other nexlet handed over without the lock of its state")
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    def done(self, *, same: bool) -> None:
        """Let it drain and end."""
        with contextlib.suppress(OSError):  # it is gone by itself
            _send(self._link, ask="done", same=same)

    def close(self) -> None:
        """Hang up; before `done` that is a no, and it goes on."""
        self._link.close()


class _Gone(Exception):
    """The other side hung up, or talks in another way."""


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[Path]:
    """The socket's path, however long that of its folder: the kernel takes no more than 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / SOCKET
    finally:
        os.close(descriptor)


def _packed(words: dict[str, Any]) -> bytes:
    return json.dumps({"version": VERSION, **words}).encode()


def _send(link: socket.socket, **words: Any) -> None:
    link.send(_packed(words))  # one small packet in a socket's empty buffer: it does not wait


async def _receive(link: socket.socket, ask: str, *, within: float | None) -> dict[str, Any]:
    await _readable(link, within)
    words = _read(link.recv(_MOST))
    if words.get("ask") != ask:
        raise _Gone(f"it asked for {words.get('ask')!r} where {ask!r} comes next")
    return words


async def _readable(link: socket.socket, within: float | None) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(link.fileno(), readable.set)
    try:
        async with asyncio.timeout(within):
            await readable.wait()
    finally:
        loop.remove_reader(link.fileno())


async def _answered(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """An answer, with the descriptors that came with it.

    Raises:
        TakeOverFailed: it is a refusal.
    """
    await _readable(link, _ANSWER)
    data, descriptors, _, _ = socket.recv_fds(link, _MOST, 1)
    try:
        words = _read(data)
        if "refused" in words:
            raise TakeOverFailed(f"the nexlet that runs does not hand over: {words['refused']}")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return words, descriptors


def _read(data: bytes) -> dict[str, Any]:
    if not data:
        raise _Gone("it hung up")
    try:
        words = json.loads(data)
    except ValueError:
        raise _Gone("it says what is no message") from None
    if not isinstance(words, dict) or words.get("version") != VERSION:
        raise _Gone(f"it does not speak version {VERSION} of the hand-over")
    return words
