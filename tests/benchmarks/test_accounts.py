"""The account of a burst: what each count explains, and the counts themselves, of a server and of a bare subscriber."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from benchmarks.accounts import Account, delivered
from benchmarks.bench import Bench
from benchmarks.bursts import bare_burst, chunks
from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.nexlets import MONITORED
from tests.support.settle import settle

few = st.integers(min_value=0, max_value=1000)


@given(distinct=few, twice=few, refused=few, by_server=few, by_client=few, nowhere=few)
def test_what_is_in_none_of_the_counts_is_unaccounted(
    distinct: int, twice: int, refused: int, by_server: int, by_client: int, nowhere: int
) -> None:
    sent = distinct + refused + by_server + by_client + nowhere
    account = Account(sent, distinct + twice, distinct, refused, by_server, by_client)
    assert account.unaccounted == nowhere
    assert account.lost == by_server + by_client + nowhere
    assert account.twice == twice
    told = account.as_json()
    assert told["run"] + told["refused"] + told["lost"] == sent + twice


def test_more_accounted_for_than_was_sent_shows() -> None:
    assert Account(sent=10, run=10, distinct=10, refused=1).unaccounted == -1


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 2001])
def test_the_messages_of_a_burst_all_differ_and_have_their_size(count: int) -> None:
    lines = b"".join(chunks("burst", count, 16)).split(b"\r\n")
    assert lines[0:-1:2] == [b"PUB burst 16"] * count
    assert lines[1::2] == [b"%016d" % number for number in range(count)]


@pytest.fixture
async def monitored() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(jetstream=False, config=MONITORED) as server:
        yield server


async def test_the_server_tells_what_it_handed_on_also_to_a_connection_that_is_closed(
    monitored: EmbeddedServer,
) -> None:
    async def take(_: Msg) -> None:
        pass

    publisher, subscriber = await nats.connect(monitored.url), await nats.connect(monitored.url)
    try:
        await publisher.subscribe("counted", cb=take)
        await publisher.subscribe("counted.else", cb=take)
        await settle(publisher)
        await publisher.publish("counted", b"one")
        await subscriber.subscribe("counted", cb=take)
        await settle(subscriber)
        await publisher.publish("counted", b"two, twice")
        await publisher.publish("counted.else", b"another subject")
        await settle(publisher)
        assert delivered(monitored.monitoring, "counted") == 3
        await subscriber.close()
        await settle(publisher)
        assert delivered(monitored.monitoring, "counted") == 3
    finally:
        await subscriber.close()
        await publisher.close()


async def test_a_bare_subscriber_keeps_its_account(monitored: EmbeddedServer) -> None:
    client = await nats.connect(monitored.url)
    try:
        bench = Bench(monitored.url, monitored.monitoring, client, "", "", {})
        burst = await bare_burst(bench, 2500, 64)
    finally:
        await client.close()
    assert burst.account == Account(2500, 2500, 2500)
    assert 0 < burst.published_s <= burst.ended_s
