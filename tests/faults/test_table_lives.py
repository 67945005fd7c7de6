"""The failure table's rows about servers, nodes and the nexlet itself (`docs/failures.md`).

Where the nexlet ends, it is the command `up` in a process of its own; elsewhere it runs within the test, over both ways
of using nats-py. The node is the stand-in and, where there is a `nex`, a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from nexlet_functions.control import ControlClient, ControlRefused, NoBid
from nexlet_functions.devnode.minter import FullAccess
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Credentials
from nexlet_functions.natsio.life import Options
from nexlet_models.connection import NatsConnectionData
from tests.support.cli import environment, start_nexfn
from tests.support.inventory import nothing_left, settled_inventory, subscriptions
from tests.support.live import Live
from tests.support.nexlets import MONITORED, NAMESPACE, Beats, NexletBench, deploy, nexlet_bench
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex
from tests.support.polling import eventually
from tests.support.processes import descendants, none_left
from tests.support.row import row

SOURCE = """
import time

runs = []

def handler(event, context):
    what, _, rest = event.text.partition(" ")
    if what == "runs":
        return runs
    runs.append(event.invocation_id)
    if what == "sleep":
        time.sleep(float(rest))
        return "slept"
    if what == "large":
        return "x" * int(rest)
    return event.text
"""

ONE = {"workers": {"min": 0, "max": 1}, "limits": {"timeout": "20s"}}


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    """A nats-server that can be asked who subscribes to what."""
    async with EmbeddedServer(config=MONITORED) as server:
        yield server


@pytest.fixture(params=["stand-in", "real"])
async def node(request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Node]:
    binary = find_nex()
    if request.param == "real" and binary is None:
        pytest.skip(NO_NEX)
    made: Node
    made = (
        RealNode(binary, server.url, tmp_path) if request.param == "real" and binary else StandIn(server.url, tmp_path)
    )
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(params=["fast", "public"])
def options(request: pytest.FixtureRequest) -> Options:
    return Options(public_only=request.param == "public")


@pytest.fixture
async def client(server: EmbeddedServer) -> AsyncIterator[Client]:
    connected = await nats.connect(server.url, name="test")
    yield connected
    await connected.close()


def control_of(client: Client) -> ControlClient:
    return ControlClient(client, NAMESPACE, nodes=1)


class Up:
    """The command `up`, registered with a node."""

    def __init__(self, command: Live, beats: Beats, agent_id: str, temporary: Path) -> None:
        self.command = command
        self.beats = beats
        self.agent_id = agent_id
        self.processes = descendants(command.process.pid)
        self._temporary = temporary

    async def left_nothing(self, server: EmbeddedServer) -> None:
        """No process, no file, no subscription."""
        await none_left(self.processes)
        assert list(self._temporary.iterdir()) == []
        deadline = asyncio.get_running_loop().time() + 10
        while left := await subscriptions(server.monitoring):
            assert asyncio.get_running_loop().time() < deadline, f"subscriptions are left: {left}"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def up(server: EmbeddedServer, node_id: str, client: Client, folder: Path, *more: str) -> AsyncIterator[Up]:
    """Run `up` with its state in `folder`; killed at the end where it still runs."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    beats = Beats()
    await beats.listen(client, node_id)
    arguments = ("up", "-s", server.url, "--state-dir", str(folder / "state"), *more)
    command = Live(await start_nexfn(*arguments, env=environment(TMPDIR=str(temporary))))
    try:
        yield Up(command, beats, await beats.running(), temporary)
    finally:
        if command.process.returncode is None:
            command.process.kill()
        await command.ended()


async def begun(client: Client, subject: str, payload: bytes) -> asyncio.Task[Any]:
    """A request of which it is certain that it runs: it was delivered before this one, which is answered first."""
    asked = asyncio.create_task(client.request(subject, payload, timeout=20))
    await asyncio.sleep(0)
    await client.flush()
    await client.flush()
    return asked


