"""The soak itself: a short one for real, the same choices from the same seed, and an oracle that cannot be fooled."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.soak.account import LOST, NO_RESPONDERS, SLACK, UNDER_WAY, Account, Oddity, Window
from benchmarks.soak.faults import BETWEEN_SERVERS, CAUSES
from benchmarks.soak.functions import KINDS, workloads
from benchmarks.soak.plan import ONE_LIFE, PLACES, SETTLED, faults_of, place_of, plan
from nexlet_models.start_request import StartRequest

ROOT = Path(__file__).parents[2]


async def soak(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.soak", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_a_short_one_balances() -> None:
    code, said = await soak("--seconds", "4", "--seed", "1", "--rate", "200", "--every", "1.5")
    assert code == 0, said
    assert "the account balances, seed 1: every one of" in said


@pytest.mark.faults  # minutes, with every fault
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.timeout(400)
async def test_one_with_every_fault_balances(place: str) -> None:
    code, said = await soak("--seconds", "150", "--seed", "1", "--rate", "1000", "--place", place)
    assert code == 0, said
    for fault in faults_of(place):
        assert f"s  {fault}\n" in said


@pytest.mark.parametrize("place", PLACES)
def test_a_seed_always_chooses_the_same(place: str) -> None:
    assert plan(1, 60, place=place) == plan(1, 60, place=place) != plan(2, 60, place=place)
    planned = plan(1, 600, place=place)
    assert {one.fault for one in planned} == set(faults_of(place)) <= set(CAUSES)
    assert all(one.at < 600 * SETTLED for one in planned if one.fault in ONE_LIFE)
    assert {one.fault for one in plan(7, 60, place=place)} >= ONE_LIFE, "a minute has all of these"
    assert [one.at for one in planned] == sorted(one.at for one in planned)


def test_seeds_take_turns_with_the_places() -> None:
    assert {place_of(seed) for seed in (1, 2)} == set(PLACES)
    assert set(CAUSES) == {fault for place in PLACES for fault in faults_of(place)}
    assert set(CAUSES) >= ONE_LIFE | BETWEEN_SERVERS
    assert all(CAUSES[fault] == {NO_RESPONDERS} for fault in BETWEEN_SERVERS), "with a single server nothing is lost"


def test_every_kind_can_be_deployed() -> None:
    for workload in workloads():
        StartRequest.model_validate(workload.run_request)
    assert sum(kind.share for kind in KINDS) == pytest.approx(1.0)


def account_of(*odd: Oddity) -> Account:
    account = Account(sent=1 + len(odd))
    account.ended("fast", "200")
    for one in odd:
        account.ended(one.kind, one.what)
        account.odd.append(one)
    return account


CUT = Window("connections cut", frozenset({LOST, NO_RESPONDERS}), frozenset(), 10.0, 11.0)


@pytest.mark.parametrize(
    ("odd", "window", "balances"),
    [
        (Oddity(LOST, "fast", 10.5, 18.5), CUT, True),
        (Oddity(LOST, "fast", 10.0 - UNDER_WAY, 17.0), CUT, True),
        (Oddity(LOST, "fast", 10.0 - UNDER_WAY - SLACK - 0.1, 17.0), CUT, False),  # answered long before, normally
        (Oddity(LOST, "slow", 10.0 - UNDER_WAY - SLACK - 0.1, 17.0), CUT, True),  # it may have waited for a worker
        (Oddity(LOST, "fast", 11.0 + SLACK + 0.1, 19.5), CUT, False),  # after everybody answered again
        (Oddity(NO_RESPONDERS, "fast", 10.5, 10.5), CUT, True),
        (Oddity(NO_RESPONDERS, "fast", 9.0, 9.1), CUT, False),
        (Oddity("502", "fast", 10.5, 10.6), CUT, False),  # a cut connection is no worker that died
        (Oddity(NO_RESPONDERS, "fast", 5.0, 5.1), Window("s", frozenset({NO_RESPONDERS}), frozenset(), 0, 9), True),
        (
            Oddity(NO_RESPONDERS, "fast", 5.0, 5.1),
            Window("function redeployed", frozenset({NO_RESPONDERS}), frozenset({"slow"}), 0, 9),
            False,
        ),  # that was another function
    ],
)
def test_only_a_fault_of_that_time_and_sort_explains(odd: Oddity, window: Window, balances: bool) -> None:
    problems = account_of(odd).problems([window])
    assert (problems == []) is balances, problems


def test_a_request_that_nobody_accounted_for_is_missed() -> None:
    account = account_of()
    account.sent += 1
    assert account.problems([]) == ["2 requests were sent, and 1 accounted for"]


def test_what_is_wrong_in_itself_no_fault_explains() -> None:
    account = account_of()
    account.wrong.append("request 1 to 'witness' was run 2 times")
    assert account.problems([CUT]) == ["request 1 to 'witness' was run 2 times"]
