"""Whose a run is: the rules of claims over a real bucket, and over one that loses what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.schedules.claims import EARLY, ON_TIME, Claim, Schedule, Verdict
from nexlet_functions.schedules.ledger import Entry, Ledger, LedgerUnavailable, Mark, Records, key_of
from nexlet_models.cron import Every, from_moment, moment_of
from tests.support.row import row

BUCKET = "nexlet-schedules"
KEY = key_of("acme", "report", "every 1m")
SECOND = 1_000_000
NOON = moment_of(datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
"""A full hour near the server's own time, which is that of what it keeps."""


@pytest.fixture
async def connection(nats_server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await Connection.open(Credentials(servers=(nats_server.url,))) as opened:
        yield opened


@pytest.fixture
async def bucket(nats_server: EmbeddedServer) -> AsyncIterator[KeyValue]:
    client = await nats.connect(nats_server.url)
    yield await client.jetstream().create_key_value(KeyValueConfig(bucket=BUCKET))
    await client.close()


@pytest.fixture
def ledger(connection: Connection, bucket: KeyValue) -> Ledger:
    return Ledger(connection, BUCKET)


class Clone:
    """A schedule that is due every minute, and what it ran."""

    def __init__(self, records: Records, name: str = "W1", *, longest: float = 10.0, **options: str) -> None:
        self.ran: list[int] = []
        self.claims: list[Claim] = []
        self.schedule = Schedule(
            Every(60.0), records, KEY, text="every 1m", owner=name, fire=self.fire, longest=longest, **options
        )  # fmt: skip

    def fire(self, claim: Claim) -> None:
        self.ran.append((claim.due - NOON) // SECOND)
        self.claims.append(claim)

    async def look(self, second: float) -> Verdict:
        return (await self.schedule.look(NOON + round(second * SECOND)))[0]


async def test_one_of_many_clones_runs_it(ledger: Ledger) -> None:
    clones = [Clone(ledger, f"W{number}") for number in range(6)]
    await asyncio.gather(*(clone.schedule.join(NOON - 30 * SECOND) for clone in clones))
    for minute in range(5):
        verdicts = await asyncio.gather(*(clone.look(60 * minute + number / 10) for number, clone in enumerate(clones)))
        assert sorted(verdicts) == ["run", *["taken"] * 5]
    assert sorted(second for clone in clones for second in clone.ran) == [0, 60, 120, 180, 240]


async def test_what_is_due_before_it_was_ever_deployed_was_not_missed(ledger: Ledger) -> None:
    clone = Clone(ledger, missed="once")
    assert await clone.schedule.join(NOON + SECOND) == NOON + 60 * SECOND
    assert await clone.look(1) is Verdict.TAKEN
    assert clone.ran == []


async def test_late_is_not_missed(ledger: Ledger) -> None:
    clone = Clone(ledger)
    await clone.schedule.join(NOON - 30 * SECOND)
    assert await clone.look(ON_TIME / SECOND) is Verdict.RUN
    assert clone.ran == [0]


async def test_missed_runs_are_left_out(ledger: Ledger) -> None:
    await Clone(ledger).schedule.join(NOON - 600 * SECOND)
    after = Clone(ledger, "W2")
    assert await after.schedule.join(NOON + 30 * SECOND) == NOON + 30 * SECOND, "there is something to settle"
    assert await after.look(30) is Verdict.MISSED
    assert await after.look(60) is Verdict.RUN
    assert after.ran == [60]
    assert after.schedule.counts == {"missed": 1, "run": 1}


async def test_missed_runs_are_made_up_for_once(ledger: Ledger) -> None:
    await Clone(ledger).schedule.join(NOON - 600 * SECOND)
    clones = [Clone(ledger, name, missed="once") for name in ("W2", "W3")]
    for clone in clones:
        assert await clone.schedule.join(NOON + 30 * SECOND) == NOON + 30 * SECOND
    assert sorted([await clone.look(30) for clone in clones]) == ["run", "taken"]
    assert [second for clone in clones for second in clone.ran] == [0]


@row("a nexlet dies with a run that it has claimed")
async def test_a_nexlet_that_dies_with_its_claim_takes_the_run_with_it(ledger: Ledger) -> None:
    first, second = Clone(ledger, "W1", missed="once"), Clone(ledger, "W2", missed="once")
    await first.schedule.join(NOON - 30 * SECOND)
    await second.schedule.join(NOON - 30 * SECOND)
    assert await first.look(0) is Verdict.RUN  # and dies, before it ran anything
    assert await second.look(1) is Verdict.TAKEN
    assert await second.look(45) is Verdict.TAKEN
    assert await second.look(60) is Verdict.RUN


async def test_overlapping_runs_are_left_out_whoever_they_are_for(ledger: Ledger) -> None:
    first, second = Clone(ledger, "W1", longest=300.0), Clone(ledger, "W2", longest=300.0)
    await first.schedule.join(NOON - 30 * SECOND)
    await second.schedule.join(NOON - 30 * SECOND)
    assert await first.look(0) is Verdict.RUN
    assert await second.look(60) is Verdict.OVERLAPPED
    assert await first.look(60) is Verdict.TAKEN, "left out once, and counted once"
    assert first.schedule.needs_release(first.claims[0])
    await first.schedule.release(first.claims[0])
    assert await second.look(120) is Verdict.RUN
    assert (first.ran, second.ran) == ([0], [120])


async def test_the_end_of_a_run_that_was_never_told_is_over_by_itself(ledger: Ledger) -> None:
    first, second = Clone(ledger, "W1", longest=90.0), Clone(ledger, "W2", longest=90.0)
    await first.schedule.join(NOON - 30 * SECOND)
    assert await first.look(0) is Verdict.RUN
    assert [await second.look(60), await second.look(120)] == [Verdict.OVERLAPPED, Verdict.RUN]


async def test_overlapping_runs_are_allowed_where_that_is_asked_for(ledger: Ledger) -> None:
    clone = Clone(ledger, longest=300.0, overlap="allow")
    await clone.schedule.join(NOON - 30 * SECOND)
    assert [await clone.look(0), await clone.look(60)] == [Verdict.RUN, Verdict.RUN]
    assert not clone.schedule.needs_release(clone.claims[0])


async def test_a_run_that_cannot_overlap_needs_no_word_about_its_end(ledger: Ledger) -> None:
    clone = Clone(ledger, longest=10.0)
    await clone.schedule.join(NOON - 30 * SECOND)
    await clone.look(0)
    assert not clone.schedule.needs_release(clone.claims[0])


async def test_a_clock_that_is_set_back_runs_nothing_again(ledger: Ledger) -> None:
    clone = Clone(ledger)
    await clone.schedule.join(NOON - 30 * SECOND)
    assert [await clone.look(second) for second in (0, 60)] == [Verdict.RUN, Verdict.RUN]
    assert [await clone.look(second) for second in (0, 59, 60, 61)] == [Verdict.TAKEN] * 4
    assert await clone.look(120) is Verdict.RUN
    assert clone.ran == [0, 60, 120]


async def test_a_claim_from_the_future_does_not_stop_the_schedule(ledger: Ledger) -> None:
    await Clone(ledger, "WRONG").schedule.join(NOON + 365 * 86400 * SECOND)
    written = (await ledger.read(KEY)).written
    honest = Clone(ledger)
    due = Every(60.0).after(written + EARLY)
    assert await honest.look((due - NOON) / SECOND) is Verdict.RUN
    mark = (await ledger.read(KEY)).mark
    assert mark is not None
    assert mark.last == due


async def test_a_key_that_was_deleted_or_written_over_begins_anew(ledger: Ledger, bucket: KeyValue) -> None:
    clone = Clone(ledger)
    await clone.schedule.join(NOON - 30 * SECOND)
    await bucket.delete(KEY)
    assert await clone.look(0) is Verdict.RUN
    for written in (b"", b"nonsense", b"[]", b'{"last": 7, "by": "x", "schedule": ""}', b'{"last": "soon"}'):
        await bucket.put(KEY, written)
        assert (await ledger.read(KEY)).mark is None
    assert await clone.look(60) is Verdict.RUN
    said = json.loads((await bucket.get(KEY)).value or b"")
    assert said["schedule"] == "every 1m"
    assert datetime.fromisoformat(said["last"]) == from_moment(NOON + 60 * SECOND)
    assert said["by"].startswith("W1.")


@pytest.mark.parametrize("name", ["report", "größe.x y", "a.b.c", "=", "$x"])
async def test_any_name_makes_a_key(ledger: Ledger, name: str) -> None:
    key = key_of("näme$", name, "every 1m")
    assert await ledger.write(key, Mark(NOON, "x"), 0)
    assert (await ledger.read(key)).mark == Mark(NOON, "x")


async def test_no_bucket_is_said(connection: Connection) -> None:
    ledger = Ledger(connection, "missing")
    for asking in (ledger.read(KEY), ledger.write(KEY, Mark(0, "x"), 0)):
        with pytest.raises(LedgerUnavailable, match="nats kv add missing") as refused:
            await asking
        assert refused.value.code == "bucket-missing"


# --- confirmations that are lost -------------------------------------------------------------------------------------


class Lossy:
    """Keeps what it is given, and loses one confirmation of each two, or one message."""

    def __init__(self, *, arrives: bool) -> None:
        self._arrives = arrives
        self._entry = Entry()
        self._asked = 0

    async def read(self, key: str) -> Entry:
        return self._entry

    async def write(self, key: str, mark: Mark, revision: int) -> bool:
        self._asked += 1
        lost = self._asked % 2 == 0
        if revision != self._entry.revision:
            return False
        if self._arrives or not lost:
            self._entry = Entry(revision + 1, mark, NOON)
        if lost:
            raise LedgerUnavailable("the connection was lost", "try again")
        return True


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_claim_whose_confirmation_is_lost_is_run_once(arrives: bool) -> None:
    records = Lossy(arrives=arrives)
    first, second = Clone(records, "W1"), Clone(records, "W2")
    await first.schedule.join(NOON - 30 * SECOND)
    assert await first.look(0) is Verdict.RUN
    assert await second.look(1) is Verdict.TAKEN
    assert first.ran == [0]


@pytest.mark.parametrize("missed", ["skip", "once"])
async def test_a_ledger_that_cannot_be_had_is_asked_again(missed: str) -> None:
    class Gone(Lossy):
        gone = True

        async def read(self, key: str) -> Entry:
            if self.gone:
                raise LedgerUnavailable("no connection", "try again")
            return await super().read(key)

    records = Gone(arrives=True)
    clone = Clone(records, missed=missed)
    assert (await clone.schedule.look(NOON))[1] == NOON + SECOND
    assert clone.schedule.last_error
    verdict, again = await clone.schedule.look(NOON + 20 * SECOND)
    if missed == "skip":
        assert (verdict, again) == (Verdict.MISSED, NOON + 60 * SECOND)
        assert clone.schedule.counts == {"missed": 1}
        return
    assert (verdict, again) == (Verdict.FAILED, NOON + 50 * SECOND)
    records.gone = False
    assert await clone.look(50) is Verdict.RUN
    assert clone.ran == [0]
    assert not clone.schedule.last_error


def test_a_day_is_counted_from_a_time_with_nine_digits() -> None:
    at = from_moment(NOON) + timedelta(microseconds=5)
    assert moment_of(at) == NOON + 5