@row("SIGTERM")
async def test_sigterm(server: EmbeddedServer, node: Node, client: Client, tmp_path: Path) -> None:
    async with up(server, node.node_id, client, tmp_path, "--grace", "10s") as nexlet:
        await deploy(control_of(client), SOURCE, name="f", triggers=["f"], **ONE)
        nexlet.processes |= descendants(nexlet.command.process.pid)
        running = await begun(client, "f", b"sleep 0.6")
        assert await nexlet.command.end(signal.SIGTERM) == 0, nexlet.command.errors
        assert (await running).data == b"slept"
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("f", b"", timeout=5)
        await eventually(lambda: nexlet.beats.states(nexlet.agent_id)[-1] == "stopping", what="its last word")
        await nexlet.left_nothing(server)


@row("stopped or lameduck with work in flight")
@row("the lameduck's delay is over")
async def test_lameduck(server: EmbeddedServer, node: Node, client: Client, tmp_path: Path) -> None:
    async with up(server, node.node_id, client, tmp_path) as nexlet:
        control = control_of(client)
        await deploy(control, SOURCE, name="f", triggers=["f"], **ONE)
        nexlet.processes |= descendants(nexlet.command.process.pid)
        assert (await control.lameduck(node.node_id, 3.0)).success
        with pytest.raises((ControlRefused, NoBid)):
            await deploy(control, SOURCE, name="g", triggers=["g"])
        assert (await client.request("f", b"on", timeout=5)).data == b"on", "it is served on"
        running = await begun(client, "f", b"sleep 3.5")  # longer than what is left of the delay
        assert await nexlet.command.ended() == 0, nexlet.command.errors
        assert (await running).data == b"slept"
        said = nexlet.beats.states(nexlet.agent_id)
        assert said[-1] == "lameduck", "which tells the node as much as that it stops"
        await nexlet.left_nothing(server)


@row("the nexlet is killed")
async def test_the_nexlet_is_killed(server: EmbeddedServer, node: Node, client: Client, tmp_path: Path) -> None:
    async with up(server, node.node_id, client, tmp_path) as first:
        await deploy(control_of(client), SOURCE, name="f", triggers=["f"], **ONE)
        first.processes |= descendants(first.command.process.pid)
        first.command.process.kill()
        await first.command.ended()
        await none_left(first.processes)
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("f", b"", timeout=5)
    async with up(server, node.node_id, client, tmp_path) as second:
        await second.command.until_logged("resumed the former registration")
        assert second.agent_id == first.agent_id
        await eventually_answers(client, "f")
        assert await second.command.end(signal.SIGTERM) == 0
        await second.left_nothing(server)


@row("what ran before is started again")
async def test_each_function_is_subscribed_to_when_it_can_serve(
    server: EmbeddedServer, node: Node, client: Client, options: Options, tmp_path: Path
) -> None:
    """Not before: whoever asks one that loads still is told so at once, and one that is ready waits for no other."""
    async with nexlet_bench(server, node, options=options, state_dir=tmp_path) as bench:
        await deploy(bench.control, SOURCE, name="quick", triggers=["quick"], **ONE)
        await deploy(bench.control, f"{SOURCE}\ntime.sleep(1)\n", name="slow", triggers=["slow"], **ONE)
    seen: dict[str, list[str]] = {"quick": [], "slow": []}
    first: list[str] = []

    async def ask() -> None:
        while len(first) < len(seen):
            for subject, outcomes in seen.items():
                try:
                    answer = await client.request(subject, b"on", timeout=20)
                    outcomes.append((answer.headers or {}).get("error", "") or answer.data.decode())
                except nats.errors.Error as error:
                    outcomes.append(type(error).__name__)
                if outcomes[-1] == "on" and subject not in first:
                    first.append(subject)
            await asyncio.sleep(0.005)

    asking = asyncio.create_task(ask())
    async with nexlet_bench(server, node, options=options, state_dir=tmp_path) as bench:
        async with asyncio.timeout(30):
            await asking
        assert first == ["quick", "slow"]
        for subject, outcomes in seen.items():
            ran = outcomes.count("on")
            assert outcomes == ["NoRespondersError"] * (len(outcomes) - ran) + ["on"] * ran
            assert len(json.loads((await bench.ask(subject, b"runs")).data)) == ran


