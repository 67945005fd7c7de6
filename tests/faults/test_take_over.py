"""A new version of the nexlet takes over from the old one: under load, without a lost request, or not at all."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient, NoBid
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.runner.takeover import TakeOverFailed
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle, WorkloadState
from tests.support.live import StartLive
from tests.support.load import Load
from tests.support.nodes import Node, node
from tests.support.processes import descendants, none_left

__all__ = ["node"]

pytestmark = pytest.mark.faults  # whole processes, each of which takes seconds to start

WHICH = "def handler(event, context):\n    return {version!r}\n"
SLOW = "SPENT = sum(range(80_000_000))\n"
"""Takes seconds to load: time in which a nexlet that takes over can be met half way."""


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()


async def deploy(client: Client, subject: str, *, before: str = "") -> str:
    control = ControlClient(client, "demo", nodes=1)
    request = {
        "source": before + WHICH.format(version="one"), "triggers": [subject], "limits": {"load_timeout": "30s"},
    }  # fmt: skip
    asked = StartWorkloadRequest(
        name=subject.replace(".", "-"), namespace="demo", description="", workload_type="python",
        workload_lifecycle=WorkloadLifecycle.FUNCTION, run_request=json.dumps(request), tags={},
    )  # fmt: skip
    async with asyncio.timeout(30):
        while True:
            try:
                return (await control.start(asked)).id
            except NoBid:  # it has registered, and its first heartbeat is on the way
                await asyncio.sleep(0.05)


async def listed(client: Client) -> list[str]:
    control = ControlClient(client, "demo", nodes=1)
    starting = WorkloadState.STARTING
    return sorted(one.id for one in await control.workloads() if one.workload_state is not starting)


async def test_the_new_one_takes_over_under_load(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state", "--take-over")
    old = await live(*arguments)
    await old.until_logged("registered")
    ids = sorted([await deploy(client, "a.one"), await deploy(client, "a.two")])
    processes = descendants(old.process.pid)
    heard: list[str] = []
    await client.subscribe("$NEX.FEED.demo.events.WORKLOADSTOPPED", cb=_into(heard))
    async with Load(nats_server.url, "a.one") as load:
        await load.more()
        new = await live(*arguments)
        took = await new.until_logged("took over")
        assert took["pid"] == old.process.pid
        assert took["same_id"] is True
        assert await old.ended() == 0, old.errors
        await none_left(processes)
        await load.more()
        assert await listed(client) == ids
        # The state went with it: stopping reaches it, and so does what comes next.
        third = await deploy(client, "a.three")
        assert await listed(client) == sorted([*ids, third])
        await load.more()
        # And once more, to the next.
        newest = await live(*arguments)
        assert (await newest.until_logged("took over"))["workloads"] == 3
        assert await new.ended() == 0, new.errors
        await load.more()
    assert heard == [], "nothing has stopped"
    assert await newest.end(signal.SIGTERM) == 0, newest.errors


async def test_what_does_not_start_in_the_new_one_leaves_the_old_one_in_charge(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("defaults: {subjects: [b.>]}\n")
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state")
    old = await live(*arguments)
    await old.until_logged("registered")
    await deploy(client, "a.one")
    async with Load(nats_server.url, "a.one") as load:
        await load.more()
        new = await live(*arguments, "--take-over", "--settings-file", settings)
        assert await new.ended() == 1
        assert new.errors[-1]["code"] == TakeOverFailed.code
        assert "1 of its workloads do not start here" in new.errors[-1]["message"]
        await load.more()
        await deploy(client, "a.two")
    assert await old.end(signal.SIGTERM) == 0, old.errors


async def test_a_new_one_that_dies_half_way_leaves_the_old_one_in_charge(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state")
    old = await live(*arguments)
    await old.until_logged("registered")
    await deploy(client, "a.one", before=SLOW)
    new = await live(*arguments, "--take-over")
    await new.until_logged("taking over")
    new.process.kill()
    await new.ended()
    await old.until_logged("another nexlet that wanted to take over went away")
    await deploy(client, "a.two")
    async with Load(nats_server.url, "a.two") as load:
        await load.more()
    assert await old.end(signal.SIGTERM) == 0, old.errors


async def test_what_is_deployed_and_stopped_meanwhile_is_so_after_it(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state", "--take-over")
    old = await live(*arguments)
    await old.until_logged("registered")
    slow = await deploy(client, "a.slow", before=SLOW)
    gone = await deploy(client, "a.gone")
    new = await live(*arguments)
    await old.until_logged("another nexlet starts what runs here, to take over")
    assert (await ControlClient(client, "demo", nodes=1).stop(gone)).stopped
    late = await deploy(client, "a.late")
    await new.until_logged("took over")
    assert await old.ended() == 0, old.errors
    assert await listed(client) == sorted([slow, late])
    async with Load(nats_server.url, "a.late") as load:
        await load.more()
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request("a.gone", b"", timeout=5)
    assert await new.end(signal.SIGTERM) == 0, new.errors


async def test_without_state_the_new_one_has_all_from_the_node(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer
) -> None:
    """The sequence of docs/operations.md: start the second, see everything twice, end the first with SIGTERM."""
    arguments = ("up", "-s", nats_server.url, "--no-state")
    old = await live(*arguments)
    await old.until_logged("registered")
    ids = sorted([await deploy(client, "a.one"), await deploy(client, "a.two")])
    async with Load(nats_server.url, "a.one") as load:
        await load.more()
        new = await live(*arguments, "--take-over")
        async with asyncio.timeout(60):
            while await listed(client) != sorted([*ids, *ids]):  # noqa: ASYNC110  # each look is a request
                await asyncio.sleep(0.05)
        assert await old.end(signal.SIGTERM) == 0, old.errors
        await load.more()
        assert await listed(client) == ids
    assert await new.end(signal.SIGTERM) == 0, new.errors


async def test_without_anybody_to_take_over_from_it_just_starts(
    live: StartLive, node: Node, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state", "--take-over")
    only = await live(*arguments)
    await only.until_logged("registered")
    assert await only.end(signal.SIGTERM) == 0, only.errors


def _into(heard: list[str]) -> Callable[[Msg], Awaitable[None]]:
    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    return hear
