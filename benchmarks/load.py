"""The load generator: requests over one raw connection, and what came back.

It speaks the few words of the protocol that it needs and nothing else, so that it is not what is measured. A blocking
socket and one thread. Two ways: `requests` keeps so many in flight, where reading a batch of answers is what paces
writing the next ones; `paced` sends each request when it is due, whatever came back by then, and counts from there: a
responder that stalls makes all that were due meanwhile wait, and that is seen (no coordinated omission). What the
generator itself was late is in these times as well, and told beside them.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import gc
import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import nkeys

from benchmarks.spread import percentile

__all__ = ["Load", "Measured", "Pace", "Paced", "introduction"]

CRLF = b"\r\n"
PATIENCE = 20.0
"""Seconds without any answer after which it is given up."""

_READ = 262144
_SECOND = 1_000_000_000
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.

    Attributes:
        answers: how many came back.
        messages: how many were sent, with those that nobody answers.
        errors: answers with an `error` header.
        seconds: from the first request to the last answer.
        latencies: of each answer in nanoseconds, sorted.
    """

    answers: int
    messages: int
    errors: int
    seconds: float
    latencies: list[int]

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the answers stayed within."""
        return percentile(self.latencies, share) / 1e6


@dataclass(frozen=True, slots=True)
class Paced:
    """One run at a rate.

    Attributes:
        errors: answers with an `error` header, and that nobody listens.
        latencies: nanoseconds from when each request was due until its answer, sorted.
        late: nanoseconds from when each request was due until it was sent, sorted.
    """

    errors: int
    latencies: list[int]
    late: list[int]

    def percentile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the answers stayed within."""
        return percentile(self.latencies, share) / 1e6

    def late_percentile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the requests left within of when they were due."""
        return percentile(self.late, share) / 1e6


@dataclass(frozen=True, slots=True)
class Pace:
    """When each request is due: evenly, the first at once.

    Attributes:
        rate: requests a second.
        count: how many there are.
        began: nanoseconds on the clock that `due` is asked by.
    """

    rate: int
    count: int
    began: int

    def at(self, number: int) -> int:
        """When this one is due."""
        return self.began - (-number * _SECOND // self.rate)

    def due(self, now: int) -> int:
        """How many should have been sent by now."""
        return max(0, min(self.count, (now - self.began) * self.rate // _SECOND + 1))


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
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 4222), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parts: list[bytes] = []  # of what is not all there yet, ...
        self._have = self._want = 0  # ... with so many bytes, of at least so many that make it worth looking again
        self._errors = 0
        self._body = b""
        self._inbox = f"_INBOX.load{time.monotonic_ns():x}"
        said = introduction(self._hear(CRLF), user)
        self._socket.sendall(b"CONNECT %b\r\nSUB %b.* 1\r\nPING\r\n" % (said, self._inbox.encode()))
        self._hear(b"PONG\r\n")

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _hear(self, end: bytes) -> bytes:
        """Everything up to what ends so: the server waits for us to say something then."""
        heard = b""
        while not heard.endswith(end):
            if not (data := self._socket.recv(_READ)):
                raise ConnectionError(f"the server has closed the load's connection: {heard.decode()}")
            heard += data
        return heard

    def ask(self, subject: str, payload: bytes = b"") -> bytes:
        """One request's answer.

        Raises:
            RuntimeError: it was an error.
            TimeoutError: nothing came in time.
        """
        measured = self.requests(subject, count=1, in_flight=1, payload=payload)
        if measured.errors:
            raise RuntimeError(f"a request on {subject} was answered with an error")
        return self._body

    def requests(
        self,
        subject: str | Sequence[str],
        *,
        count: int,
        in_flight: int,
        payload: bytes,
        quiet: int = 0,
        over: Callable[[], bool] = lambda: False,
    ) -> Measured:
        """Send `count` requests, `in_flight` at a time, and wait for every answer.

        Args:
            subject: where; of several each in turn.
            quiet: so many messages that want no answer go before each request.
            over: asked after each read; nothing more is sent from when it says yes.

        Raises:
            TimeoutError: nothing came for twenty seconds.
        """
        around = [self._around(one, payload, quiet) for one in ([subject] if isinstance(subject, str) else subject)]
        heads, tail, several = [head for head, _ in around], around[0][1], len(around)
        sent_at: list[int] = []
        latencies: list[int] = []
        sent = answered = 0
        self._errors = 0
        now = time.perf_counter_ns
        began = now()
        due = min(in_flight, count)
        while answered < count:
            if due:
                stamp = now()
                self._socket.sendall(
                    b"".join([b"%b%d%b" % (heads[n % several], n, tail) for n in range(sent, sent + due)])
                )
                sent_at += [stamp] * due
                sent += due
            numbers = self._receive()
            stamp = now()
            latencies += [stamp - sent_at[number] for number in numbers]
            answered += len(numbers)
            if over():
                count = sent
            due = min(len(numbers), count - sent)
        ended = now()
        latencies.sort()
        return Measured(answered, count * (quiet + 1), self._errors, (ended - began) / 1e9, latencies)

    def paced(
        self,
        subject: str,
        *,
        rate: int,
        count: int,
        payload: bytes,
        now: Callable[[], int] = time.perf_counter_ns,
    ) -> Paced:
        """Send `count` requests at `rate` a second, each when it is due, and wait for every answer.

        Args:
            now: the clock, in nanoseconds.

        Raises:
            TimeoutError: nothing came for twenty seconds.
        """
        head, tail = self._around(subject, payload)
        latencies: list[int] = []
        late: list[int] = []
        sent = answered = 0
        self._errors = 0
        with _punctual():
            pace = Pace(rate, count, now())
            at = pace.at
            while answered < count:
                stamp = now()
                due = pace.due(stamp)
                if due > sent:
                    late += [stamp - at(number) for number in range(sent, due)]
                    self._socket.sendall(b"".join([b"%b%d%b" % (head, n, tail) for n in range(sent, due)]))
                    sent = due
                wait = max(0, at(sent) - now()) / 1e9 if sent < count else PATIENCE
                if select.select((self._socket,), (), (), wait)[0]:
                    numbers = self._receive()
                    stamp = now()
                    latencies += [stamp - at(number) for number in numbers]
                    answered += len(numbers)
                elif sent == count:
                    raise TimeoutError(f"{count - answered} of {count} requests on {subject} were not answered")
        latencies.sort()
        late.sort()
        return Paced(self._errors, latencies, late)

    def _around(self, subject: str, payload: bytes, quiet: int = 0) -> tuple[bytes, bytes]:
        """What comes before and after a request's number, with so many messages that want no answer before it."""
        size = len(payload)
        before = b"PUB %b %d\r\n%b\r\n" % (subject.encode(), size, payload) * quiet
        return before + b"PUB %b %b." % (subject.encode(), self._inbox.encode()), b" %d\r\n%b\r\n" % (size, payload)

    def _receive(self) -> list[int]:
        """Read once; the numbers of the requests whose answers are there now."""
        data = self._socket.recv(_READ)
        if not data:
            raise ConnectionError("the server has closed the load's connection")
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._want:
                return []
            data = b"".join(self._parts)
            self._parts = []
        numbers = []
        at, size, want = 0, len(data), 0
        body = over = 0
        while (end := data.find(CRLF, at)) >= 0:
            words = data[at:end].split(b" ")
            verb = words[0]
            if verb not in (b"MSG", b"HMSG"):
                if verb == b"PING":
                    self._socket.sendall(b"PONG\r\n")
                elif verb == b"-ERR":
                    raise RuntimeError(f"the server says: {data[at:end].decode()}")
                at = end + 2
                continue
            stop = end + 2 + int(words[-1])
            if size < stop + 2:
                want = stop + 2 - at
                break
            body = end + 2
            if verb == b"HMSG":
                body += int(words[-2])
                if data.find(b"\r\nerror:", end, body) >= 0 or data.startswith(b"NATS/1.0 503", end + 2):
                    self._errors += 1
            numbers.append(int(words[1].rsplit(b".", 1)[1]))
            at = over = stop + 2
        if numbers:
            self._body = data[body : over - 2]
        if at < size:
            self._parts = [data[at:]]
            self._have, self._want = size - at, want
        return numbers


@contextlib.contextmanager
def _punctual() -> Iterator[None]:
    """What this thread waits for comes when it is due; the kernel otherwise takes 50 microseconds more."""
    collects = gc.isenabled()
    gc.disable()
    slack = ctypes.CDLL(None, use_errno=True).prctl
    slack(_PR_SET_TIMERSLACK, 1)
    try:
        yield
    finally:
        slack(_PR_SET_TIMERSLACK, 0)  # the default again
        if collects:
            gc.enable()
