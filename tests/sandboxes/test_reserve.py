"""Workers that wait for a program: who gets one, of which kind they are, and that none is anybody's twice."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_sandboxes import reserve as reserve_module
from nexlet_sandboxes.outcomes import LoadRefused, Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.reserve import Kind, Reserve
from nexlet_sandboxes.zygote import LayerUnavailable, WorkerProcess, Zygote
from tests.support.polling import eventually
from tests.support.pools import MIB, KeepingSink, limits, run
from tests.support.zygotes import children, missing, open_zygote

PID = """
import json
SEEN = []
def handler(event, context):
    SEEN.append(event.text)
    return {"name": context.name, "seen": SEEN}
"""


@contextlib.asynccontextmanager
async def reserve_of(zygote: Zygote, most: int = 2) -> AsyncIterator[Reserve]:
    made = Reserve(zygote, most)
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def pool_of(
    zygote: Zygote, reserve: Reserve, *, name: str = "f", source: str = PID, profile: str = "strict", **limited: object
) -> AsyncIterator[Pool]:
    pool = Pool(zygote, Program(source, name=name), limits(**limited), KeepingSink(), profile=profile, reserve=reserve)
    try:
        yield pool
    finally:
        await pool.close()


def forked(zygote: Zygote) -> set[int]:
    return set(map(int, children(zygote)))


def processes(pool: Pool) -> list[int]:
    return [link.process.pid for link in pool._growth.links]


def kinds(reserve: Reserve) -> list[tuple[str, int]]:
    return sorted((kind.profile, kind.memory) for kind in reserve._waiting.values())


def end(worker: WorkerProcess) -> None:
    worker.kill()
    worker.close()


async def test_none_wait_before_one_was_asked_for_and_then_as_many_as_there_may_be(zygote: Zygote) -> None:
    async with reserve_of(zygote, 3) as reserve, pool_of(zygote, reserve) as pool:
        assert children(zygote) == []
        await pool.start()
        assert reserve.taken.total() == 2, "one compiles, one loads"
        await eventually(lambda: reserve.waiting == 2, what="as many as were asked for")
        before = Counter(reserve.taken)
        async with pool_of(zygote, reserve) as other:
            await other.start()
            assert reserve.taken - before == {"reserve": 2}
            await eventually(lambda: reserve.waiting == 3, what="as many as may wait")
            assert len(children(zygote)) == 5


async def test_who_takes_one_is_the_only_one_that_it_ever_runs(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve, name="first") as first:
        await first.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        waiting = {worker.pid for worker in reserve._waiting}
        async with pool_of(zygote, reserve, name="second") as second:
            await second.start()
            (mine,) = processes(second)
            assert mine in waiting
            (result,) = await run(second, b"1")
            assert (result.outcome, result.body) == (Outcome.OK, b'{"name":"second","seen":["1"]}')
        await eventually(lambda: reserve.waiting == 2, what="two wait again")
        assert mine not in {worker.pid for worker in reserve._waiting}
        await eventually(lambda: mine not in forked(zygote), what="it ended with its function")
        async with pool_of(zygote, reserve, name="third") as third:
            await third.start()
            (result,) = await run(third, b"2")
            assert result.body == b'{"name":"third","seen":["2"]}'


def address_space(pid: int) -> int:
    """What a process may have of it, in bytes; -1 for all there is."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    limit = next(line for line in lines if line.startswith("Max address space")).split()[3]
    return -1 if limit == "unlimited" else int(limit)


async def test_a_function_that_was_idle_gets_one(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve, idle=0.01) as pool:
        await pool.start()
        await eventually(lambda: pool.asleep and reserve.waiting == 2, what="no worker but those that wait")
        before = Counter(reserve.taken)
        (result,) = await run(pool, b"woken")
        assert result.body == b'{"name":"f","seen":["woken"]}'
        assert reserve.taken - before == {"reserve": 1}


async def test_each_is_of_the_kind_that_was_asked_for(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve, memory=64 * MIB) as small:
        await small.start()
        await eventually(lambda: kinds(reserve) == [("strict", 64 * MIB)] * 2, what="two small ones")
        async with pool_of(zygote, reserve, memory=96 * MIB) as large:
            others = {worker.pid for worker in reserve._waiting}
            await large.start()
            assert not others & set(processes(large)), "of another kind"
            await eventually(lambda: kinds(reserve) == [("strict", 96 * MIB)] * 2, what="those asked for last")
            (pid,) = processes(large)
            (waiting, _) = (worker.pid for worker in reserve._waiting)
            if os.geteuid() == 0:  # nobody else may look
                # What it had when it was forked is in the limit, and that may be some pages more or less.
                bound = address_space(pid)
                await eventually(
                    lambda: abs(address_space(waiting) - bound) < 16 * MIB, what="it has the limits of its kind already"
                )
        async with pool_of(zygote, reserve, memory=96 * MIB, profile="process") as unlocked:
            others = {worker.pid for worker in reserve._waiting}
            await unlocked.start()
            assert not others & set(processes(unlocked)), "of another kind"
            await eventually(lambda: kinds(reserve) == [("process", 96 * MIB)] * 2, what="those asked for last")
    await eventually(lambda: children(zygote) == [], what="none is left")


