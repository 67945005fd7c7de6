"""NATS misbehaves under deployed functions: what was delivered runs once, what ran is answered, all of it comes back.

A function is deployed through the stand-in node. The nexlet reaches the server through a proxy that breaks its
connections, while whoever asks the function has a sound one of their own. What single connections do is tested beside
them, in `tests/natsio/test_losses.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from nexlet_functions.devnode.minter import FullAccess
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.life import Options
from tests.support.inventory import nothing_left, settled_inventory
from tests.support.nexlets import MONITORED, NexletBench, deploy, nexlet_bench
from tests.support.nodes import Node
from tests.support.polling import eventually
from tests.support.proxy import FaultyProxy, Way

SOURCE = """
import time

runs = []

def handler(event, context):
    what, _, rest = event.text.partition(" ")
    if what == "runs":
        return runs
    runs.append([event.invocation_id, event.text[:20] if what == "skip" else event.text])
    if what == "say":
        print(rest)
    if what == "sleep":
        time.sleep(float(rest))
    if what == "large":
        return "x" * int(rest)
    return event.text
"""
ONE = {"workers": {"min": 1, "max": 1}, "limits": {"timeout": "20s"}}
MARK = b"<here>"


class _Behind(Node):
    """The stand-in node, beside the server; what it sends to it goes through the proxy."""

    def __init__(self, server: EmbeddedServer, proxy: FaultyProxy) -> None:
        self._server, self._proxy = server, proxy
        self._node: DevNode | None = None
        self.node_id = ""

    async def start(self) -> None:
        self._node = await DevNode.start(self._server.url, minter=FullAccess((self._proxy.url,)))
        self.node_id = self._node.node_id

    async def stop(self) -> None:
        if self._node is not None:
            await self._node.close()

    async def wait_ended(self) -> None:
        raise NotImplementedError


@dataclass
class Faulty:
    """A function behind a proxy."""

    bench: NexletBench
    proxy: FaultyProxy
    workload_id: str

    @property
    def connections(self) -> list[Connection]:
        return self.bench.nexlet.runner.connections

    @property
    def connects(self) -> int:
        return sum(one.stats().connects for one in self.connections)

    @property
    def unconfirmed(self) -> int:
        return sum(one.stats().unconfirmed for one in self.connections)

    async def healed(self, *, within: float = 10.0) -> None:
        """Return once every connection is there and the function answers."""
        await eventually(lambda: all(one.connected for one in self.connections), within=within, what="all connected")
        await self.runs(within=within)

    async def runs(self, *, within: float = 10.0) -> Counter[str]:
        """What ran, and how often; each run under an id of its own."""
        async with asyncio.timeout(within):
            while True:
                try:
                    answer = await self.bench.ask("faulty", b"runs", timeout=1)
                    if not answer.headers or "error" not in answer.headers:
                        break
                    await asyncio.sleep(0.02)  # its queue is still full
                except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                    await asyncio.sleep(0.02)
        runs = json.loads(answer.data)
        assert len({invocation for invocation, _ in runs}) == len(runs)
        return Counter(text for _, text in runs)


@pytest.fixture(params=["fast", "public"])
def options(request: pytest.FixtureRequest) -> Options:
    """Quick to notice and to try again, where a test waits for that."""
    return Options(
        public_only=request.param == "public",
        ping_interval=0.15,
        connect_timeout=1.0,
        backoff_max=0.2,
        backoff_refused=0.3,
        retry_refused=0.3,
    )


@contextlib.asynccontextmanager
async def behind_a_proxy(
    options: Options, *, config: str = "", start: dict[str, Any] | None = None, **flags: Any
) -> AsyncIterator[Faulty]:
    """A deployed function whose nexlet reaches its server through a proxy."""
    async with EmbeddedServer(config=f"{MONITORED}\n{config}") as server, FaultyProxy(server.url) as proxy:
        node = _Behind(server, proxy)
        await node.start()
        try:
            async with nexlet_bench(server, node, options=options, servers=proxy.url, **flags) as bench:
                workload = await deploy(
                    bench.control, SOURCE, name="faulty", triggers=["faulty"], **{**ONE, **(start or {})}
                )
                made = Faulty(bench, proxy, workload)
                await made.runs()
                try:
                    yield made
                finally:
                    proxy.go()
        finally:
            await node.stop()


@pytest.fixture
async def faulty(options: Options) -> AsyncIterator[Faulty]:
    async with behind_a_proxy(options) as made:
        yield made


# --- a connection that is cut ----------------------------------------------------------------------------------------


async def test_cut_in_the_middle_of_a_message_that_comes(faulty: Faulty) -> None:
    before = await settled_inventory(faulty.bench.server.monitoring)
    connects = faulty.connects
    faulty.proxy.cut_at(Way.TO_CLIENT, MARK)
    await faulty.bench.client.publish("faulty", b"half " + b"a" * 3000 + MARK + b"b" * 3000)
    await eventually(lambda: faulty.connects == connects + 1, what="connected again")
    await faulty.healed()
    assert (await faulty.bench.ask("faulty", b"whole")).data == b"whole"
    assert await faulty.runs() == {"whole": 1}  # what did not come whole did not come
    await nothing_left(before, faulty.bench.server.monitoring)


async def test_cut_in_the_middle_of_an_answer(faulty: Faulty) -> None:
    before = await settled_inventory(faulty.bench.server.monitoring)
    connects = faulty.connects
    faulty.proxy.cut_at(Way.TO_SERVER, MARK)
    payload = b"a" * 3000 + MARK + b"b" * 3000
    with pytest.raises(nats.errors.TimeoutError):
        await faulty.bench.ask("faulty", payload, timeout=1)
    await eventually(lambda: faulty.connects == connects + 1, what="connected again")
    await faulty.healed()
    assert await faulty.runs() == {payload.decode(): 1}  # it ran, and not once more
    assert faulty.unconfirmed >= 1  # which is where its answer went
    await nothing_left(before, faulty.bench.server.monitoring)


async def test_what_runs_while_it_is_cut_is_answered_afterwards(faulty: Faulty) -> None:
    asked = asyncio.create_task(faulty.bench.ask("faulty", b"sleep 0.3"))
    await eventually(lambda: _busy(faulty), what="it runs")
    await faulty.proxy.refuse()
    await eventually(lambda: not any(one.connected for one in faulty.connections), what="all are gone")
    await eventually(lambda: not _busy(faulty), what="it has ended meanwhile")
    assert not asked.done()
    await faulty.proxy.accept()
    assert (await asked).data == b"sleep 0.3"
    await faulty.healed()
    assert await faulty.runs() == {"sleep 0.3": 1}


async def test_everything_of_the_nexlet_comes_back(faulty: Faulty) -> None:
    """Triggers, endpoints, discovery, heartbeats, feeds, and new deployments."""
    bench = faulty.bench
    before = await settled_inventory(bench.server.monitoring)
    beats = len(bench.beats.heard)
    await faulty.proxy.refuse()
    await eventually(lambda: not any(one.connected for one in faulty.connections), what="all are gone")
    with pytest.raises(nats.errors.NoRespondersError):
        await bench.ask("faulty", b"nobody")
    await faulty.proxy.accept()
    await faulty.healed()
    await eventually(lambda: len(bench.beats.heard) > beats, what="a heartbeat at once")
    summary = await bench.summary(faulty.workload_id)
    assert summary.workload_state == "running"
    answer = await bench.client.request("$SRV.PING.nexlet-functions", timeout=5)
    assert json.loads(answer.data)["name"] == "nexlet-functions"
    heard = len(bench.events(faulty.workload_id))
    assert (await bench.ask("faulty", b"again")).data == b"again"
    assert (await bench.event(faulty.workload_id, count=heard + 1))["outcome"] == "ok"
    another = await deploy(bench.control, SOURCE, name="another", triggers=["another"])
    assert (await bench.ask("another", b"new")).data == b"new"
    await bench.control.stop(another)
    await nothing_left(before, bench.server.monitoring)


async def test_what_uses_the_operators_credentials_comes_back(options: Options, tmp_path: Path) -> None:
    """Triggers and feeds of a namespace that has credentials of its own; with others nothing reaches its feeds."""
    users = """authorization { users: [
        {user: all, password: secret, permissions: {publish: {deny: "$NEX.FEED.acme.>"}}}
        {user: acme, password: own}
    ] }
    no_auth_user: all"""
    (tmp_path / "password").write_text("own\n")
    rules = {"acme": {"credentials": {"user": "acme", "password_file": str(tmp_path / "password")}}}
    async with behind_a_proxy(options, config=users, namespaces=rules) as faulty:
        bench = faulty.bench
        for number in range(3):
            heard, logged = len(bench.events(faulty.workload_id)), len(bench.logs(faulty.workload_id, "stdout"))
            await faulty.proxy.refuse()
            await eventually(lambda: not any(one.connected for one in faulty.connections), what="all are gone")
            await faulty.proxy.accept()
            await faulty.healed()
            assert (await bench.ask("faulty", b"say %d" % number)).data == b"say %d" % number
            await eventually(lambda: len(bench.events(faulty.workload_id)) > heard, what="events")  # noqa: B023
            await eventually(lambda: len(bench.logs(faulty.workload_id, "stdout")) > logged, what="logs")  # noqa: B023


async def test_a_connection_that_is_closed_on_one_side(faulty: Faulty) -> None:
    connects, connections = faulty.connects, len(faulty.connections)
    faulty.proxy.half_close()
    await eventually(lambda: faulty.connects == connects + connections, what="all connected again")
    await faulty.healed()


# --- a server that does not answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "swallowed"])
async def test_silence_without_an_end(faulty: Faulty, how: str) -> None:
    asked = asyncio.create_task(faulty.bench.ask("faulty", b"sleep 0.2", timeout=5))
    await eventually(lambda: _busy(faulty), what="it runs")
    faulty.proxy.stop() if how == "stopped" else faulty.proxy.swallow()
    await eventually(lambda: not any(one.connected for one in faulty.connections), what="all are taken for gone")
    faulty.proxy.go()
    if how == "stopped":
        faulty.proxy.cut()  # what was on its way is gone for good
    await faulty.healed()
    assert await faulty.runs() == {"sleep 0.2": 1}
    if not asked.done():
        # The answer went out into the silence, which is counted, or was never written, and came later.
        assert faulty.unconfirmed >= 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_a_server_that_is_late_and_slow_is_not_taken_for_gone(options: Options) -> None:
    async with behind_a_proxy(replace(options, ping_interval=0.4)) as faulty:
        connects = faulty.connects
        faulty.proxy.late(Way.TO_CLIENT, 0.2)
        # Larger than what kernels take into their buffers, so that most of it is still with us for a while.
        faulty.proxy.slow(Way.TO_SERVER, 4_000_000)
        for _ in range(3):
            answer = await faulty.bench.ask("faulty", b"large 700000", timeout=20)
            assert len(answer.data) == 700_000
        faulty.proxy.go()
        assert faulty.connects == connects
        assert (await faulty.runs())["large 700000"] == 3


async def test_a_server_that_takes_nothing_fills_what_may_wait_and_no_more(options: Options) -> None:
    async with behind_a_proxy(replace(options, max_outgoing=1_000_000, ping_interval=60.0)) as faulty:
        (triggers,) = (one for one in faulty.connections if one.name == "nexlet-workloads")
        faulty.proxy.stop(Way.TO_SERVER)
        for _ in range(60):
            await faulty.bench.client.publish("faulty", b"large 500000", reply="nobody.listens")
            assert triggers.stats().outgoing_bytes <= 1_000_000
        await eventually(lambda: triggers.stats().dropped > 0, within=20, what="answers are dropped, and counted")
        await eventually(lambda: not _busy(faulty), within=20, what="all have run")
        assert triggers.stats().outgoing_bytes <= 1_000_000
        (line,) = (
            await asyncio.gather(faulty.bench.nexlet.runner.agent.query_workloads("system", [faulty.workload_id]))
        )[0]
        facts = line.metadata or {}
        assert int(facts["replies_dropped"]) + int(facts["events_dropped"]) == triggers.stats().dropped
        faulty.proxy.go()
        await faulty.healed()
        assert (await faulty.runs())["large 500000"] == 60  # all ran, once each


async def test_cut_off_by_the_server_for_reading_too_slowly(options: Options) -> None:
    config = 'write_deadline: "100ms"\nmax_payload: 256KB\nmax_pending: 300KB'
    async with behind_a_proxy(options, config=config, start={"limits": {"max_pending": 8}}) as faulty:
        connects = faulty.connects
        faulty.proxy.stop(Way.TO_CLIENT)
        for number in range(60):
            await faulty.bench.client.publish("faulty", b"skip %d " % number + b"x" * 200_000)
        await eventually(
            lambda: b"Slow Consumer" in faulty.bench.server.log_file.read_bytes(), what="it has had enough"
        )
        faulty.proxy.go()
        await eventually(lambda: faulty.connects > connects, what="connected again")
        await faulty.healed()
        assert set((await faulty.runs()).values()) <= {1}


# --- a server that goes and comes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restarted", "killed", "paused"])
async def test_asked_all_the_while(options: Options, how: str) -> None:
    """Requests without a pause while the server goes and comes: nothing runs twice, and in the end all is well."""
    async with behind_a_proxy(options) as faulty:
        server = faulty.bench.server
        answered: Counter[bytes] = Counter()
        stop = asyncio.Event()

        async def ask(who: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                body = b"%d-%d" % (who, number)
                try:
                    answered[(await faulty.bench.ask("faulty", body, timeout=0.5)).data] += 1
                except nats.errors.Error:
                    await asyncio.sleep(0.02)

        asking = [asyncio.create_task(ask(who)) for who in range(4)]
        try:
            for _ in range(2):
                before = answered.total()
                await eventually(lambda: answered.total() > before + 50, what="answers come")  # noqa: B023
                connects = faulty.connects
                if how == "restarted":
                    await server.restart()
                elif how == "killed":
                    await server.kill()
                    await server.start()
                else:
                    server.signal(signal.SIGSTOP)
                    await eventually(lambda: not any(one.connected for one in faulty.connections), what="noticed")
                    server.signal(signal.SIGCONT)
                await eventually(lambda: faulty.connects >= connects + 3, what="connected again")  # noqa: B023
        finally:
            stop.set()
            await asyncio.gather(*asking)
        await faulty.healed()
        ran = await faulty.runs()
        assert set(ran.values()) == {1}
        assert set(answered.values()) == {1}
        assert {body.decode() for body in answered} <= set(ran)


async def test_full_for_a_while(options: Options) -> None:
    """More connections than the server takes: it turns all of ours away, and later takes them again."""
    async with EmbeddedServer(config=f"{MONITORED}\nmax_connections: 100") as server, FaultyProxy(server.url) as proxy:
        node = _Behind(server, proxy)
        await node.start()
        async with nexlet_bench(server, node, options=options, servers=proxy.url) as bench:
            faulty = Faulty(
                bench, proxy, await deploy(bench.control, SOURCE, name="faulty", triggers=["faulty"], **ONE)
            )
            await proxy.refuse()
            server.reconfigure(f"{MONITORED}\nmax_connections: 2")  # the node and the client
            await eventually(lambda: b"Reloaded: max_connections" in server.log_file.read_bytes(), what="reloaded")
            await proxy.accept()
            # What the server says may be lost on the way: it does not wait for what we say.
            await eventually(lambda: all(one.last_failure for one in faulty.connections), what="turned away")
            await eventually(lambda: b"maximum connections exceeded" in server.log_file.read_bytes(), what="it says so")
            server.reconfigure(f"{MONITORED}\nmax_connections: 100")
            await faulty.healed()
        await node.stop()


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("public_only", [False, True], ids=["fast", "public"])
async def test_healed_within_a_second_of_the_server_being_back(public_only: bool) -> None:
    """With the settings that operators have, after an outage long enough for the pauses to be at their longest."""
    took = []
    async with behind_a_proxy(Options(public_only=public_only)) as faulty:
        for _ in range(5):
            await faulty.proxy.refuse()
            await asyncio.sleep(3)
            await faulty.proxy.accept()
            began = time.monotonic()
            await faulty.healed()
            took.append(time.monotonic() - began)
    assert sorted(took)[2] < 1.0, took
    assert max(took) < 1.5, took


@pytest.mark.faults
async def test_a_silent_server_is_noticed_within_nine_seconds_by_default() -> None:
    async with behind_a_proxy(Options()) as faulty:
        faulty.proxy.stop()
        began = time.monotonic()
        await eventually(lambda: not any(one.connected for one in faulty.connections), within=20, what="noticed")
        assert 3 < time.monotonic() - began < 10
        faulty.proxy.go()
        began = time.monotonic()
        await faulty.healed()
        assert time.monotonic() - began < 1.5


@pytest.mark.faults
@pytest.mark.parametrize("public_only", [False, True], ids=["fast", "public"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_it_ends_in_time_while_its_server_is_silent(public_only: bool, busy: bool) -> None:
    """Within the grace for what runs, and a few seconds for everything else together."""
    async with behind_a_proxy(Options(public_only=public_only), grace="3s") as faulty:
        if busy:
            await faulty.bench.client.publish("faulty", b"sleep 15")
            await eventually(lambda: _busy(faulty), what="it runs")
        faulty.proxy.stop()
        began = time.monotonic()
        await faulty.bench.nexlet.close()
        took = time.monotonic() - began
        assert took < (3 if busy else 0) + 5, took
        assert not faulty.bench.workers()


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_hundred_losses_leave_nothing_behind(options: Options) -> None:
    async with behind_a_proxy(replace(options, backoff_first=0.005, backoff_max=0.02)) as faulty:
        faulty.proxy.cut()
        await faulty.healed()
        before = await settled_inventory(faulty.bench.server.monitoring)
        for number in range(100):
            connects = faulty.connects
            faulty.proxy.cut()
            await eventually(lambda: faulty.connects >= connects + 3, what="all connected again")  # noqa: B023
            await faulty.healed()
            assert (await faulty.bench.ask("faulty", b"%d" % number)).data == b"%d" % number
        await nothing_left(before, faulty.bench.server.monitoring)
        assert set((await faulty.runs()).values()) == {1}


def _busy(faulty: Faulty) -> bool:
    return any(function.stats is not None and function.stats.busy for function in _functions(faulty))


def _functions(faulty: Faulty) -> list[Any]:
    agent: Any = faulty.bench.nexlet.runner.agent
    return list(agent._functions.values())
