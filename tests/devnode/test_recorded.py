"""The stand-in's answers, held to what real programs said, scenario by scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexlet_functions.devnode.node import HEARTBEAT_EVERY, DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.devnode.state import NodeState
from nexlet_models.workloads import WorkloadLifecycle
from tests.support.clock import ManualClock
from tests.support.frames import scenarios
from tests.support.nodes import Node
from tests.support.replay import Replay
from tests.support.scripted_agent import ScriptedAgent

A_DAY = [
    "node_up", "agent_register", "heartbeat", "node_list", "node_info", "workload_start", "workload_list",
    "workload_list_system", "workload_clone", "workload_stop", "workload_stop_unknown", "start_no_agent",
    "start_tag_unmatched", "node_restart_down", "node_restart_up", "agent_restart", "list_after_restart", "lameduck",
]  # fmt: skip
ALONE = [
    "node_refuses_schema", "node_refuses_not_json", "node_refuses_namespace", "agent_refuses_start", "bid_unknown",
    "clone_unknown", "undeploy_unknown", "agent_id_by_name", "node_ping_one", "placement_tags",
]  # fmt: skip
THE_AGENTS_OWN = ["invoke", "agent_ping", "agent_get_unknown", "agent_stop_unknown", "agent_query", "micro_info"]


def test_no_scenario_is_left_out() -> None:
    assert sorted(A_DAY + ALONE + THE_AGENTS_OWN) == sorted(scenarios())


async def test_a_day_of_a_node(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """One node from its start over a restart to its lameduck, with the same nexlet type throughout."""
    state_file = tmp_path / "node.json"
    node_id = NodeState(state_file).identity.node_id
    clock = ManualClock()
    replay = await Replay.over(nats_server.url, node_id)
    nodes: list[DevNode] = []

    async def start_node() -> None:
        nodes.append(await DevNode.start(nats_server.url, state_file=state_file, clock=clock))

    async def beat() -> None:
        await clock.advance(HEARTBEAT_EVERY)

    for name in A_DAY:
        if name == "node_restart_down":
            await nodes[-1].close()
            assert replay.agent is not None
            await replay.agent.close()
        before = {"node_up": start_node, "node_restart_up": start_node, "heartbeat": beat}.get(name)
        await replay.scenario(name, before=before)
    await clock.advance(3)
    await nodes[-1].wait_closed()
    await replay.close()


@pytest.mark.parametrize("name", ALONE)
async def test_alone(name: str, node: Node, nats_server: EmbeddedServer) -> None:
    """Refusals and silence, beside an agent like the recorded one; over a real node too, which proves the recording."""
    replay = await Replay.over(nats_server.url, node.node_id)
    schema = '{"type":"object"}' if name != "node_refuses_schema" else '{"type":"object","required":["uri"]}'
    replay.agent = await ScriptedAgent.register(
        nats_server.url,
        register_type="native",
        schema=schema,
        lifecycles=(WorkloadLifecycle.JOB, WorkloadLifecycle.SERVICE),
    )
    await replay.scenario(name)
    await replay.close()
