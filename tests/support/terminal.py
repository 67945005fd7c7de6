"""A command at a terminal: a pseudoterminal of a stated size, and what is written to it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.cli import PROGRAM, environment

__all__ = ["Terminal", "terminal"]

_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """What a command writes to its terminal.

    Attributes:
        process: the command.
        raw: all of it, as it came.
    """

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.raw = ""
        self._descriptor = descriptor
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def text(self) -> str:
        """The same without what steers a terminal."""
        return _STEERING.sub("", self.raw).replace("\r", "")

    def _read(self) -> None:
        try:
            read = os.read(self._descriptor, 65536)
        except OSError:  # how Linux says that the other end is closed
            read = b""
        if not read:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self.raw += read.decode("utf-8", "replace")
        self._more.set()

    async def until(self, pattern: str, *, timeout: float = 60.0) -> re.Match[str]:
        """Where the text has that, once it does."""
        async with asyncio.timeout(timeout):
            while True:
                self._more.clear()
                found = re.search(pattern, self.text)
                if found is not None:
                    return found
                await self._more.wait()

    async def end(self) -> int:
        """Ctrl-C, and the exit code; what it still says is read."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), 30)

    def close(self) -> None:
        """Let go of the terminal."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)


@asynccontextmanager
async def terminal(
    *arguments: str | Path, lines: int = 40, columns: int = 110, **variables: str
) -> AsyncIterator[Terminal]:
    """`nexfn` with these arguments at a terminal of that size; killed at the end where it still runs."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    size = {"TERM": "xterm", "LINES": str(lines), "COLUMNS": str(columns)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        *map(str, arguments),
        stdin=its,
        stdout=its,
        stderr=subprocess.STDOUT,
        env=environment(**size | variables),
        start_new_session=True,
    )
    os.close(its)
    made = Terminal(process, ours)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        made.close()