async def eventually_answers(client: Client, subject: str, *, within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while True:
            try:
                assert (await client.request(subject, b"on", timeout=5)).data == b"on"
                return
            except nats.errors.Error:
                await asyncio.sleep(0.01)


@pytest.mark.faults  # a node tells by its heartbeat that it has forgotten us, every ten seconds
@row("the node restarts, the nexlet lives")
async def test_the_node_restarts(server: EmbeddedServer, node: Node, client: Client, options: Options) -> None:
    async with nexlet_bench(server, node, options=options) as bench:
        await deploy(bench.control, SOURCE, name="f", triggers=["f"], **ONE)
        workers = bench.workers()
        before = await settled_inventory(server.monitoring)
        await node.stop()
        assert (await bench.ask("f", b"on")).data == b"on"
        await node.start()
        told = len(bench.beats.heard)
        async with asyncio.timeout(30):
            while True:  # served all the while
                assert (await bench.ask("f", b"on")).data == b"on"
                with contextlib.suppress(NoBid):
                    second = await deploy(bench.control, SOURCE, name="g", triggers=["g"], **ONE)
                    break
        await eventually(lambda: len(bench.beats.heard) > told, within=20.0)
        assert (await bench.ask("g", b"on")).data == b"on"
        assert workers < bench.workers(), "nothing was stopped or started anew"
        assert (await bench.control.stop(second)).stopped
        if isinstance(node, StandIn):  # which runs in this process, and is a new one
            return
        await nothing_left(before, server.monitoring)


@row("NATS goes away and comes back")
async def test_nats_goes_away(server: EmbeddedServer, options: Options, tmp_path: Path) -> None:
    node = StandIn(server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(server, node, options=options) as bench:
            workload_id = await deploy(bench.control, SOURCE, name="f", triggers=["f"], **ONE)
            (worker,) = bench.workers()
            before = await settled_inventory(server.monitoring)
            await bench.ask("f", b"first")
            running = await begun(bench.client, "f", b"sleep 0.5")
            await server.kill()
            await server.start()
            await eventually(lambda: all(one.connected for one in bench.nexlet.runner.connections), within=20)
            await eventually(lambda: bench.client.is_connected, within=20)
            runs = json.loads((await bench.ask("f", b"runs")).data)
            assert len(runs) == len(set(runs)) == 2, "both ran, and neither of them twice"
            running.cancel()
            assert bench.workers() == {worker}
            counts = await counted(bench, workload_id)
            assert counts["outcome_ok"] == "3"
            await nothing_left(before, server.monitoring, within=20)
    finally:
        await node.stop()


async def counted(bench: NexletBench, workload_id: str) -> dict[str, str]:
    """What the list says of a function, once the node is back, too."""
    async with asyncio.timeout(20):
        while not (found := await bench.control.workloads([workload_id])):
            pass
    return found[0].metadata or {}


class Named(FullAccess):
    """Workloads connect as a user of their own."""

    def __init__(self, servers: Sequence[str], user: str) -> None:
        super().__init__(servers)
        self._own = NatsConnectionData(
            nats_servers=tuple(servers), nats_user_name="node", nats_user_password=SecretStr("pw")
        )
        self._workloads = self._own.model_copy(update={"nats_user_name": user})

    def registration(self, agent_id: str) -> NatsConnectionData:
        return self._own

    def agent(self, agent_id: str) -> NatsConnectionData:
        return self._own

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        return self._workloads


USERS = """
{monitored}
authorization {{ users = [ {{ user: node, password: pw }}, {{ user: {user}, password: pw {permissions} }} ] }}
"""


@contextlib.asynccontextmanager
async def bench_of_users(options: Options, permissions: str = "") -> AsyncIterator[NexletBench]:
    """A nexlet whose functions connect as the user `fn`."""
    config = USERS.format(monitored=MONITORED, user="fn", permissions=permissions)
    async with EmbeddedServer(config=config) as server:
        mine = Credentials((server.url,), user="node", password=SecretStr("pw"))
        url = server.url.replace("nats://", "nats://node:pw@")
        async with await DevNode.start(mine, minter=Named([server.url], "fn")) as node:
            beside = StandIn(url, Path())
            beside.node_id = node.node_id
            async with nexlet_bench(server, beside, options=options, url=url, user="node", password="pw") as bench:
                yield bench


@row("NATS locks us out and lets us in again")
async def test_nats_locks_us_out(options: Options) -> None:
    async with bench_of_users(options) as bench:
        await deploy(bench.control, SOURCE, name="f", triggers=["f"], **ONE)
        (worker,) = bench.workers()
        before = await settled_inventory(bench.server.monitoring)
        running = await begun(bench.client, "f", b"sleep 0.3")
        bench.server.reconfigure(USERS.format(monitored=MONITORED, user="other", permissions=""))
        await eventually(lambda: not all(one.connected for one in bench.nexlet.runner.connections), what="locked out")
        with pytest.raises(nats.errors.NoRespondersError):
            await bench.ask("f", b"")
        running.cancel()
        bench.server.reconfigure(USERS.format(monitored=MONITORED, user="fn", permissions=""))
        await eventually(lambda: all(one.connected for one in bench.nexlet.runner.connections), within=20)
        await eventually_answers(bench.client, "f")
        runs = json.loads((await bench.ask("f", b"runs")).data)
        assert len(runs) == len(set(runs)) >= 2
        assert bench.workers() == {worker}
        await nothing_left(before, bench.server.monitoring, within=20)


@row("a trigger that may not be subscribed to")
async def test_a_trigger_that_is_refused(options: Options) -> None:
    permissions = ', permissions: { subscribe: { deny: "closed.>" } }'
    async with bench_of_users(options, permissions) as bench:
        await deploy(bench.control, SOURCE, name="f", triggers=["f"], **ONE)
        before = await settled_inventory(bench.server.monitoring)
        with pytest.raises(ControlRefused) as refused:
            await deploy(bench.control, SOURCE, name="g", triggers=["open.a", "closed.a"])
        assert "'closed.a' may not be subscribed to" in refused.value.text
        assert "permissions violation for subscription" in refused.value.text
        assert refused.value.status == 403
        with pytest.raises(nats.errors.NoRespondersError):
            await bench.ask("open.a")
        await nothing_left(before, bench.server.monitoring)


async def test_the_server_takes_less_than_before(options: Options, tmp_path: Path) -> None:
    config = MONITORED + "\nmax_payload: {}"
    async with EmbeddedServer(config=config.format(1_000_000)) as server:
        node = StandIn(server.url, tmp_path)
        await node.start()
        try:
            async with nexlet_bench(server, node, options=options) as bench:
                await deploy(bench.control, SOURCE, name="f", triggers=["f"], **ONE)
                assert len((await bench.ask("f", b"large 500000")).data) == 500_000
                # A running server does not tell its clients; those who come (again) are told.
                server.reconfigure(config.format(100_000))
                await server.restart()
                connections = bench.nexlet.runner.connections
                await eventually(lambda: all(one.max_payload == 100_000 for one in connections), what="it is known")
                await eventually(lambda: bench.client.is_connected, what="the client is back, too")
                answer = await bench.ask("f", b"large 500000")
                assert answer.headers is not None
                assert answer.headers["Nats-Service-Error-Code"] == "500"
                assert "the server takes 100000" in answer.headers["error"]
                assert (await bench.ask("f", b"on")).data == b"on"
        finally:
            await node.stop()
