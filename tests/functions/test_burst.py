"""A burst of messages: every one is run, or refused and counted. None gets lost in silence.

A larger one, of 100,000, is among the fault tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from tests.support.agent import AgentBench, agent_bench
from tests.support.bursts import burst
from tests.support.settle import settle


@pytest.fixture(params=["fast", "public"])
async def bench(nats_server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, options=Options(public_only=request.param == "public")) as made:
        await settle(made.client)
        yield made


@pytest.mark.parametrize(("count", "max_pending"), [(1_000, 100), (1_000, 65536), (20_000, 100), (20_000, 65536)])
async def test_every_message_of_a_burst_is_accounted_for(bench: AgentBench, count: int, max_pending: int) -> None:
    await burst(bench, count, max_pending=max_pending)
