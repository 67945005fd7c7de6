"""One connection whose server, network or credentials fail: what is lost, what is counted, and that it comes back."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.cli.running import loop_factory
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials, Options
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.complaints import TOO_MANY_SUBSCRIPTIONS
from nexlet_functions.natsio.errors import SubscriptionRefused
from nexlet_functions.natsio.life import Life
from tests.support.cluster import cluster
from tests.support.inventory import fetch
from tests.support.polling import eventually
from tests.support.proxy import FaultyProxy, Way
from tests.support.settle import settle
from tests.support.sinks import KeepingSink

TLS = Path(__file__).parent / "tls"


@pytest.fixture
async def proxy(nats_server: EmbeddedServer) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(nats_server.url) as proxy:
        yield proxy


@pytest.fixture
async def plain(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """The other side, whose connection is sound."""
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


def quick(options: Options, **more: object) -> Options:
    return replace(options, ping_interval=0.1, connect_timeout=1.0, backoff_max=0.1, **more)  # type: ignore[arg-type]


async def test_what_comes_until_the_server_knows_of_an_end_is_taken(
    proxy: FaultyProxy, plain: Client, options: Options
) -> None:
    """The end of a subscription and the question whether it is known may leave one after the other, with time between.

    Then the answer says nothing. Under a flood it lost thousands.
    """
    others: list[bytes] = []

    async def hear(message: object) -> None:
        others.append(message.data)  # type: ignore[attr-defined]

    await plain.subscribe("n", queue="q", cb=hear)
    await settle(plain)
    one = KeepingSink()
    async with Connection(Credentials((proxy.url,)), options=replace(options, ping_interval=60.0)) as connection:
        subscription = await connection.subscribe("n", queue="q", sink=one)
        await connection.flush()
        passed = proxy.stop_at(Way.TO_SERVER, b"PING\r\n")
        leaving = asyncio.create_task(subscription.unsubscribe())
        await passed.wait()
        for number in range(100):
            await plain.publish("n", b"%d" % number)
            await settle(plain)
        proxy.go()
        await leaving
        await settle(plain)
        assert sorted(map(int, (*one.payloads, *others))) == list(range(100))


# --- what was on its way ------------------------------------------------------------------------------------------


async def test_what_was_on_its_way_is_counted_and_not_sent_twice(
    proxy: FaultyProxy, plain: Client, options: Options
) -> None:
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(message.data)  # type: ignore[attr-defined]

    await plain.subscribe("n", cb=hear)
    await settle(plain)
    async with Connection(Credentials((proxy.url,)), options=options) as connection:
        await connection.wait_connected(5)
        for number in range(10):
            connection.publish("n", b"%d" % number)
        await connection.flush()
        proxy.swallow(Way.TO_SERVER)
        for number in range(10, 20):
            connection.publish("n", b"%d" % number)
        await asyncio.sleep(0)
        proxy.cut()
        await eventually(lambda: not connection.connected, what="it is noticed")
        for number in range(20, 30):
            connection.publish("n", b"%d" % number)
        proxy.go()
        await connection.flush()
        await settle(plain)
        stats = connection.stats()
        numbers = [int(one) for one in heard]
        assert len(set(numbers)) == len(numbers)
        assert set(range(10)) | set(range(20, 30)) <= set(numbers)
        # Each of those in between arrived, or was counted.
        assert len(numbers) + stats.unconfirmed >= stats.published
        assert stats.unconfirmed <= 10


async def test_what_never_left_is_sent_by_the_next_client(proxy: FaultyProxy, plain: Client, options: Options) -> None:
    """More than buffers take: what was with the client and not written is not lost with it."""
    sizes: Counter[int] = Counter()

    async def hear(message: object) -> None:
        sizes[int(message.data[:4])] += 1  # type: ignore[attr-defined]

    await plain.subscribe("n", cb=hear, pending_bytes_limit=0)
    await settle(plain)
    async with Connection(Credentials((proxy.url,)), options=replace(options, max_outgoing=64_000_000)) as connection:
        await connection.wait_connected(5)
        proxy.stop(Way.TO_SERVER)
        for number in range(100):
            assert connection.publish("n", b"%04d" % number + b"x" * 200_000)
            await asyncio.sleep(0)
        proxy.cut()
        await eventually(lambda: not connection.connected, what="it is noticed")
        proxy.go()
        await connection.flush(20)
        await settle(plain)
        stats = connection.stats()
        assert set(sizes.values()) <= {1}
        assert len(sizes) + stats.unconfirmed >= 100
        if not options.public_only:  # there it is nats-py that holds them, and does not give them back
            assert stats.unconfirmed < 100


async def test_what_waited_is_fitted_to_a_server_that_takes_less(options: Options) -> None:
    async with (
        EmbeddedServer(config="max_payload: 1000000") as server,
        Connection(Credentials((server.url,)), options=options) as connection,
    ):
        sink = KeepingSink()
        await connection.subscribe("n", sink=sink)
        await server.kill()
        await eventually(lambda: not connection.connected)
        sent = [b"a" * 10, b"b" * 500_000, b"c" * 10, b"d" * 100_001, b"e" * 100_000]
        assert all(connection.publish("n", one) for one in sent)
        server._config = "max_payload: 100000"
        await server.start()
        assert [one.payload for one in await sink.count(3)] == [sent[0], sent[2], sent[4]]
        assert (connection.stats().oversized, connection.stats().connects) == (2, 2)


# --- too many -----------------------------------------------------------------------------------------------------


async def test_one_subscription_too_many_costs_no_other(options: Options) -> None:
    async with (
        EmbeddedServer(config="max_subscriptions: 4") as server,
        Connection(Credentials((server.url,)), options=quick(options)) as connection,
    ):
        await connection.wait_connected(5)
        sink = KeepingSink()
        for number in range(4):
            await connection.subscribe(f"n.{number}", sink=sink)
        with pytest.raises(SubscriptionRefused, match=TOO_MANY_SUBSCRIPTIONS):
            await connection.subscribe("n.4", sink=sink)
        await connection.flush()
        assert connection.stats().subscriptions == 4
        # nats-py itself ends the connection over it; over its insides it can be kept from that.
        assert connection.stats().connects == (2 if options.public_only else 1)
        for number in range(4):
            connection.publish(f"n.{number}", b"")
        await sink.count(4)


async def test_fewer_subscriptions_than_before_are_still_some(options: Options) -> None:
    settings = quick(options, retry_refused=60.0)
    async with EmbeddedServer() as server, Connection(Credentials((server.url,)), options=settings) as connection:
        sink = KeepingSink()
        made = [await connection.subscribe(f"n.{number}", queue="q", sink=sink) for number in range(10)]
        server._config = "max_subscriptions: 6"
        await server.restart()
        await eventually(lambda: connection.connected and connection.stats().refused == 4, what="six are live")
        assert [bool(one.refused) for one in made] == [False] * 6 + [True] * 4
        for number in range(10):
            connection.publish(f"n.{number}", b"%d" % number)
        await connection.flush()
        assert sorted(sink.payloads) == [b"%d" % number for number in range(6)]
        connects = connection.stats().connects
        await connection.flush()
        assert connection.stats().connects == connects


# --- servers that go, and others ----------------------------------------------------------------------------------


async def test_one_server_of_three_after_another(options: Options) -> None:
    # Known by one address alone: the others are told.
    async with cluster() as servers, Connection(Credentials((servers[0].url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        await eventually(lambda: len(connection.client.discovered_servers) >= 2, what="it knows of the others")
        sink = KeepingSink()
        await connection.subscribe("n", queue="q", sink=sink)
        for number in range(4):
            url = connection.client.connected_url
            assert url is not None
            mine = next(one for one in servers if one.url.endswith(f":{url.port}"))
            connects = connection.stats().connects
            await mine.kill()
            await eventually(lambda: connection.stats().connects > connects, what="another one")  # noqa: B023
            connection.publish("n", b"%d" % number)
            await sink.count(number + 1)
            await mine.start()
            await eventually(lambda: len(connection.client.discovered_servers) >= 2, what="it is back")
        assert sink.payloads == [b"0", b"1", b"2", b"3"]


async def test_a_server_in_lame_duck_mode_is_left_before_it_goes(options: Options) -> None:
    """Messages all the while: each arrives once, also where every subscriber gets each."""
    async with cluster() as servers, Connection(Credentials((servers[0].url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        await eventually(lambda: len(connection.client.discovered_servers) >= 2, what="it knows of the others")
        shared, alone = KeepingSink(), KeepingSink()
        await connection.subscribe("n", queue="q", sink=shared)
        await connection.subscribe("n", sink=alone)
        other = await nats.connect(servers[2].url)
        await eventually(lambda: other.is_connected)
        await asyncio.sleep(0.2)  # for the interest to be known on the other server
        stop, sent = asyncio.Event(), 0

        async def publish() -> None:
            nonlocal sent
            while not stop.is_set():
                await other.publish("n", b"%d" % sent)
                sent += 1
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        await shared.count(50)
        servers[0].signal(signal.SIGUSR2)
        await eventually(lambda: connection.stats().moves == 1, what="it has moved")
        seen = len(shared.messages)
        await shared.count(seen + 50)
        stop.set()
        await publishing
        await settle(other)
        await connection.flush()
        stats = connection.stats()
        assert (stats.connects, stats.moves, stats.unconfirmed) == (1, 1, 0)
        assert max(Counter(shared.payloads).values()) == 1
        assert max(Counter(alone.payloads).values()) == 1
        await eventually(lambda: len(shared.messages) == sent, what="every one")
        await other.close()


async def test_alone_in_lame_duck_mode_it_is_used_to_the_end(nats_server: EmbeddedServer, options: Options) -> None:
    async with Connection(Credentials((nats_server.url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        sink = KeepingSink()
        await connection.subscribe("n", sink=sink)
        nats_server.signal(signal.SIGUSR2)
        life = connection._life
        assert life is not None
        await eventually(life.lame_duck.is_set, what="it is told")
        connection.publish("n", b"still")
        await sink.count(1)
        await nats_server.kill()
        await nats_server.start()
        await eventually(lambda: connection.stats().connects == 2)


# --- names and certificates ---------------------------------------------------------------------------------------


async def test_a_name_that_is_not_known_at_first(
    nats_server: EmbeddedServer, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = False
    real = socket.getaddrinfo

    def resolve(host: object, *arguments: object, **more: object) -> object:
        if host == "nats.example":
            if not known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return real(host, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = nats_server.url.replace("127.0.0.1", "nats.example")
    async with Connection(Credentials((url,)), options=quick(options)) as connection:
        await eventually(lambda: connection.last_failure is not None)
        assert connection.last_failure is not None
        assert "not known" in connection.last_failure.reason
        known = True
        await connection.wait_connected(5)


async def test_certificates_that_change(options: Options, tmp_path: Path) -> None:
    """The server's, by another authority, and ours with it: files are read at each attempt."""
    for name in ("server.pem", "server.key", "ca.pem"):
        shutil.copy(TLS / name, tmp_path / name)
    config = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key" }}'
    async with (
        EmbeddedServer(config=config, jetstream=False) as server,
        Connection(Credentials((server.url,), tls_ca=tmp_path / "ca.pem"), options=quick(options)) as connection,
    ):
        await connection.wait_connected(5)
        shutil.copy(TLS / "next-server.pem", tmp_path / "server.pem")
        shutil.copy(TLS / "next-server.key", tmp_path / "server.key")
        await server.restart()
        await eventually(lambda: "certificate" in _reason(connection).lower(), what="it is not trusted")
        shutil.copy(TLS / "next-ca.pem", tmp_path / "ca.pem")
        await eventually(lambda: connection.stats().connects == 2, what="it is trusted again")
        await connection.flush()


