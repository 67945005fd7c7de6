"""Bounds over all functions of a nexlet, and the page that names every one of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.rules import Ceilings, NamespaceRules
from nexlet_functions.settings import Settings
from nexlet_models.sizes import format_size
from nexlet_models.start_request import LimitsRequest
from nexlet_sandboxes.program import Limits
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.settle import settle

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SLEEPY = "import time\ndef handler(event, context):\n    time.sleep(float(event.text))\n"


def bounds() -> str:
    return PAGE.read_text().partition("## Bounds")[2].partition("\n## ")[0]


def test_every_bound_of_the_page_is_a_setting_with_that_default() -> None:
    names = re.findall(r"`([a-z]+\.)?([a-z_]+)`(?: \[([^]]+)\])?", bounds())
    limits, seen = Limits(), set()
    for where, name, default in names:
        if where == "limits.":
            assert name in LimitsRequest.model_fields
            value = getattr(limits, name)
        elif where == "ceilings.":
            assert name in Ceilings.model_fields
            continue
        elif not where and name in Settings.model_fields:
            value = getattr(Settings(), name)
        else:
            continue
        seen.add(name)
        if default and default[0].isdigit():
            assert default in (str(value), format_size(int(value)), f"{value:g}s", f"{value / 60:g}m"), name
    assert {name for name in Settings.model_fields if name.startswith("max_")} <= seen
    assert {"artifact_timeout", "grace", "timeout", "load_timeout", "queue_timeout", "log_rate", "max_reply"} <= seen
    told = bounds()
    assert [name for name in NamespaceRules.model_fields if name.startswith("max_") and f"`{name}" not in told] == []
    assert [name for name in ("max_pending", "timeout", "load_timeout") if f"`ceilings.{name}`" not in told] == []


@pytest.fixture
async def bench(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[AgentBench]:
    file = tmp_path / "settings.yaml"
    file.write_text("namespaces:\n  acme: {max_cpu: 1.5}\n")
    async with agent_bench(nats_server, settings_file=file, max_pending=20, max_starting=2) as made:
        await settle(made.client)
        yield made


async def test_one_flooded_function_leaves_its_neighbours_room(bench: AgentBench) -> None:
    for name in ("flooded", "other"):
        await bench.start(name, source=SLEEPY, triggers=[name], workers={"max": 1}, limits={"queue_timeout": "20s"})
    for name in ("flooded", "other"):
        await bench.client.publish(name, b"0.5")
    for _ in range(30):
        await bench.client.publish("flooded", b"0")
    for _ in range(5):
        await bench.client.publish("other", b"0")

    def outcomes(name: str) -> dict[str, int]:
        counts = bench.agent._functions[name].counts
        assert counts is not None
        return counts.outcomes

    await eventually(lambda: sum(outcomes("other").values()) == 6, what="the neighbour's are through")
    await eventually(lambda: sum(outcomes("flooded").values()) == 31, what="and the others")
    assert outcomes("other")["rejected"] == 0
    assert outcomes("flooded")["rejected"] >= 20
    event = next(event for event in bench.events("WORKLOADTRIGGERED", "flooded") if event["outcome"] == "rejected")
    assert event["error"] == "too many invocations, of all functions together, are waiting already"


async def test_more_starts_than_may_be_at_once_take_their_turns(bench: AgentBench) -> None:
    starting: list[int] = []
    agent: FunctionAgent = bench.agent
    source = "import time\nuntil = time.monotonic() + 0.05\nwhile time.monotonic() < until:\n    pass\n" + SLEEPY
    starts = [asyncio.ensure_future(bench.start(f"W{n}", source=source, triggers=[f"t{n}"])) for n in range(6)]
    while not all(start.done() for start in starts):
        begun = [one for one in agent._functions.values() if one._pool is not None and one._dispatcher is not None]
        starting.append(sum(1 for one in begun if one.workload_id in agent._starting))
        await asyncio.sleep(0)
    assert max(starting) == 2
    assert len(agent._functions) == 6


async def test_functions_of_a_namespace_share_their_processor_time(bench: AgentBench) -> None:
    await bench.start("W1", triggers=["one"])
    await bench.start("W2", triggers=["two"])
    await bench.start("W3", triggers=["three"], namespace="other")
    budgets = [bench.agent._functions[name]._pool.budget for name in ("W1", "W2", "W3")]  # type: ignore[union-attr]
    assert budgets[0] is budgets[1]
    assert [budget and budget.processors for budget in budgets] == [1.5, 1.5, None]
