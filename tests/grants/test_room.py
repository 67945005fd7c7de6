"""Room for calls: so many at a time and so many bytes, first come first served, also where those in line give up."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from nexlet_functions.grants.room import Room


async def test_who_finds_no_room_waits_in_line() -> None:
    room, order = Room(2, 100), []
    leave = [asyncio.Event() for _ in range(4)]

    async def one(number: int, size: int) -> None:
        async with room.enter(size):
            order.append(number)
            await leave[number].wait()

    tasks = [asyncio.create_task(one(number, size)) for number, size in enumerate((60, 60, 10, 500))]
    await asyncio.sleep(0)
    assert (order, room.inside, room.waiting) == ([0], 1, 3)  # the small one does not overtake
    leave[0].set()
    await tasks[0]
    await asyncio.sleep(0)
    assert (order, room.inside, room.waiting) == ([0, 1, 2], 2, 1)
    leave[1].set()
    await tasks[1]
    await asyncio.sleep(0)
    assert order == [0, 1, 2]  # too large beside another one
    leave[2].set()
    await tasks[2]
    await asyncio.sleep(0)
    assert order == [0, 1, 2, 3]
    leave[3].set()
    await asyncio.gather(*tasks)
    assert (room.inside, room.waiting) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 4), st.booleans()), max_size=20))
def test_the_bounds_hold_and_nobody_is_forgotten(calls: list[tuple[int, int, bool]]) -> None:
    async def go() -> None:
        room = Room(3, 100)
        held: list[int] = []

        async def one(size: int, turns: int) -> None:
            async with room.enter(size):
                held.append(size)
                try:
                    assert len(held) <= 3
                    assert len(held) == 1 or sum(held) <= 100
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    held.remove(size)

        tasks = []
        for size, turns, given_up in calls:
            task = asyncio.create_task(one(size, turns))
            tasks.append(task)
            await asyncio.sleep(0)
            if given_up:
                task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert (room.inside, room.waiting) == (0, 0)

    asyncio.run(go())


async def test_one_owner_leaves_room_for_the_others() -> None:
    room, order = Room(4, 100), []
    leave = asyncio.Event()

    async def one(name: str, size: int, owner: str) -> None:
        async with room.enter(size, owner):
            order.append(name)
            await leave.wait()

    asked = [("a1", 10, "a"), ("a2", 10, "a"), ("a3", 10, "a"), ("a4", 1, "a"), ("b1", 45, "b"), ("b2", 10, "b")]
    tasks = [asyncio.create_task(one(*call)) for call in asked]
    await asyncio.sleep(0)
    assert order == ["a1", "a2", "b1"], "two of four each, and half of the bytes"
    assert room.waiting == 3
    tasks[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a1", "a2", "b1", "a3"], "the next of that owner"
    leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(order) == ["a1", "a2", "a3", "a4", "b1", "b2"]
    assert (room.inside, room.waiting) == (0, 0)


async def test_what_is_larger_than_a_share_gets_in_where_its_owner_has_nothing_else() -> None:
    room = Room(4, 100)
    async with room.enter(80, "a"):
        assert room.inside == 1
