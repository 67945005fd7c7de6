"""Pauses and the order of servers, with chance under control."""

from __future__ import annotations

import random

from pydantic import SecretStr

from nexlet_functions.natsio import Credentials, Options
from nexlet_functions.natsio.backoff import STEADY, Backoff, Servers


def backoff(*, chance: float) -> Backoff:
    """One that takes the part `chance` of every range."""
    options = Options()
    return Backoff(
        first=options.backoff_first,
        longest=options.backoff_max,
        refused=options.backoff_refused,
        uniform=lambda low, high: low + chance * (high - low),
    )


def test_pauses_double_up_to_the_longest() -> None:
    made = backoff(chance=1.0)
    assert made.after_loss(60) == 0.1
    assert [made.after_failure() for _ in range(5)] == [0.2, 0.4, 0.8, 0.8, 0.8]


def test_chance_halves_them_at_most_and_a_first_one_may_be_nothing() -> None:
    made = backoff(chance=0.0)
    assert made.after_loss(60) == 0.0
    assert [made.after_failure() for _ in range(4)] == [0.1, 0.2, 0.4, 0.4]


def test_by_default_a_server_that_is_back_is_found_within_a_second() -> None:
    made = backoff(chance=1.0)
    assert max(made.after_failure() for _ in range(1000)) < 1.0


def test_a_server_that_turns_us_down_is_asked_less_often() -> None:
    made = backoff(chance=1.0)
    assert [round(made.after_failure(refused=True), 3) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert made.after_failure() == 0.8


def test_a_connection_that_was_good_begins_anew_and_one_that_was_not_goes_on() -> None:
    made = backoff(chance=1.0)
    for _ in range(3):
        made.after_failure()
    assert made.after_loss(STEADY) == 0.8
    assert made.after_loss(STEADY + 1) == 0.1
    assert made.after_failure() == 0.2


def test_a_hundred_that_are_lost_together_come_back_apart() -> None:
    pauses = []
    for seed in range(100):
        made = Backoff(first=0.1, longest=0.8, refused=5.0, uniform=random.Random(seed).uniform)
        pauses.append((made.after_loss(60), made.after_failure(), made.after_failure(), made.after_failure()))
    for attempt, widest in enumerate((0.1, 0.2, 0.4, 0.8)):
        column = sorted(row[attempt] for row in pauses)
        low = 0.0 if attempt == 0 else widest / 2
        assert low <= column[0] <= column[-1] <= widest
        # Nowhere more than a fifth of them in a tenth of the range.
        width = (widest - low) / 10
        assert max(sum(start <= pause < start + width for pause in column) for start in column) <= 20


def test_every_server_is_tried_in_a_round_and_the_lost_one_last() -> None:
    credentials = Credentials(("nats://a:1", "nats://b:2", "nats://c:3"))
    chance = random.Random(1)
    servers = Servers(credentials, shuffle=chance.shuffle)
    rounds = [servers.round(after="nats://b:2") for _ in range(20)]
    assert {tuple(sorted(one)) for one in rounds} == {("nats://a:1", "nats://b:2", "nats://c:3")}
    assert {one[-1] for one in rounds} == {"nats://b:2"}
    assert {one[0] for one in rounds} == {"nats://a:1", "nats://c:3"}


def test_what_a_server_tells_of_its_cluster_replaces_what_was_told_before() -> None:
    servers = Servers(Credentials(("nats://a:1",)), shuffle=lambda them: None)
    servers.learn(["nats://a:1", "nats://b:2", "nats://c:3"])
    assert servers.round() == ["nats://a:1", "nats://b:2", "nats://c:3"]
    servers.learn(["nats://c:3", "nats://d:4", "nats://d:4"])
    assert servers.round() == ["nats://a:1", "nats://c:3", "nats://d:4"]
    servers.learn([])
    assert servers.round() == ["nats://a:1", "nats://c:3", "nats://d:4"]


def test_servers_we_are_told_of_are_shown_who_we_are() -> None:
    servers = Servers(Credentials(("nats://u:p@a:1",)), shuffle=lambda them: None)
    servers.learn(["nats://a:1", "nats://b:2"])
    assert servers.round() == ["nats://u:p@a:1", "nats://u:p@b:2"]
    assert Servers(Credentials(("nats://a:1",), token=SecretStr("t"))).round() == ["nats://a:1"]
