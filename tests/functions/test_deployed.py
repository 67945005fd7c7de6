"""Functions beside a node: deployed, listed, cloned, stopped through the control API, and back after each restart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient, ControlRefused, NoBid
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.natsio import Credentials
from nexlet_functions.runner.runner import Phase, Runner
from nexlet_functions.runner.settings import RunnerSettings
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from nexlet_sandboxes.zygote import Zygote
from tests.support.agent import GREET, workers_of
from tests.support.polling import eventually


@dataclass
class Nexlet:
    """A function nexlet that runs."""

    runner: Runner
    running: asyncio.Task[None]
    zygote: Zygote


@contextlib.asynccontextmanager
async def nexlet(url: str, *, state: Path | None = None, key: CurveKey | None = None) -> AsyncIterator[Nexlet]:
    """A nexlet beside whatever node there is, registered; it ends in order."""
    zygote = await Zygote.start()
    settings = SettingsHolder(Settings())
    runner = Runner(
        lambda services: FunctionAgent(
            services=services, zygote=zygote, settings=settings, key=key or CurveKey.generate(), version="1.2.3"
        ),
        credentials=Credentials(servers=(url,)),
        state_folder=state,
        settings=RunnerSettings(grace=2.0, retry_first=0.02, heartbeat_interval=0.2, node_silence=1.0),
    )
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(15):
            await runner.wait_registered()
        yield Nexlet(runner, running, zygote)
        await runner.stop()
        await running
        assert workers_of(zygote) == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await zygote.close()


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url)
    yield connected
    await connected.close()


@pytest.fixture
def control(client: Client) -> ControlClient:
    return ControlClient(client, namespace="acme", nodes=1)


def workload(name: str = "greet", *, namespace: str = "acme", **start: Any) -> StartWorkloadRequest:
    if not {"source", "uri"} & start.keys():
        start["source"] = GREET
    return StartWorkloadRequest(
        name=name,
        namespace=namespace,
        description="",
        workload_type="python",
        workload_lifecycle=WorkloadLifecycle.FUNCTION,
        run_request=json.dumps(start),
        tags={},
    )


async def ask(client: Client, subject: str, *, within: float = 15.0) -> Msg:
    """An answer, as soon as somebody listens."""
    async with asyncio.timeout(within):
        while True:
            try:
                return await client.request(subject, b"world", timeout=5)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.01)


async def test_from_deployment_to_stop(nats_server: EmbeddedServer, client: Client, control: ControlClient) -> None:
    async with await DevNode.start(nats_server.url), nexlet(nats_server.url):
        deployed = await control.start(workload(triggers=["greet"]))
        assert deployed.name == "greet"
        reply = await client.request("greet", b"world", timeout=5)
        assert reply.data == b"hello, world"
        assert reply.headers == {"workload_id": deployed.id, "namespace": "acme"}
        (listed,) = await control.workloads()
        assert (listed.id, listed.name, listed.workload_state) == (deployed.id, "greet", "running")
        assert listed.metadata is not None
        assert listed.metadata["triggers"] == "greet"
        stopped = await control.stop(deployed.id)
        assert stopped.stopped
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("greet", b"world", timeout=5)
        assert not (await control.stop(deployed.id)).stopped


async def test_a_refusal_reaches_the_client_whole(nats_server: EmbeddedServer, control: ControlClient) -> None:
    async with await DevNode.start(nats_server.url), nexlet(nats_server.url):
        with pytest.raises(ControlRefused) as refused:
            await control.start(workload(source="import os\n", limits={"memory": "1MiB"}))
        assert refused.value.status == 400
        assert "function.py:1:" in refused.value.text
        assert refused.value.text.startswith("greet refused: ")
        assert len(refused.value.text.splitlines()) > 1
        assert await control.workloads() == []


async def test_a_clone_shares_the_load_and_the_sealed_environment(
    nats_server: EmbeddedServer, client: Client, control: ControlClient
) -> None:
    key, sender = CurveKey.generate(), CurveKey.generate()
    box = base64.b64encode(sender.seal(b'{"GREETING": "salve"}', key.public)).decode()
    source = "def handler(event, context):\n    return context.env['GREETING']\n"
    sealed = {"encrypted_by": sender.public, "base64_encrypted_env": box}
    async with await DevNode.start(nats_server.url), nexlet(nats_server.url, key=key):
        first = await control.start(workload("", source=source, triggers=["greet"], encrypted_environment=sealed))
        second = await control.clone(first.id)
        assert second.id != first.id
        assert second.name == first.name == f"function-{first.id}"
        replies = [await client.request("greet", b"", timeout=5) for _ in range(40)]
        assert {reply.data for reply in replies} == {b"salve"}
        assert {reply.headers["workload_id"] for reply in replies if reply.headers} == {first.id, second.id}


async def put(server: EmbeddedServer, text: str) -> None:
    client = await nats.connect(server.url)
    store = await client.jetstream().create_object_store("functions")
    await store.put("greet_latest", f"def handler(event, context):\n    return {text!r}\n".encode())
    await client.close()


async def test_a_restarted_nexlet_serves_what_it_served(
    nats_server: EmbeddedServer, client: Client, control: ControlClient, tmp_path: Path
) -> None:
    await put(nats_server, "first")
    async with await DevNode.start(nats_server.url):
        async with nexlet(nats_server.url, state=tmp_path):
            deployed = await control.start(workload(uri="nats://functions/greet", triggers=["greet"]))
            assert (await ask(client, "greet")).data == b"first"
            await put(nats_server, "second")
            with pytest.raises(ControlRefused, match="checksum differs"):
                # A clone runs what its original runs, or it does not run.
                await control.clone(deployed.id)
        (pin,) = (tmp_path / "agent" / "sources").glob("*.json")
        os.utime(pin, (0, 0))  # it has run for years, or was started before the machine knew the time
        async with nexlet(nats_server.url, state=tmp_path):
            assert (await ask(client, "greet")).data == b"first"
            assert [summary.id for summary in await control.workloads()] == [deployed.id]


async def test_a_restarted_node_finds_everything_running(
    nats_server: EmbeddedServer, client: Client, control: ControlClient, tmp_path: Path
) -> None:
    node = await DevNode.start(nats_server.url, state_file=tmp_path / "node.json")
    async with nexlet(nats_server.url) as running:
        await control.start(workload(triggers=["greet"]))
        workers = workers_of(running.zygote)
        before = running.runner.agent_id
        await node.close()
        node = await DevNode.start(nats_server.url, state_file=tmp_path / "node.json")
        await eventually(lambda: len(node.registrations) == 1, within=30, what="it registers again")
        assert (await ask(client, "greet")).data == b"hello, world"
        assert len(await control.workloads()) == 1
        # Those that wait for a function that needs one may have come since.
        assert set(workers) <= set(workers_of(running.zygote)), "what ran runs on"
        assert before
    await node.close()


async def test_what_the_node_remembers_is_started_by_a_new_nexlet(
    nats_server: EmbeddedServer, client: Client, control: ControlClient, tmp_path: Path
) -> None:
    async with await DevNode.start(nats_server.url, state_file=tmp_path / "node.json"):
        async with nexlet(nats_server.url):
            await control.start(workload(triggers=["greet"]))
            with pytest.raises(ControlRefused):
                await control.start(workload("broken", source="import os\n"))
        async with nexlet(nats_server.url):
            assert (await ask(client, "greet")).data == b"hello, world"


async def test_a_lameduck_ends_it_when_its_time_is_over(
    nats_server: EmbeddedServer, client: Client, control: ControlClient
) -> None:
    async with await DevNode.start(nats_server.url) as node, nexlet(nats_server.url) as running:
        await control.start(workload(triggers=["greet"]))
        system = ControlClient(client, nodes=1)
        assert (await system.lameduck(node.node_id, 60.0)).success
        assert (await client.request("greet", b"world", timeout=5)).data == b"hello, world"
        with pytest.raises((ControlRefused, NoBid)):  # by the nexlet, or before by the node, once it has heard
            await control.start(workload("another"))
        assert (await system.lameduck(node.node_id, 0.1)).success
        await asyncio.wait_for(asyncio.shield(running.running), 15)
        assert running.runner.phase is Phase.ENDED
        assert workers_of(running.zygote) == []
