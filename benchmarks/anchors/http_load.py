"""Requests over HTTP/1.1, as many connections as there are requests in flight, each kept alive and used again.

The twin of `benchmarks.load` for what has no NATS: one thread, raw sockets, no parsing beyond what tells that an answer
is whole. A connection that the server closes between two answers is opened anew, in the time that is measured: whoever
closes it makes its callers do that.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time

from benchmarks.load import PATIENCE, Measured

__all__ = ["http_requests"]

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)
_READ = 65536


class _Connection:
    """One request after another."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._address = address
        self._request = request
        self._buffer = b""
        self._sent_at = 0
        self._again = False
        self.socket = self._open()

    def _open(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def ask(self) -> None:
        self._sent_at = time.perf_counter_ns()
        self._again = False
        # Closed meanwhile: the next read says so.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self._request)

    def read(self) -> tuple[bool, int] | None:
        """Read once: whether the answer was a good one, and its nanoseconds; None while it is not whole.

        Raises:
            ConnectionError: the server has closed the connection in an answer, or twice before one.
        """
        try:
            data = self.socket.recv(_READ)
        except ConnectionResetError:
            data = b""
        if not data:
            if self._buffer or self._again:
                raise ConnectionError(f"{self._address[0]}:{self._address[1]} closes connections without an answer")
            return None
        self._buffer += data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return None
        length = _LENGTH.search(self._buffer, 0, end)
        if length is None:
            raise ConnectionError("an answer does not say how long it is")
        if len(self._buffer) < end + len(_HEAD_END) + int(length[1]):
            return None
        good = self._buffer.split(b" ", 2)[1] == b"200"
        self._buffer = b""
        return good, time.perf_counter_ns() - self._sent_at

    @property
    def closed(self) -> bool:
        """Whether nothing has come of the answer yet: after a `read` without one, the server has closed it."""
        return not self._buffer

    def reopen(self) -> None:
        """Connect anew and ask again what was not answered."""
        self.close()
        self.socket = self._open()
        self.socket.sendall(self._request)
        self._again = True

    def close(self) -> None:
        self.socket.close()


def http_requests(host: str, port: int, *, count: int, in_flight: int, payload: bytes) -> Measured:
    """Post `payload` to `/` so many times, and wait for every answer.

    Raises:
        ConnectionError: the server does not keep to HTTP, or closes connections without an answer.
        TimeoutError: nothing came for twenty seconds.
    """
    head = f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/octet-stream\r\n"
    request = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload
    latencies: list[int] = []
    errors = 0
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        connections = []
        for _ in range(min(in_flight, count)):
            connections.append(_Connection((host, port), request))
            stack.callback(connections[-1].close)
        began = time.perf_counter()
        for one in connections:
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.ask()
        asked = len(connections)
        while len(latencies) < count:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{count - len(latencies)} of {count} requests were not answered")
            for key, _ in ready:
                one = key.data
                answer = one.read()
                if answer is None:
                    if one.closed:
                        selector.unregister(one.socket)
                        one.reopen()
                        selector.register(one.socket, selectors.EVENT_READ, one)
                    continue
                good, took = answer
                errors += not good
                latencies.append(took)
                if asked < count:
                    asked += 1
                    one.ask()
                else:
                    selector.unregister(one.socket)
        seconds = time.perf_counter() - began
    latencies.sort()
    return Measured(answers=count, messages=count, errors=errors, seconds=seconds, latencies=latencies)