async def test_one_with_more_walls_missing_is_nobodys(zygote: Zygote) -> None:
    zygote.without = frozenset({"landlock"})
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        zygote.without = frozenset()
        async with pool_of(zygote, reserve) as other:
            open_ones = {worker.pid for worker in reserve._waiting}
            await other.start()
            assert not open_ones & set(processes(other))
            wanted = Kind("strict", limits().memory, frozenset())
            await eventually(lambda: list(reserve._waiting.values()) == [wanted] * 2, what="such with all walls")


def test_a_kind_is_all_that_a_worker_is_made_by() -> None:
    """Who adds something to what a worker is forked with has to say whether two that differ by it are the same."""
    told = set(inspect.signature(Zygote.spawn).parameters) - {"self", "probe"}
    assert told == set(Kind._fields)


async def test_none_wait_where_the_operator_wants_none(zygote: Zygote) -> None:
    async with reserve_of(zygote, 0) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        assert reserve._timer is None
        assert reserve.taken == {"reserve": 0, "forked": 2}
        assert forked(zygote) == set(processes(pool))


async def test_one_that_ends_while_it_waits_is_not_given_to_anybody(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        one, other = reserve._waiting
        os.kill(one.pid, signal.SIGKILL)
        await eventually(lambda: reserve.waiting == 1, what="it is known that it ended")
        async with pool_of(zygote, reserve) as second:
            second.compiled = pool.compiled
            await second.start()
            assert processes(second) == [other.pid]
            await eventually(lambda: reserve.waiting == 2, what="two wait again")


async def test_they_end_with_their_zygote_and_come_back_with_the_next_that_is_asked_for(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        assert zygote.pid is not None
        os.kill(zygote.pid, signal.SIGKILL)
        await eventually(lambda: reserve.waiting == 0, what="they are gone")
        (result,) = await run(pool, b"after")
        assert result.body == b'{"name":"f","seen":["after"]}'
        await eventually(lambda: reserve.waiting == 2, what="two wait again")


async def test_a_machine_without_a_layer_refuses_whoever_asks_and_tries_no_more_for_itself() -> None:
    async with open_zygote(missing("landlock")) as zygote, reserve_of(zygote) as reserve:
        for _ in range(2):
            async with pool_of(zygote, reserve) as pool:
                with pytest.raises(LayerUnavailable, match="landlock"):
                    await pool.start()
        # Each was forked, said what it lacks, and ended; nobody hears it where nobody asked.
        await eventually(
            lambda: reserve._timer is None and reserve._filling is not None and reserve._filling.done(),
            what="it has been tried",
        )
        await eventually(lambda: children(zygote) == [] and reserve.waiting == 0, what="none is left")
        assert reserve._timer is None


async def test_what_cannot_be_forked_is_told_to_who_needs_it_next(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        spawn, asked = zygote.spawn, 0

        async def refusing(*arguments: object, **named: object) -> object:
            nonlocal asked
            asked += 1
            raise LayerUnavailable("no more")

        monkeypatch.setattr(zygote, "spawn", refusing)
        for _ in range(2):
            end(await reserve.take("strict", limits().memory))
        await eventually(lambda: asked == 1, what="it was tried once")
        with pytest.raises(LayerUnavailable, match="no more"):
            await reserve.take("strict", limits().memory)
        monkeypatch.setattr(zygote, "spawn", spawn)
        await eventually(lambda: reserve.waiting == 2, what="two wait again")


async def test_who_is_closed_while_it_makes_some_leaves_none(zygote: Zygote) -> None:
    reserve = Reserve(zygote, 8)
    for _ in range(8):
        end(await reserve.take("strict", limits().memory))
    await eventually(lambda: reserve._filling is not None, what="some are being made")
    await reserve.close()
    assert reserve.waiting == 0
    await eventually(lambda: children(zygote) == [], what="none is left")
    end(await reserve.take("strict", limits().memory))
    assert reserve._timer is None


async def test_what_refuses_a_program_is_not_used_again(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve) as pool:
        await pool.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        waiting = {worker.pid for worker in reserve._waiting}
        async with pool_of(zygote, reserve, source="import os\n") as refused:
            with pytest.raises(LoadRefused):
                await refused.start()
        await eventually(lambda: len(waiting & forked(zygote)) == 1, what="the one that looked at it ended")
        await eventually(lambda: reserve.waiting == 2, what="two wait again")


async def test_it_is_filled_when_the_message_that_took_one_had_its_turn(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve_module, "REFILL_S", 3600.0)
    async with reserve_of(zygote) as reserve:
        for _ in range(3):
            end(await reserve.take("strict", limits().memory))
        await asyncio.sleep(0)
        assert (reserve.waiting, reserve._filling) == (0, None)
        assert reserve._timer is not None
        reserve._refill()
        await eventually(lambda: reserve.waiting == 2, what="two wait")


def faults(worker: WorkerProcess) -> int:
    """Pages that it got for itself so far."""
    return int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[7])


async def settled(worker: WorkerProcess) -> int:
    """The same once it has come to rest."""
    seen = -1
    while (now := faults(worker)) != seen:
        seen = now
        await asyncio.sleep(0.1)
    return seen


RANDOM = """
import random
DRAWN = random.random()
def handler(event, context):
    return str(DRAWN)
"""


async def test_one_that_waits_has_its_pages_before_its_program_comes_and_nothing_of_the_rehearsal_is_left(
    zygote: Zygote,
) -> None:
    async with reserve_of(zygote) as reserve, pool_of(zygote, reserve, source=RANDOM) as fresh:
        await fresh.start()
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        drawn = [(await run(fresh, b"1"))[0].body]
        bare = await zygote.spawn("strict", limits().memory)
        alone = await settled(bare)
        end(bare)
        for worker in reserve._waiting:
            before = await settled(worker)
            assert before > alone + 100, "it went through a load"
            assert worker.running_call == 0
            async with pool_of(zygote, reserve, source=RANDOM) as pool:
                pool.compiled = fresh.compiled
                await pool.start()
                assert processes(pool) == [worker.pid]
                drawn += [(await run(pool, b"1"))[0].body]
                sink = pool.sink
                assert isinstance(sink, KeepingSink)
                assert (sink.lines, sink.metrics) == ([], [])
                assert await settled(worker) - before < before - alone, "the program found most of its pages copied"
            break
        assert len(set(drawn)) == 2, "its random numbers are its own"


async def test_one_with_little_memory_has_all_of_it_for_its_program(zygote: Zygote) -> None:
    async with reserve_of(zygote) as reserve:
        for _ in range(2):
            end(await reserve.take("strict", 16 * MIB))
        await eventually(lambda: reserve.waiting == 2, what="two wait")
        bare = await zygote.spawn("strict", 16 * MIB)
        alone = await settled(bare)
        end(bare)
        for worker in reserve._waiting:
            assert await settled(worker) < alone + 100


@pytest.mark.parametrize("profile", ["strict", "isolated", "process", "unsafe-dev"])
async def test_a_rehearsed_worker_does_all_that_a_fresh_one_does(zygote: Zygote, profile: str) -> None:
    source = """
import json, logging
def handler(event, context):
    print("said", event.text)
    context.log.info("logged", n=1)
    if event.text == "reject":
        raise Reject(422, "no")
    if event.text == "raise":
        raise ValueError("bad")
    return json.dumps({"left": context.remaining_ms() > 0, "env": dict(context.env)})
"""

    async def answers(reserve: Reserve | None) -> list[object]:
        sink = KeepingSink()
        pool = Pool(
            zygote,
            Program(source, environment={"A": "b"}, run_prefix="same."),
            limits(),
            sink,
            profile=profile,
            reserve=reserve,
        )
        try:
            await pool.start()
            if reserve is not None:
                assert reserve.taken["reserve"] >= 1
            results = await run(pool, b"fine", b"reject", b"raise", b"fine")
            lines = [(stream, level, line) for _, stream, level, line in sink.lines]
            return [[(one.outcome, one.code, one.body, one.error, one.traceback) for one in results], lines]
        finally:
            await pool.close()

    async with reserve_of(zygote, 4) as reserve:
        for _ in range(4):
            end(await reserve.take(profile, limits().memory))
        await eventually(lambda: reserve.waiting == 4, what="four wait")
        for worker in list(reserve._waiting):
            await settled(worker)
        assert await answers(reserve) == await answers(None)
