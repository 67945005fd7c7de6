"""Somebody who listens to a feed, as `nex` users do: reads it all, counts messages, and does no more.

`python -m benchmarks.feed URL SUBJECT` says `ready`, and answers each line with how many there were so far. Who listens
is a connection that the server writes every event to: that is what it costs everybody else.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Listener", "listening"]


class Listener:
    """Handle of the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """It is ready."""
        self._process = process
        self.pid = process.pid

    def count(self) -> int:
        """Messages so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("how many?\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def listening(url: str, subject: str) -> Iterator[Listener]:
    """Somebody who listens while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.feed", url, subject],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("what was to listen to a feed has ended")
        yield Listener(process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Counter:
    """Counts the messages in what the server writes, whose payloads do not have a line that looks like one."""

    def __init__(self, subject: str) -> None:
        """Nothing was read.

        Args:
            subject: what the messages have; no wildcards.
        """
        self._mark = b"MSG %b " % subject.encode()
        self._rest = b""
        self.count = 0

    def add(self, data: bytes) -> None:
        """What was read."""
        data = self._rest + data
        self.count += data.count(self._mark)
        # A mark may lie across two reads. What is kept is too short to hold one, so that none is counted twice.
        self._rest = data[-(len(self._mark) - 1) :]


def _listen(url: str, subject: str) -> None:
    parts = urlsplit(url)
    counter = Counter(subject)
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222))
    connection.sendall(b'CONNECT {"verbose":false,"name":"feed"}\r\nSUB %b 1\r\nPING\r\n' % subject.encode())
    heard = b""
    while not heard.endswith(b"PONG\r\n"):
        heard += connection.recv(65536)

    def answer() -> None:
        for _ in sys.stdin:
            print(counter.count, flush=True)

    threading.Thread(target=answer, daemon=True).start()
    print("ready", flush=True)
    while data := connection.recv(262144):
        if b"PING\r\n" in data:
            connection.sendall(b"PONG\r\n")
        counter.add(data)


if __name__ == "__main__":
    _listen(sys.argv[1], sys.argv[2])
