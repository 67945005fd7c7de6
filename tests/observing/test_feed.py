"""The metrics feed of Nex: what the nexlet tells of each function there, and when it is quiet."""

from __future__ import annotations

import json
from typing import Any

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually

SOURCE = """
def handler(event, context):
    if event.text == "bad":
        raise ValueError("s-e-c-r-e-t")
    context.metrics.count("orders")
    return event.text
"""


def told(bench: AgentBench, workload_id: str = "W1") -> list[dict[str, Any]]:
    subject = f"$NEX.FEED.acme.metrics.{workload_id}"
    found = [json.loads(message.data) for message in bench.heard if message.subject == subject]
    return [one for one in found if one["kind"] == "nexlet"]


def invocations(bench: AgentBench) -> dict[str, int]:
    return {
        outcome: sum(one["invocations"].get(outcome, 0) for one in told(bench))
        for outcome in {outcome for one in told(bench) for outcome in one["invocations"]}
    }


async def test_what_came_is_told_once_beside_what_the_function_tells(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, metrics_interval="50ms") as bench:
        await bench.start(source=SOURCE, triggers=["made"])
        await bench.agent.register()
        for text in (b"yes", b"yes", b"bad"):
            await bench.ask("made", text)
        await eventually(lambda: invocations(bench) == {"ok": 2, "error": 1}, what=f"{told(bench)}")
        assert sum(one["cold_starts"] for one in told(bench)) == 1
        one = next(one for one in told(bench) if one["invocations"])
        assert (one["id"], one["namespace"], one["name"], one["agent_id"]) == ("W1", "acme", "greet", "AGENT")
        assert 0 < one["duration_ms"]["p50"] <= one["duration_ms"]["p99"]
        assert 0 < one["queue_ms"]["p50"] <= one["queue_ms"]["p99"]
        assert one["workers"] == {"busy": 0, "idle": 1, "starting": 0}
        own = [message for message in bench.heard if b'"orders"' in message.data]
        assert len(own) == 2
        assert {message.subject for message in own} == {"$NEX.FEED.acme.metrics.W1"}
        assert not [message for message in bench.heard if ".metrics." in message.subject and b"s-e-c" in message.data]

        # Quiet: of another function something is told, again and again, of this one nothing more.
        silent = len(told(bench))
        await bench.start("W2", source=SOURCE, triggers=["other"], name="other")
        for number in range(3):
            await bench.ask("other")
            await eventually(
                lambda number=number: sum(one["invocations"].get("ok", 0) for one in told(bench, "W2")) == number + 1,  # type: ignore[misc]
                what="told",
            )
        assert len(told(bench)) == silent


async def test_what_came_last_is_told_when_it_goes(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, metrics_interval="1h") as bench:
        await bench.agent.register()
        await bench.start(source=SOURCE, triggers=["made"])
        await bench.ask("made")
        assert told(bench) == []
        await bench.agent.stop_workload("W1", "acme")
        await eventually(lambda: invocations(bench) == {"ok": 1}, what="told")


async def test_it_can_be_turned_off(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, metrics_interval="0s") as bench:
        await bench.agent.register()
        await bench.start(source=SOURCE, triggers=["made"])
        await bench.ask("made")
        await bench.agent.stop_workload("W1", "acme")
        await bench.event("WORKLOADSTOPPED")
        assert told(bench) == []
