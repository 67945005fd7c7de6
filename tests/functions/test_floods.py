"""Which functions are taken for flooded, and when they are moved: by counts, with a clock of the test's own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import cast

import pytest

from nexlet_functions.functions.floods import CALM, CALM_FOR, FLOOD_BYTES, FLOOD_MESSAGES, LIGHT, TRY_AGAIN, Floods
from nexlet_functions.natsio import Connection


class Home:
    """A connection, as far as it is looked at."""

    received = 0
    connected = True
    socket = -1


class Function:
    """A function that says where it is moved to."""

    def __init__(self, home: Home, *, movable: bool = True) -> None:
        self.home = cast("Connection", home)
        self.connection: Connection | None = None
        self.movable = movable
        self.moving = False
        self.taken = 0
        self.sent_bytes = 0
        self.fails = False
        self.asked: list[str] = []
        self.ran_ns = 0
        self.workers: list[socket.socket] = []
        self.others_wait: Callable[[], bool] = bool

    def sockets(self) -> list[int]:
        return [socket.fileno() for socket in self.workers]

    def go(self, others_wait: Callable[[], bool]) -> None:
        self.asked.append("go")
        self.others_wait = others_wait
        if not self.fails:
            self.connection = cast("Connection", Home())

    def come_back(self) -> None:
        self.asked.append("back")
        self.connection = None

    def get(self, messages: float, *, home: Home | None = None, sent: float = 0) -> None:
        self.taken += int(messages)
        self.sent_bytes += int(sent)
        if home is not None:
            home.received += int(messages)


@pytest.fixture
def home() -> Home:
    return Home()


class Watched:
    """Functions of one connection, and the time."""

    def __init__(self, home: Home, *functions: Function, most: int = 8) -> None:
        self.home = home
        self.others = 10  # messages a second that its neighbours get
        self.floods = Floods(most)
        self.now = 100.0
        for function in functions:
            self.floods.join(function, self.now)

    def second(self, function: Function, messages: float, *, sent: float = 0) -> None:
        """One in which this function gets so many."""
        function.get(messages, home=self.home if function.connection is None else None, sent=sent)
        self.home.received += self.others
        self.now += 1.0
        self.floods.look(self.now)


async def test_what_gets_more_than_its_neighbours_can_wait_behind_moves_and_comes_back(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.second(busy, FLOOD_MESSAGES * 0.9)
    assert not busy.asked
    watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go"]
    for _ in range(int(3 * CALM_FOR)):
        watched.second(busy, FLOOD_MESSAGES * CALM)  # less, and a flood still
    assert busy.asked == ["go"]
    for _ in range(int(CALM_FOR) - 1):
        watched.second(busy, 0)
    assert busy.asked == ["go"]
    watched.second(busy, FLOOD_MESSAGES)  # it was but a pause
    for _ in range(int(CALM_FOR) - 1):
        watched.second(busy, 10)
    assert busy.asked == ["go"]
    watched.second(busy, 10)
    assert busy.asked == ["go", "back"]
    assert not idle.asked


async def test_large_answers_are_a_flood_as_well(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.second(busy, 100, sent=FLOOD_BYTES * 0.9)
    assert not busy.asked
    watched.second(busy, 100, sent=FLOOD_BYTES)
    assert busy.asked == ["go"]


async def test_who_has_no_neighbours_is_in_nobodys_way(home: Home) -> None:
    busy, elsewhere = Function(home), Function(Home())
    watched = Watched(home, busy, elsewhere)
    watched.second(busy, FLOOD_MESSAGES * 2)
    assert not busy.asked
    neighbour = Function(home)
    watched.floods.join(neighbour, watched.now)
    watched.second(busy, FLOOD_MESSAGES * 2)  # of two seconds
    watched.second(busy, FLOOD_MESSAGES * 2)
    assert busy.asked == ["go"]


async def test_what_cannot_be_moved_stays(home: Home) -> None:
    ordered, idle = Function(home, movable=False), Function(home)
    watched = Watched(home, ordered, idle)
    watched.second(ordered, FLOOD_MESSAGES * 2)
    assert not ordered.asked


async def test_no_more_than_so_many_have_one_of_their_own(home: Home) -> None:
    functions = [Function(home) for _ in range(4)]
    watched = Watched(home, *functions, most=2)
    for function in functions[:3]:
        watched.second(function, FLOOD_MESSAGES)
    assert [one.asked for one in functions] == [["go"], ["go"], [], []]
    functions[0].come_back()
    watched.second(functions[2], FLOOD_MESSAGES)
    assert functions[2].asked == ["go"]


async def test_what_comes_to_nothing_is_tried_again_later(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    busy.fails = True
    watched = Watched(home, busy, idle)
    for _ in range(int(TRY_AGAIN)):
        watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go"]
    watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go", "go"]


async def test_what_has_lost_its_own_comes_back_to_one_that_is_there(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.second(busy, FLOOD_MESSAGES)
    own = cast("Home", busy.connection)
    own.connected = False
    watched.second(busy, 0)
    own.connected = True  # by itself, as most are
    watched.second(busy, FLOOD_MESSAGES)
    own.connected = home.connected = False
    watched.second(busy, 0)
    watched.second(busy, 0)
    assert busy.asked == ["go"], "the other one is no better"
    home.connected = True
    watched.second(busy, 0)
    assert busy.asked == ["go", "back"]
    for _ in range(int(TRY_AGAIN) - 1):
        watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go", "back"]
    watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go", "back", "go"]


async def test_what_came_back_when_it_was_calm_goes_again_at_once(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.second(busy, FLOOD_MESSAGES)
    for _ in range(int(CALM_FOR) + 1):
        watched.second(busy, 0)
    assert busy.asked == ["go", "back"]
    watched.second(busy, FLOOD_MESSAGES)  # of two seconds
    watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go", "back", "go"]


async def test_what_is_being_stopped_counts_until_it_has_let_go(home: Home) -> None:
    busy, next_one, idle = Function(home), Function(home), Function(home)
    watched = Watched(home, busy, next_one, idle, most=1)
    watched.second(busy, FLOOD_MESSAGES)
    watched.floods.leave(busy)
    watched.second(next_one, FLOOD_MESSAGES)
    assert not next_one.asked
    busy.connection = None
    watched.second(next_one, FLOOD_MESSAGES)
    assert next_one.asked == ["go"]


async def test_the_counts_of_another_client_begin_anew(home: Home) -> None:
    """After a loss a connection has received less than before; its functions are looked at again from then on."""
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.second(busy, 1000)
    home.received = 0
    watched.second(busy, 0)
    watched.second(busy, FLOOD_MESSAGES)  # of two seconds
    watched.second(busy, FLOOD_MESSAGES)
    assert busy.asked == ["go"]


async def test_who_has_left_is_not_looked_at(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.floods.leave(busy)
    watched.floods.leave(busy)
    watched.second(busy, FLOOD_MESSAGES * 2)
    assert not busy.asked
    watched.floods.leave(idle)
    watched.floods.look(watched.now + 1)


async def test_who_has_idle_neighbours_is_in_nobodys_way_either(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.others = 0
    watched.second(busy, FLOOD_MESSAGES * 2)
    assert not busy.asked
    watched.others = 1
    watched.second(busy, FLOOD_MESSAGES * 2)
    assert busy.asked == ["go"]


async def test_where_many_are_as_busy_none_is_moved(home: Home) -> None:
    busy, idle = Function(home), Function(home)
    watched = Watched(home, busy, idle)
    watched.others = int(FLOOD_MESSAGES * 3)
    watched.second(busy, FLOOD_MESSAGES)
    assert not busy.asked


async def test_what_is_apart_is_told_of_those_who_wait_and_of_nobody_else(home: Home) -> None:
    with contextlib.ExitStack() as stack:
        busy, idle = Function(home), Function(home)
        ends = []
        for function in (busy, idle):
            ours, theirs = map(stack.enter_context, socket.socketpair())
            function.workers.append(ours)
            ends.append(theirs)
        shared, server = map(stack.enter_context, socket.socketpair())
        home.socket = shared.fileno()
        watched = Watched(home, busy, idle)
        watched.second(busy, FLOOD_MESSAGES)
        assert busy.asked == ["go"]
        assert not busy.others_wait()
        ends[0].send(b"an answer of its own")
        assert not busy.others_wait()
        ends[1].send(b"a neighbour's answer")
        assert busy.others_wait()
        idle.workers[0].recv(100)
        assert not busy.others_wait()
        server.send(b"a neighbour's message")
        assert busy.others_wait()
        shared.recv(100)
        # A worker that is new is known by the next look.
        ours, theirs = map(stack.enter_context, socket.socketpair())
        idle.workers.append(ours)
        watched.second(busy, FLOOD_MESSAGES)
        theirs.send(b"a new worker's")
        assert busy.others_wait()
        for _ in range(int(CALM_FOR) + 2):
            watched.second(busy, 0)
        assert busy.asked == ["go", "back"]
        watched.second(busy, 0)
        assert not busy.others_wait(), "nothing is watched for nobody"


async def test_to_those_who_compute_without_a_pause_the_flooded_do_not_give_way(home: Home) -> None:
    with contextlib.ExitStack() as stack:
        busy, idle, computing = Function(home), Function(home), Function(home)
        ends = {}
        for function in (idle, computing):
            ours, ends[function] = map(stack.enter_context, socket.socketpair())
            function.workers.append(ours)
        shared, server = map(stack.enter_context, socket.socketpair())
        home.socket = shared.fileno()
        watched = Watched(home, busy, idle, computing)
        watched.second(busy, FLOOD_MESSAGES)
        computing.ran_ns += int((LIGHT + 0.01) * 1e9)
        idle.ran_ns += int((LIGHT - 0.01) * 1e9)
        watched.second(busy, FLOOD_MESSAGES)
        ends[computing].send(b"an answer")
        assert not busy.others_wait()
        server.send(b"a message, most likely of the one that computes")
        assert not busy.others_wait()
        ends[idle].send(b"an answer")
        assert busy.others_wait()
        idle.workers[0].recv(100)
        watched.second(busy, FLOOD_MESSAGES)  # in which nobody computes
        assert busy.others_wait()
