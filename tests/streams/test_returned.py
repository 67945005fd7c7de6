"""What was given back, as it is noted with the consumer: by several at once, and beside what is settled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import ConsumerConfig

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.streams import returned
from nexlet_functions.streams.api import ask
from nexlet_functions.streams.consumers import make, wanted
from nexlet_functions.streams.returned import MOST, RETURNED, Returned, noted
from nexlet_models.start_request import StreamTrigger

ONE = wanted(StreamTrigger(stream="ORDERS", filter="orders.*"), 0, "acme", "greet")


@pytest.fixture
async def connection(nats_server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await Connection.open(Credentials(servers=(nats_server.url,))) as opened:
        await opened.client.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await make(opened, ONE)
        yield opened


def returned_by(connection: Connection) -> Returned:
    return Returned(connection, ONE, structlog.stdlib.get_logger())


async def config(connection: Connection) -> ConsumerConfig:
    found: ConsumerConfig = (await connection.client.jetstream().consumer_info("ORDERS", ONE.name)).config
    return found


async def test_it_is_noted_beside_what_is_there_and_nothing_else_changes(connection: Connection) -> None:
    before = await config(connection)
    await returned_by(connection).note([3, 5])
    await returned_by(connection).note([5, 7])
    after = await config(connection)
    assert (after.metadata or {})[RETURNED] == "3:1 5:2 7:1"
    assert (after.metadata or {}).items() >= {"nexlet-functions": "acme/greet"}.items()
    before.metadata = after.metadata = None
    assert after == before
    reader = returned_by(connection)
    assert (reader.times(5), reader.knows_since(0)) == (0, False)
    await reader.look()
    assert (reader.times(3), reader.times(5), reader.times(4), reader.knows_since(1)) == (1, 2, 0, True)


async def test_what_is_settled_is_left_out_and_there_is_a_bound(connection: Connection) -> None:
    stream = connection.client.jetstream()
    await returned_by(connection).note([1, 2])
    for _ in range(2):
        await stream.publish("orders.new", b"")
    pulled = await stream.pull_subscribe_bind(ONE.name, "ORDERS")
    (first,) = await pulled.fetch(1)
    await first.ack_sync()
    await returned_by(connection).note(range(2, MOST + 50))
    found = (await config(connection)).metadata or {}
    assert len(found[RETURNED].split()) == MOST
    assert found[RETURNED].split()[-1] == f"{MOST + 49}:1"
    await returned_by(connection).note([2])
    assert "1:1" not in ((await config(connection)).metadata or {})[RETURNED].split()


async def test_one_that_is_overwritten_writes_again(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    overwritten = 0

    async def and_another(connection: Connection, subject: str, body: Any = None) -> Any:
        nonlocal overwritten
        answer = await ask(connection, subject, body)
        if overwritten < 2:
            overwritten += 1
            config = {**body["config"], "metadata": {RETURNED: f"9:{overwritten}"}}
            await ask(connection, subject, {**body, "config": config})
        return answer

    monkeypatch.setattr(returned, "ask", and_another)
    await returned_by(connection).note([3])
    assert ((await config(connection)).metadata or {})[RETURNED] == "3:1 9:2"


async def test_where_the_consumer_is_gone_nothing_is_raised(connection: Connection) -> None:
    await connection.client.jetstream().delete_consumer("ORDERS", ONE.name)
    reader = returned_by(connection)
    await reader.note([3])
    await reader.look()
    assert (reader.times(3), reader.knows_since(1)) == (0, True)


@given(st.text() | st.dictionaries(st.integers(0, 10**20 - 1), st.integers(0, 10**9 - 1)))
def test_what_cannot_be_read_says_nothing(text: str | dict[int, int]) -> None:
    said = text if isinstance(text, str) else " ".join(f"{sequence}:{times}" for sequence, times in text.items())
    found = noted({"config": {"metadata": {RETURNED: said}}})
    if isinstance(text, dict):
        assert found == text
    assert noted({}) == noted({"config": None}) == {}
