"""What is read at once from a connection: a turn of the loop for so much of it, or less, where somebody else waits."""

from __future__ import annotations

import asyncio
from typing import Any

from nexlet_functions.natsio.fast import PIECE, TURN, _Tap
from nexlet_functions.natsio.router import Router
from tests.support.polling import eventually
from tests.support.turns import Turns, somebody_waits

MESSAGE = b"MSG a 1 100\r\n%b\r\n" % (b"x" * 100)


class Sink:
    """Keeps in which turn of the loop each message came, and after how many messages a batch ended."""

    def __init__(self, turns: Turns) -> None:
        self.came: list[int] = []
        self.ends: list[int] = []
        self._turns = turns

    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        self.came.append(self._turns.count)

    def batch_end(self) -> None:
        self.ends.append(len(self.came))


class Transport:
    """As much of one as a tap touches."""

    def __init__(self) -> None:
        self.paused = False
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return False


def tap(sink: Sink) -> tuple[_Tap, Transport, asyncio.StreamReader]:
    transport, reader, failures = Transport(), asyncio.StreamReader(), list[BaseException]()
    router = Router({"in_msgs": 0, "in_bytes": 0}, failed=failures.append, complained=lambda _: None)
    router.add(1, sink)
    made = _Tap(transport, asyncio.StreamReaderProtocol(reader), reader, router)
    assert transport.protocol is made
    return made, transport, reader


def most_in_a_turn(sink: Sink) -> int:
    return max(sink.came.count(turn) for turn in set(sink.came))


async def test_a_flood_is_walked_a_turn_at_a_time() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, transport, reader = tap(sink)
        messages = 4 * TURN // len(MESSAGE)
        made.data_received(MESSAGE * messages + b"PONG\r\n")
        assert transport.paused
        assert len(sink.came) == sink.ends[-1] == TURN // len(MESSAGE)
        await eventually(lambda: len(sink.came) == messages)
        assert not transport.paused
        assert await reader.readexactly(6) == b"PONG\r\n"
    assert most_in_a_turn(sink) <= TURN // len(MESSAGE) + 1
    assert len(sink.ends) <= 5


async def test_where_somebody_waits_it_gives_way_after_each_piece() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, transport, reader = tap(sink)
        made.others_wait = somebody_waits
        messages = 4 * TURN // len(MESSAGE)
        made.data_received(MESSAGE * messages + b"PONG\r\n")
        assert transport.paused
        assert len(sink.came) == sink.ends[-1] == PIECE // len(MESSAGE)
        await eventually(lambda: len(sink.came) == messages)
        assert not transport.paused
        assert await reader.readexactly(6) == b"PONG\r\n"
    assert most_in_a_turn(sink) <= PIECE // len(MESSAGE) + 1
    # Between two pieces the loop looks at sockets, and then calls what was called soon.
    assert all(later - earlier != 1 for earlier, later in zip(sink.came, sink.came[1:], strict=False))


async def test_while_nobody_waits_its_turns_are_whole() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, _, _ = tap(sink)
        asked = 0

        def ask() -> bool:
            nonlocal asked
            asked += 1
            return False

        made.others_wait = ask
        messages = 2 * TURN // len(MESSAGE)
        made.data_received(MESSAGE * messages)
        await eventually(lambda: len(sink.came) == messages)
    assert most_in_a_turn(sink) >= TURN // len(MESSAGE)
    assert len(sink.ends) <= 3, "pieces are no batches of their own"
    assert asked >= 2 * TURN // PIECE - 2


async def test_a_message_larger_than_a_piece_is_not_cut_into_pieces() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, _, _ = tap(sink)
        made.others_wait = somebody_waits
        large = b"MSG a 1 %d\r\n%b\r\n" % (8 * PIECE, b"x" * (8 * PIECE))
        made.data_received(large * 3)
        await eventually(lambda: len(sink.came) == 3)
    assert sink.came[-1] < 20


async def test_what_is_small_is_a_batch_at_once() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, transport, _ = tap(sink)
        made.others_wait = somebody_waits
        made.data_received(MESSAGE * 8)
        assert (sink.ends, transport.paused) == ([8], False)


async def test_what_is_in_hand_when_the_connection_ends_is_not_lost() -> None:
    with Turns() as turns:
        sink = Sink(turns)
        made, _, _ = tap(sink)
        made.others_wait = somebody_waits
        messages = TURN // len(MESSAGE)
        made.data_received(MESSAGE * messages)
        made.connection_lost(None)
        assert len(sink.came) == sink.ends[-1] == messages
        await asyncio.sleep(0)
        assert len(sink.came) == messages