# --- many, and many times -----------------------------------------------------------------------------------------


async def test_an_end_in_the_middle_of_a_silence_is_quick(proxy: FaultyProxy, options: Options) -> None:
    connection = await Connection.open(Credentials((proxy.url,)), options=options)
    proxy.stop()
    for _ in range(40):
        connection.publish("n", b"x" * 200_000)
    async with asyncio.timeout(5):
        await connection.close(flush_timeout=0.1)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("natsio")]


async def test_losses_leave_no_task_and_no_subscription_behind(
    proxy: FaultyProxy, plain: Client, options: Options
) -> None:
    settings = replace(options, backoff_first=0.005, backoff_max=0.01)
    async with Connection(Credentials((proxy.url,)), options=settings) as connection:
        await connection.wait_connected(5)
        sink = KeepingSink()
        for number in range(20):
            await connection.subscribe(f"n.{number}", queue="q", sink=sink)
        before = len(asyncio.all_tasks())
        for number in range(20):
            proxy.cut()
            await eventually(lambda: connection.stats().connects == number + 2)  # noqa: B023
        await connection.flush()
        await eventually(lambda: len(asyncio.all_tasks()) <= before, what="no task more")
        for number in range(20):
            await plain.publish(f"n.{number}")
        await settle(plain)
        await connection.flush()
        assert len(sink.messages) == 20


