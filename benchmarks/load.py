"""The load generator: requests over one raw connection, as many in flight as asked for, and what came back.

It speaks the few words of the protocol that it needs and nothing else, so that it is not what is measured. A blocking
socket and one thread: with a window of requests, reading a batch of answers is what paces writing the next ones.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import nkeys

from benchmarks.spread import percentile

__all__ = ["Load", "Measured", "introduction"]

CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.

    Attributes:
        answers: how many came back.
        errors: answers with an `error` header.
        seconds: from the first request to the last answer.
        latencies: of each answer in nanoseconds, sorted.
    """

    answers: int
    errors: int
    seconds: float
    latencies: list[int]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the answers stayed within."""
        return percentile(self.latencies, share) / 1e6


def introduction(info: bytes, user: tuple[str, str]) -> bytes:
    """What is said with CONNECT to a server that has begun with this line.

    Args:
        user: JWT and seed; "" where the server asks for none.
    """
    options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "name": "load"}
    jwt, seed = user
    if jwt:
        nonce = json.loads(info.partition(b" ")[2])["nonce"]
        signature = nkeys.from_seed(bytearray(seed.encode())).sign(nonce.encode())
        options |= {"jwt": jwt, "sig": base64.urlsafe_b64encode(signature).decode().rstrip("=")}
    return json.dumps(options).encode()


class Load:
    """One raw connection to a server. A context manager."""

    def __init__(self, url: str, *, user: tuple[str, str] = ("", "")) -> None:
        """Connect to `nats://HOST:PORT`.

        Args:
            user: JWT and seed, where the server asks who somebody is.
        """
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._inbox = f"_INBOX.load{time.monotonic_ns():x}"
        said = introduction(self._line(), user)
        self._socket.sendall(b"CONNECT %b\r\nSUB %b.* 1\r\nPING\r\n" % (said, self._inbox.encode()))
        while self._line() != b"PONG":
            pass

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        while CRLF not in self._buffer:
            self._buffer += self._socket.recv(65536)
        line, self._buffer = self._buffer.split(CRLF, 1)
        return line

    def requests(self, subject: str | Sequence[str], *, count: int, in_flight: int, payload: bytes) -> Measured:
        """Send `count` requests, `in_flight` at a time, and wait for every answer.

        Args:
            subject: where; of several each in turn.

        Raises:
            TimeoutError: nothing came for twenty seconds.
        """
        subjects = [subject] if isinstance(subject, str) else subject
        heads = [b"PUB %b %b." % (one.encode(), self._inbox.encode()) for one in subjects]
        several = len(heads)
        tail = b" %d\r\n%b\r\n" % (len(payload), payload)
        sent_at = [0] * count
        latencies: list[int] = []
        sent = answered = errors = 0
        now = time.perf_counter_ns
        began = now()
        due = min(in_flight, count)
        buffer = self._buffer
        while answered < count:
            if due:
                stamp = now()
                self._socket.sendall(
                    b"".join([b"%b%d%b" % (heads[n % several], n, tail) for n in range(sent, sent + due)])
                )
                for number in range(sent, sent + due):
                    sent_at[number] = stamp
                sent += due
                due = 0
            buffer += self._socket.recv(262144)
            stamp = now()
            at = 0
            while (end := buffer.find(CRLF, at)) >= 0:
                words = buffer[at:end].split(b" ")
                verb = words[0]
                if verb not in (b"MSG", b"HMSG"):
                    if verb == b"PING":
                        self._socket.sendall(b"PONG\r\n")
                    at = end + 2
                    continue
                size = int(words[-1])
                if len(buffer) < end + size + 4:
                    break
                if verb == b"HMSG" and buffer.find(b"\r\nerror:", end, end + 2 + int(words[-2])) >= 0:
                    errors += 1
                latencies.append(stamp - sent_at[int(words[1].rsplit(b".", 1)[1])])
                answered += 1
                if sent + due < count:
                    due += 1
                at = end + size + 4
            buffer = buffer[at:]
        ended = now()
        self._buffer = buffer
        latencies.sort()
        return Measured(answered, errors, (ended - began) / 1e9, latencies)
