"""What waits to be sent: bounded whatever the server does, answers before what can be spared, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.natsio.life import Life
from nexlet_functions.natsio.outgoing import BATCH, Outgoing

KIB = 1024


class SlowClient:
    """A client, and its wire, that keeps what it is given until it is told to go on."""

    alive = True

    def __init__(self) -> None:
        self.wire = self
        self.sent: list[bytes] = []
        self.held = 0
        self._taken: Callable[[], None] = lambda: None

    def send(self, blobs: list[bytes], size: int, taken: Callable[[], None]) -> None:
        assert size == sum(map(len, blobs))
        self.sent += blobs
        self.held, self._taken = size, taken

    def take_back(self) -> list[bytes]:
        return []

    def go_on(self) -> None:
        self.held = 0
        self._taken()


def open_outgoing(limit: int) -> tuple[Outgoing, SlowClient]:
    outgoing, client = Outgoing(limit), SlowClient()
    outgoing.attach(cast(Life, client), 1 << 20)
    return outgoing, client


def test_what_can_be_spared_gets_half_and_answers_get_all() -> None:
    outgoing, client = open_outgoing(100 * KIB)
    assert outgoing.write(b"x" * KIB, 1), "goes to the client at once, and is not counted any more"
    spared = [outgoing.write(b"e" * KIB, 3, spare=True) for _ in range(80)]
    assert (spared.count(True), spared.count(False)) == (50, 30)
    assert not outgoing.crowded
    answers = [outgoing.write(b"a" * KIB, 1) for _ in range(80)]
    assert (answers.count(True), answers.count(False)) == (50, 30)
    assert outgoing.crowded
    assert outgoing.dropped == 3 * 30 + 30
    assert outgoing.size == 100 * KIB
    client.go_on()
    assert client.sent == [b"x" * KIB] + [b"e" * KIB] * 50 + [b"a" * KIB] * 50


def test_the_client_holds_little_of_it() -> None:
    outgoing, client = open_outgoing(8 * BATCH)
    blobs = [bytes([number % 251]) * 100_000 for number in range(80)]
    for blob in blobs:
        assert outgoing.write(blob, 1)
    while outgoing.size:
        assert client.held <= BATCH + 100_000
        client.go_on()
    assert client.sent == blobs


@given(st.lists(st.tuples(st.integers(1, 3 * KIB), st.sampled_from(["write", "spare", "taken", "lost", "back"]))))
def test_it_is_never_over_its_bound_and_keeps_the_order(steps: list[tuple[int, str]]) -> None:
    outgoing, client = open_outgoing(10 * KIB)
    taken: list[bytes] = []
    clients = [client]
    for number, (size, what) in enumerate(steps):
        if what in ("write", "spare"):
            blob = number.to_bytes(4, "big") * (1 + size // 4)
            if outgoing.write(blob, 1, spare=what == "spare"):
                taken.append(blob)
        elif what == "taken":
            clients[-1].go_on()
        elif what == "lost":
            outgoing.detach()
        else:
            clients.append(SlowClient())
            outgoing.attach(cast(Any, clients[-1]), 1 << 20)
        assert outgoing.size <= 10 * KIB
    outgoing.attach(cast(Any, clients[0]), 1 << 20)
    while outgoing.size:
        clients[0].go_on()
    assert sorted(blob for one in clients for blob in one.sent) == sorted(taken), "nothing is sent twice, nothing lost"


def test_what_waits_when_it_ends_is_counted() -> None:
    outgoing = Outgoing(10 * KIB)
    assert outgoing.write(b"x" * KIB, 3)
    assert outgoing.write(b"x" * KIB, 2)
    outgoing.end()
    assert (outgoing.published, outgoing.dropped, outgoing.size) == (5, 5, 0)
    assert not outgoing.write(b"x", 1)
    assert outgoing.dropped == 6


def test_another_one_takes_over_what_waits_as_far_as_it_has_room() -> None:
    lost, other, client = Outgoing(10 * KIB), Outgoing(2 * KIB), SlowClient()
    other.attach(cast("Life", client), 1 << 20)
    assert other.write(b"before" * 10, 1)  # the client has it, and takes no more for now
    for number in range(4):
        assert lost.write(b"%d" % number * KIB, 2)
    other.take_over(lost)
    assert (lost.published, lost.dropped, lost.size) == (8, 4, 0)
    assert (other.published, other.dropped, other.size) == (1, 0, 2 * KIB)
    client.go_on()
    assert client.sent[1:] == [b"0" * KIB, b"1" * KIB]