@pytest.mark.skipif(loop_factory() is asyncio.new_event_loop, reason="uvloop is not installed")
@pytest.mark.parametrize("public_only", [False, True], ids=["fast", "public"])
def test_the_same_on_the_loop_that_the_command_runs_on(public_only: bool) -> None:
    async def run() -> None:
        options = quick(Options(public_only=public_only))
        async with (
            EmbeddedServer() as server,
            FaultyProxy(server.url) as proxy,
            Connection(Credentials((proxy.url,)), options=options) as connection,
        ):
            await connection.wait_connected(5)
            sink = KeepingSink()
            await connection.subscribe("n", sink=sink)
            for number, fault in enumerate((proxy.cut, proxy.half_close, proxy.stop), 1):
                fault()
                connection.publish("m", b"x" * 500_000)
                await eventually(lambda: not connection.connected, what="noticed")
                proxy.go()
                await eventually(lambda: connection.connected, what="connected again")
                connection.publish("n", b"%d" % number)
                await sink.count(number)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


def _reason(connection: Connection) -> str:
    failure = connection.last_failure
    return failure.reason if failure is not None else ""


async def test_what_is_asked_while_a_server_is_left_is_answered(options: Options) -> None:
    """Also where the answer comes while an inbox is on its way from one server to the other."""
    async with cluster(2) as servers, Connection(Credentials((servers[0].url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        await eventually(lambda: len(connection.client.discovered_servers) >= 1, what="it knows of the other")
        other = await nats.connect(servers[1].url)

        async def answer(message: Msg) -> None:
            await message.respond(message.data)

        await other.subscribe("n", cb=answer)
        await settle(other)
        await asyncio.sleep(0.2)  # for the interest to be known on the other server
        questions, answered, over = Questions(connection), 0, False
        await questions.open()

        async def ask(number: int) -> None:
            nonlocal answered
            while not over:
                said = await questions.ask("n", b"%d" % number, deadline_ns=time.monotonic_ns() + 2_000_000_000)
                assert said.payload == b"%d" % number
                answered += 1

        async with asyncio.TaskGroup() as asking:
            for number in range(16):
                asking.create_task(ask(number))
            await eventually(lambda: answered > 100, what="answers")
            servers[0].signal(signal.SIGUSR2)
            await eventually(lambda: connection.stats().moves == 1, what="it has moved")
            enough = answered + 100
            await eventually(lambda: answered > enough, what="answers by way of the other one")
            over = True
        await eventually(lambda: "natsio-close" not in _running(), what="the former one is closed")
        assert connection.stats().unconfirmed == 0, "all of it was answered"
        await questions.close()
        await other.close()


async def test_a_request_by_way_of_a_server_that_is_left_is_answered(options: Options) -> None:
    async with cluster(2) as servers, Connection(Credentials((servers[0].url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        await eventually(lambda: len(connection.client.discovered_servers) >= 1, what="it knows of the other")
        other, answering = await nats.connect(servers[1].url), asyncio.Event()

        async def answer(message: Msg) -> None:
            await answering.wait()
            await message.respond(b"late")

        await other.subscribe("n", cb=answer)
        await settle(other)
        await asyncio.sleep(0.2)  # for the interest to be known on the other server
        asked = asyncio.create_task(connection.request("n", timeout=5))
        await eventually(lambda: connection.client.stats["out_msgs"] >= 1, what="it is asked")
        servers[0].signal(signal.SIGUSR2)
        await eventually(lambda: connection.stats().moves == 1, what="it has moved")
        answering.set()
        assert (await asked).payload == b"late"
        await eventually(lambda: "natsio-close" not in _running(), what="the former one is closed")
        await other.close()


def _running() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_closed_while_a_server_is_left_it_leaves_the_next_one_as_well(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment when the next client has taken over, and the former is being closed."""
    leaving, close = asyncio.Event(), Life.close

    async def slowly(life: Life) -> None:
        leaving.set()
        await asyncio.sleep(0.05)
        await close(life)

    async with cluster(2, more='http: "127.0.0.1:-1"') as servers:
        connection = await Connection.open(Credentials((servers[0].url,)), options=quick(options))
        await eventually(lambda: len(connection.client.discovered_servers) >= 1, what="it knows of the other")
        await connection.subscribe("n", queue="q", sink=KeepingSink())
        monkeypatch.setattr(Life, "close", slowly)
        servers[0].signal(signal.SIGUSR2)
        await leaving.wait()
        assert connection.stats().moves == 1
        await connection.close()
        async with asyncio.timeout(5):
            while json.loads(await asyncio.to_thread(fetch, f"{servers[1].monitoring}/connz"))["connections"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_what_is_subscribed_to_while_a_server_is_left_is_there_on_the_next_one(options: Options) -> None:
    """Whatever moment of the move it meets: asked for on the one that is left, it would end with it."""
    async with cluster(2) as servers, Connection(Credentials((servers[0].url,)), options=quick(options)) as connection:
        await connection.wait_connected(5)
        await eventually(lambda: len(connection.client.discovered_servers) >= 1, what="it knows of the other")
        sink, asked = KeepingSink(), 0
        servers[0].signal(signal.SIGUSR2)
        while not connection.stats().moves:
            await connection.subscribe(f"n.{asked}", queue="q" if asked % 2 else "", sink=sink)
            asked += 1
            await asyncio.sleep(0.002)  # not so many that a busy machine has no time to move them
            assert connection.stats().connects == 1, "lost, not left"
        for number in range(asked):
            connection.publish(f"n.{number}", b"%d" % number)
        await sink.count(asked)
        await connection.flush()
        assert sorted(map(int, sink.payloads)) == list(range(asked))
        assert connection.stats().subscriptions == asked
