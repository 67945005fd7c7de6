"""A program that is renewed while it runs: the same sources with another environment, and no call that notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from nexlet_sandboxes.outcomes import LoadRefused, Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.pools import KeepingSink, call, limits, run

TELLS = """
import time

ran = 0

def handler(event, context):
    global ran
    ran += 1
    if event.data == b"slow":
        time.sleep(0.3)
    return f"{context.env['KEY']} {ran}"
"""

FIRST, SECOND, THIRD = ({"KEY": word} for word in ("first", "second", "third"))


@pytest.fixture(params=["strict", "oneshot"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def pool(zygote: Zygote) -> AsyncIterator[Pool]:
    async with started(zygote, max_workers=1) as one:
        yield one


@contextlib.asynccontextmanager
async def started(zygote: Zygote, *, max_workers: int, profile: str = "strict") -> AsyncIterator[Pool]:
    asked = limits(max_workers=max_workers, timeout=5.0, queue_timeout=20.0)
    pool = Pool(zygote, Program(TELLS, environment=FIRST), asked, KeepingSink(), profile=profile)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def renewed(pool: Pool, environment: dict[str, str]) -> Program:
    return replace(pool.program, environment=environment)


async def test_an_idle_worker_makes_room_for_one_of_the_new_program(zygote: Zygote, profile: str) -> None:
    async with started(zygote, max_workers=2, profile=profile) as pool:
        assert [one.body for one in await run(pool, b"")] == [b"first 1"]
        await pool.renew(renewed(pool, SECOND))
        assert [one.body for one in await run(pool, b"")] == [b"second 1"]
        assert pool.stats().workers + pool.stats().starting == 1


@pytest.mark.parametrize("max_workers", [1, 2])
async def test_what_was_sent_to_the_old_worker_is_finished_by_it(zygote: Zygote, max_workers: int) -> None:
    async with started(zygote, max_workers=max_workers) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        before = [call(b"slow"), call(b"")]
        for one in before:
            pool.submit(one)
        await pool.renew(renewed(pool, SECOND))
        after = [call(b"") for _ in range(20)]
        for one in after:
            pool.submit(one)
        await sink.until(lambda: len(sink.results) == 22)
        bodies = [sink.results[one.id].body for one in (*before, *after)]
        assert bodies[0] == b"first 1"
        assert all(body.startswith(b"second") for body in bodies[2:])
        assert all(result.outcome is Outcome.OK for result in sink.results.values())
        if max_workers == 1:
            assert list(sink.results) == sorted(sink.results), "one after another, in their order"
        assert 1 <= pool.stats().workers <= max_workers


async def test_an_old_worker_that_dies_is_followed_all_the_same(pool: Pool) -> None:
    sink = pool.sink
    assert isinstance(sink, KeepingSink)
    slow, waiting = call(b"slow"), call(b"")
    pool.submit(slow)
    await pool.renew(renewed(pool, SECOND))
    pool.submit(waiting)
    pool._leaving[0].process.kill()
    await sink.until(lambda: len(sink.results) == 2)
    assert sink.results[slow.id].outcome is Outcome.CRASH
    assert sink.results[waiting.id].body == b"second 1"


async def test_a_successor_that_dies_while_it_waits_is_made_anew(pool: Pool) -> None:
    sink = pool.sink
    assert isinstance(sink, KeepingSink)
    slow, waiting = call(b"slow"), call(b"")
    pool.submit(slow)
    await pool.renew(renewed(pool, SECOND))
    pool.submit(waiting)
    successor = pool._renewal.successor
    assert successor is not None
    successor.process.kill()
    await sink.until(lambda: len(sink.results) == 2)
    assert sink.results[slow.id].body == b"first 1"
    assert sink.results[waiting.id].body == b"second 1"


async def test_the_newest_of_two_has_its_turn(pool: Pool) -> None:
    sink = pool.sink
    assert isinstance(sink, KeepingSink)
    pool.submit(call(b"slow"))
    await pool.renew(renewed(pool, SECOND))
    await pool.renew(renewed(pool, THIRD))
    assert (await run(pool, b""))[0].body == b"third 1"
    assert pool.stats().workers == 1


async def test_one_that_does_not_load_changes_nothing(pool: Pool) -> None:
    with pytest.raises(LoadRefused):
        await pool.renew(replace(pool.program, environment=SECOND, handler="missing"))
    assert [one.body for one in await run(pool, b"")] == [b"first 1"]
    assert pool.program.environment == FIRST


async def test_draining_waits_for_what_leaves(pool: Pool) -> None:
    sink = pool.sink
    assert isinstance(sink, KeepingSink)
    slow = call(b"slow")
    pool.submit(slow)
    await pool.renew(renewed(pool, SECOND))
    await pool.drain(5)
    assert sink.results[slow.id].body == b"first 1"


async def test_closing_ends_them_all(pool: Pool) -> None:
    pool.submit(call(b"slow"))
    await pool.renew(renewed(pool, SECOND))
    assert pool._renewal.successor is not None
    processes = [pool._leaving[0].process, pool._renewal.successor.process]
    await pool.close()
    assert all(process.exited for process in processes)


async def test_there_are_never_more_workers_than_there_may_be(zygote: Zygote, profile: str) -> None:
    async with started(zygote, max_workers=1, profile=profile) as pool:
        sink = pool.sink
        assert isinstance(sink, KeepingSink)
        calls = [call(b"slow"), *(call(b"") for _ in range(5))]
        for one in calls:
            pool.submit(one)
        await pool.renew(renewed(pool, SECOND))
        await pool.renew(renewed(pool, THIRD))
        assert pool.stats().workers + pool.stats().starting <= 1
        await sink.until(lambda: len(sink.results) == 6)
        assert list(sink.results) == sorted(sink.results), "one after another, in their order"
        assert sink.results[calls[0].id].body == b"first 1"
        assert sink.results[calls[-1].id].body.startswith(b"third" if profile == "oneshot" else b"")


async def test_those_that_a_function_asked_to_keep_come_back(zygote: Zygote) -> None:
    asked = limits(min_workers=3, max_workers=3)
    pool = Pool(zygote, Program(TELLS, environment=FIRST), asked, KeepingSink())
    await pool.start()
    try:
        await eventually(lambda: pool.stats().workers == 3)
        await pool.renew(renewed(pool, SECOND))
        await eventually(lambda: pool.stats().workers == 3)
        assert (await run(pool, b""))[0].body == b"second 1"
    finally:
        await pool.close()


async def test_closing_ends_one_that_is_loading(pool: Pool) -> None:
    endless = replace(pool.program, source=TELLS + "\nwhile True:\n    pass\n")
    pool.compiled = b""
    renewing = asyncio.create_task(pool.renew(endless))
    await eventually(lambda: pool._renewal.loading or renewing.done())
    assert not renewing.done(), "it loads until it is ended"
    await pool.close()
    await renewing
    assert not pool._renewal.loading
