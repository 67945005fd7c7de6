"""A burst of messages: every one is run, or refused and counted. None gets lost in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.settle import settle

BURST = 20_000
COUNTING = """
seen = []
def handler(event, context):
    if event.data == b"how many?":
        return str(len(seen)) + " " + str(len(set(seen)))
    seen.append(event.text)
"""


@pytest.fixture(params=["fast", "public"])
async def bench(nats_server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, options=Options(public_only=request.param == "public")) as made:
        await settle(made.client)
        yield made


@pytest.mark.parametrize("max_pending", [100, 65536])
async def test_every_message_of_a_burst_is_accounted_for(bench: AgentBench, max_pending: int) -> None:
    await bench.start(
        source=COUNTING,
        triggers=["burst"],
        workers={"max": 1},
        limits={"max_pending": max_pending, "queue_timeout": "1m", "timeout": "20s"},
    )
    for number in range(BURST):
        await bench.client.publish("burst", b"%d" % number)
    (function,) = bench.agent._functions.values()
    assert function._dispatcher is not None
    outcomes = function._dispatcher.counts.outcomes
    await eventually(lambda: sum(outcomes.values()) == BURST, within=60, what="every message has ended")
    assert outcomes["ok"] + outcomes["rejected"] == BURST
    run, distinct = map(int, (await bench.ask("burst", b"how many?")).data.split())
    assert run == distinct == outcomes["ok"] - 1, "and what ran, ran once"
    if max_pending > BURST:
        assert outcomes["rejected"] == 0
    await eventually(lambda: len(bench.events("WORKLOADTRIGGERED")) == BURST + 1, within=60, what="an event for each")
