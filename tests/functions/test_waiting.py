"""Whether anybody waits: sockets that are watched a second time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nexlet_functions.functions.waiting import Waiting


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.close()


def test_nothing_is_watched_at_first(waiting: Waiting) -> None:
    assert not waiting.some()
    waiting.watch([-1])
    assert not waiting.some()


def test_what_was_read_waits_no_longer(waiting: Waiting) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waiting.watch([ours.fileno()])
        waiting.watch([ours.fileno()])
        assert not waiting.some()
        theirs.send(b"x")
        assert waiting.some()
        assert waiting.some(), "asking reads nothing"
        ours.recv(1)
        assert not waiting.some()


def test_only_what_was_named_last_is_watched(waiting: Waiting) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        waiting.watch([ours.fileno(), theirs.fileno()])
        assert waiting.some()
        waiting.watch([theirs.fileno()])
        assert not waiting.some()
        waiting.watch([])
        assert not waiting.some()
        waiting.watch([ours.fileno()])
        assert waiting.some()
    waiting.close()
    assert not waiting.some()
    waiting.close()


def test_another_one_under_the_number_of_one_that_was_closed(waiting: Waiting) -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    waiting.watch([number])
    ours.close()
    theirs.close()
    assert not waiting.some()
    first, second = socket.socketpair()
    with first, second:
        assert number in (first.fileno(), second.fileno())
        here, there = (first, second) if first.fileno() == number else (second, first)
        there.send(b"x")
        assert not waiting.some(), "it has not been named"
        waiting.watch([here.fileno()])
        assert waiting.some()
        waiting.watch([there.fileno()])
        assert not waiting.some()


def test_one_that_is_closed_is_left_out(waiting: Waiting) -> None:
    ours, theirs = socket.socketpair()
    closed, other = socket.socketpair()
    number = closed.fileno()
    closed.close()
    with ours, theirs, other:
        waiting.watch([number, ours.fileno()])
        theirs.send(b"x")
        assert waiting.some()
