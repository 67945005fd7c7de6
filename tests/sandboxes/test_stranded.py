"""The signal by which a worker sends what a long call holds back: it comes again until it has been looked at."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from nexlet_sandboxes.worker.loop import AGAIN_S, STRANDED_S, Worker


@pytest.fixture
def worker() -> Iterator[tuple[Worker, socket.socket]]:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs:
            yield Worker(theirs), ours
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_that_nobody_looked_at_comes_again(worker: tuple[Worker, socket.socket]) -> None:
    made, nexlet = worker
    looked = []

    def look(number: int, stack: object) -> None:
        looked.append(number)
        if len(looked) == 3:  # as where the first two came just before a sleep began
            made.on_timer(number, stack)

    signal.signal(signal.SIGALRM, look)
    made._later(b"a line")
    first, again = signal.getitimer(signal.ITIMER_REAL)
    assert first <= STRANDED_S
    assert again == pytest.approx(AGAIN_S)
    nexlet.settimeout(10)
    assert nexlet.recv(100) == b"a line"
    assert len(looked) == 3
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "and then no more"


def test_what_is_held_back_later_is_sent_as_well(worker: tuple[Worker, socket.socket]) -> None:
    made, nexlet = worker
    signal.signal(signal.SIGALRM, made.on_timer)
    nexlet.settimeout(10)
    for line in (b"one", b"two"):
        made._later(line)
        assert nexlet.recv(100) == line
