"""Two functions of one name: what is told of them, to the operator and to whoever lists."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping, Sequence
from typing import Any

import pytest
import structlog.testing

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.artifacts import digest_of
from nexlet_models.workloads import REPLACES
from tests.support.agent import GREET, AgentBench, agent_bench, request

OTHER = GREET.replace("hello", "moin")
ONE, TWO = f"sha256:{digest_of(GREET.encode())}", f"sha256:{digest_of(OTHER.encode())}"


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        yield made


def told(logs: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, Any, Any]]:
    """Level, own digest and the others of each line about namesakes."""
    return [
        (entry["log_level"], entry["digest"], entry.get("replaced") or entry.get("beside"))
        for entry in logs
        if "digest" in entry
    ]


async def facts(bench: AgentBench, workload_id: str) -> tuple[str | None, str | None]:
    summary = await bench.summary(workload_id)
    assert summary is not None
    assert summary.metadata is not None
    return summary.metadata.get("replaces"), summary.metadata.get("beside")


async def test_a_start_beside_another_of_its_name_is_told_with_both_digests(bench: AgentBench) -> None:
    await bench.start("W1", triggers=["one"])
    assert await facts(bench, "W1") == (None, None)
    with structlog.testing.capture_logs() as logs:
        await bench.start("W2", source=OTHER, triggers=["one"])
    assert told(logs) == [("warning", TWO, [{"workload_id": "W1", "digest": ONE}])]
    assert await facts(bench, "W2") == (None, f"W1 {ONE}")
    assert await facts(bench, "W1") == (None, f"W2 {TWO}")
    event = await bench.event("WORKLOADSTARTED", "W2")
    assert (event["metadata"]["digest"], event["metadata"]["beside"]) == (TWO, f"W1 {ONE}")

    await bench.agent.stop_workload("W1", "acme")
    assert await facts(bench, "W2") == (None, None)


async def test_a_clone_is_no_reason_for_a_warning(bench: AgentBench) -> None:
    await bench.start("W1", triggers=["one"])
    with structlog.testing.capture_logs() as logs:
        await bench.start("W2", triggers=["one"])
    assert told(logs) == [("info", ONE, [{"workload_id": "W1", "digest": ONE}])]
    assert await facts(bench, "W2") == (None, f"W1 {ONE}")


async def test_a_replacement_says_that_it_is_one(bench: AgentBench) -> None:
    await bench.start("W1", triggers=["one"])
    asked = request(bench.url, source=OTHER, triggers=["one"])
    asked = asked.model_copy(update={"request": asked.request.model_copy(update={"metadata": {REPLACES: "W0,W1"}})})
    with structlog.testing.capture_logs() as logs:
        await bench.agent.start_workload("W2", asked, existing=False)
    assert told(logs) == [("info", TWO, [{"workload_id": "W1", "digest": ONE}])]
    assert await facts(bench, "W2") == (f"W1 {ONE}", None)
    assert await facts(bench, "W1") == (None, None), "it is not beside it: it goes"


async def test_others_are_no_namesakes_and_nor_is_what_was_refused(bench: AgentBench) -> None:
    await bench.start("W1", triggers=["one"])
    await bench.refusal("W2", source="import os\n")
    with structlog.testing.capture_logs() as logs:
        await bench.start("W3", name="other", source=OTHER, triggers=["two"])
        await bench.start("W4", namespace="elsewhere", source=OTHER, triggers=["two"])
        await bench.agent.stop_workload("W1", "acme")
        await bench.start("W1", source=OTHER, triggers=["one"])
        await bench.start("W1", source=OTHER, triggers=["one"], existing=True)
    assert told(logs) == []
    assert await facts(bench, "W1") == (None, None)
