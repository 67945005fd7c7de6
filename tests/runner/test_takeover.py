"""One runner takes over from another, within one process: what is right or wrong about it whatever a process costs.

Whole nexlets do it in tests/faults/test_take_over.py.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.runner import Phase, Services
from nexlet_functions.runner.membership import Membership
from nexlet_functions.runner.state import State
from nexlet_functions.runner.takeover import TakeOverFailed
from nexlet_models import subjects
from tests.support.load import Load
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.running import Running, Start
from tests.support.scripted_node import NODE, ScriptedNode
from tests.support.shouting import Shouting, scripted_start


class Newer(Shouting):
    """Takes another form of start request than the one before: that is something new to a node."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._offer = self._offer.model_copy(update={"start_request_schema": '{"type": "object"}'})


async def started(node: ScriptedNode, *names: str) -> None:
    await node.registered()
    for name in names:
        assert (await node.start(name, scripted_start(node, f"a.{name}"))).error is None


async def took_over(running: Running, old: Running) -> None:
    await asyncio.wait_for(running.runner.wait_registered(), 20)
    await asyncio.wait_for(asyncio.shield(old.task), 20)  # by itself, and without an error
    assert old.runner.phase is Phase.ENDED


async def test_the_same_offer_takes_over_under_the_same_id(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    async with start(nats_server.url, agent=Shouting, state_folder=tmp_path) as old:
        await started(node, "one", "two")
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            async with start(nats_server.url, agent=Shouting, state_folder=tmp_path, take_over=True) as new:
                await took_over(new, old)
                assert new.runner.agent_id == old.runner.agent_id
                assert node.registrations == 1, "the node has nothing to learn"
                assert "stopping" not in node.states()
                assert sorted(await node.listed()) == ["one", "two"]
                await node.start("three", scripted_start(node, "a.three"))
                assert (await node.stop("two")).json["stopped"]
                await load.more()
                await load.end()
        assert set(State.look(tmp_path).workloads()) == {"one", "three"}, "the state went with it"


async def test_another_offer_takes_over_under_another_id(
    nats_server: EmbeddedServer, node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    async with start(nats_server.url, agent=Shouting, state_folder=tmp_path) as old:
        await started(node, "one")
        former = node.agent
        node.existing = {name: scripted_start(node, f"a.{name}") for name in ("one", "lost")}
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            async with start(nats_server.url, agent=Newer, state_folder=tmp_path, take_over=True) as new:
                await took_over(new, old)
                assert new.runner.agent_id == node.agent != former
                assert node.known[node.agent].start_request_schema == '{"type": "object"}'
                await eventually(lambda: node.states(former)[-1] == "stopping", what="the former id's last word")
                await eventually(lambda: node.states()[-1:] == ["running"])
                # What the node has beyond the state, and nobody runs, is started as well.
                agent = new.runner.agent
                await eventually(lambda: isinstance(agent, Shouting) and agent.running == ["lost", "one"])
                assert sorted(await node.listed()) == ["lost", "one"], "a line each"
                await load.more()
                await load.end()
    kept = State.look(tmp_path).registration()
    assert kept is not None
    assert kept.agent_id == node.agent


@pytest.mark.parametrize("at", ["the lock", "the last step"])
@row("a new nexlet takes over, and fails")
async def test_a_failure_after_the_lock_was_passed_leaves_the_old_one_in_charge(
    nats_server: EmbeddedServer,
    node: ScriptedNode,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    def lost(folder: Path, lock: int) -> State:
        os.close(lock)
        raise TakeOverFailed("the machine has other plans")

    async def broken(self: Membership) -> None:
        raise TakeOverFailed("the machine has other plans")

    async def try_to_take_over() -> None:
        async with start(nats_server.url, agent=Shouting, state_folder=tmp_path, take_over=True) as new:
            await asyncio.wait({new.task}, timeout=20)

    async with start(nats_server.url, agent=Shouting, state_folder=tmp_path) as old:
        await started(node, "one")
        former = node.agent
        async with Load(nats_server.url, "a.one") as load:
            await load.more()
            with monkeypatch.context() as patched:
                if at == "the lock":
                    patched.setattr(State, "inherit", lost)
                else:
                    patched.setattr(Membership, "keep", broken)
                with pytest.raises(TakeOverFailed, match="other plans"):
                    await try_to_take_over()
            assert old.runner.phase is Phase.RUNNING
            await load.more()
            # It answers its node as before, keeps what comes, and holds the lock still.
            assert await node.listed() == ["one"]
            await node.start("two", scripted_start(node, "a.two"))
            assert set(State.look(tmp_path).workloads()) == {"one", "two"}
            beats = len(node.beats[former])
            await eventually(lambda: len(node.beats[former]) > beats, what="its heartbeat")
            assert node.states(former)[-1] == "running"
            assert len(await node.ask_many(subjects.ping_agents(NODE))) == 1
            # And the next one may take over.
            async with start(nats_server.url, agent=Shouting, state_folder=tmp_path, take_over=True) as next_one:
                await took_over(next_one, old)
                await load.more()
                await load.end()
