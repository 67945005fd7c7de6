"""What a runner gives its agent: feeds under the prefix that may be used, triggers by the credentials that count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Connections, Credentials
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.feeds import Feeds
from nexlet_functions.runner.services import TriggerRefused, TriggerSpec
from nexlet_functions.runner.serving import TriggerMessage, serve_triggers
from nexlet_functions.runner.triggers import Triggers
from nexlet_models.events import WorkloadStartedEvent
from tests.support.jwt import Operator
from tests.support.polling import eventually
from tests.support.running import Running, Start
from tests.support.scripted_node import NODE, ScriptedNode, connection_data
from tests.support.settle import settle
from tests.support.sinks import KeepingSink

STARTED = WorkloadStartedEvent(id="w1", namespace="acme", workload_type="echo")


@pytest.fixture
async def watcher(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def heard(client: Client, subject: str) -> asyncio.Queue[Msg]:
    messages: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe(subject, cb=messages.put)
    await settle(client)
    return messages


async def one(messages: asyncio.Queue[Msg]) -> Msg:
    return await asyncio.wait_for(messages.get(), 10)


# --- feeds ----------------------------------------------------------------------------------------------------------


async def test_feeds_go_out_as_nexs_own(running: Running, watcher: Client) -> None:
    services = running.agent.services
    feed = await heard(watcher, "$NEX.FEED.>")
    log = services.get_logger("w1", "acme")
    assert log.stdout(b"out")
    assert log.stderr(b"err\nsecond line", "p.7\r\nForged: x")
    assert services.emit_metrics("w1", "acme", b'{"n": 1}', "p.7")
    assert services.emit_event("acme", "WORKLOADSTARTED", STARTED)
    assert services.emit_event(services.agent_id, "OWN", STARTED)
    got = [await one(feed) for _ in range(5)]
    by_subject = {message.subject: message for message in got}
    assert set(by_subject) == {
        "$NEX.FEED.acme.logs.w1.stdout",
        "$NEX.FEED.acme.logs.w1.stderr",
        "$NEX.FEED.acme.metrics.w1",
        "$NEX.FEED.acme.events.WORKLOADSTARTED",
        f"$NEX.FEED.{services.agent_id}.events.OWN",
    }
    line = by_subject["$NEX.FEED.acme.logs.w1.stdout"]
    assert line.data == b"out"
    assert line.headers == {"synadia.com/group": "", "synadia.com/namespace": "acme"}
    assert by_subject["$NEX.FEED.acme.logs.w1.stderr"].data == b"err\nsecond line"
    assert by_subject["$NEX.FEED.acme.logs.w1.stderr"].headers == line.headers | {"Nex-Invocation-Id": "p.7 Forged: x"}
    assert by_subject["$NEX.FEED.acme.metrics.w1"].headers == line.headers | {"Nex-Invocation-Id": "p.7"}
    event = by_subject["$NEX.FEED.acme.events.WORKLOADSTARTED"]
    assert (event.data, event.headers) == (STARTED.to_json(), None)


async def test_a_feed_is_one_object_and_its_connection_the_triggers(
    running: Running, nats_server: EmbeddedServer
) -> None:
    services = running.agent.services
    feed = services.feed("acme")
    assert services.feed("acme") is feed
    assert feed.prefix == "$NEX.FEED.acme"
    registered = await services.register_trigger(
        "w1", "acme", connection_data(nats_server.url), [TriggerSpec("a")], KeepingSink()
    )
    assert registered.connection is feed.connection


@pytest.mark.parametrize(
    ("source", "name"), [("acme", ""), ("acme", "two.tokens"), ("", "X"), ("a*", "X"), ("a b", "X")]
)
async def test_an_event_without_a_name_is_a_bug(running: Running, source: str, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a token"):
        running.agent.services.emit_event(source, name, STARTED)


async def test_a_workload_id_that_is_no_token_gets_no_log(running: Running) -> None:
    with pytest.raises(ValueError, match="cannot be a token"):
        running.agent.services.get_logger("w.1", "acme")


async def test_the_operators_credentials_carry_the_namespaces_feed() -> None:
    config = """authorization { users = [
        { user: agent, password: pw, permissions: { publish: "nothing" } }
        { user: acme, password: pw } ] }"""
    async with EmbeddedServer(config=config) as server:
        client = await nats.connect(server.url, user="acme", password="pw")
        feed = await heard(client, "$NEX.FEED.>")
        acme = Credentials((server.url,), user="acme", password=SecretStr("pw"))
        connections = Connections()
        feeds = Feeds(connections, {"acme": acme}.get)
        await feeds.update("AGENT1", Credentials((server.url,), user="agent", password=SecretStr("pw")))
        assert feeds.logger("w1", "acme").stdout(b"x")
        assert (await one(feed)).subject == "$NEX.FEED.acme.logs.w1.stdout"
        assert len(connections) == 1
        await feeds.close()
        assert len(connections) == 0
        await client.close()


async def test_a_prefix_that_a_jwt_does_not_permit_is_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    operator = Operator()
    async with EmbeddedServer(config=operator.config) as server:
        connections = Connections()
        feeds = Feeds(connections, lambda namespace: None)
        agent = Credentials.from_connection_data(operator.agent(server.url, NODE, "AGENT1"))
        everything = Credentials.from_connection_data(operator.creds(server.url, "watcher"))
        sink = KeepingSink()
        async with Connection(everything) as watching:
            await watching.subscribe("$NEX.FEED.>", sink=sink)
            await feeds.update("AGENT1", agent)
            assert feeds.feed("acme").prefix == "$NEX.FEED.AGENT1"
            assert feeds.logger("w1", "acme").stderr(b"x")
            assert feeds.event("acme", "WORKLOADSTARTED", STARTED)
            await sink.count(2)
            assert [kept.subject for kept in sink.messages] == [
                "$NEX.FEED.AGENT1.logs.w1.stderr",
                "$NEX.FEED.AGENT1.events.WORKLOADSTARTED",
            ]
            said = capsys.readouterr().out
            assert "under=$NEX.FEED.AGENT1" in said
            assert "which permit no other prefix" in said
            assert feeds.feed("acme").connection.stats().publish_violations == 0
        await feeds.close()


async def test_a_prefix_that_the_server_refuses_is_given_up() -> None:
    config = """authorization { users = [
        { user: agent, password: pw, permissions: { publish: "$NEX.FEED.AGENT1.>", subscribe: "_INBOX.>" } }
        { user: all, password: pw } ] }"""
    async with EmbeddedServer(config=config) as server:
        client = await nats.connect(server.url, user="all", password="pw")
        messages = await heard(client, "$NEX.FEED.>")
        connections = Connections()
        feeds = Feeds(connections, lambda namespace: None)
        await feeds.update("AGENT1", Credentials((server.url,), user="agent", password=SecretStr("pw")))
        feed = feeds.feed("acme")
        assert feed.prefix == "$NEX.FEED.acme"
        feeds.logger("w1", "acme").stdout(b"lost")
        await eventually(lambda: feed.prefix == "$NEX.FEED.AGENT1")
        feeds.logger("w1", "acme").stdout(b"arrives")
        assert ((await one(messages)).data, messages.qsize()) == (b"arrives", 0)
        await feeds.close()
        await client.close()


async def test_feeds_follow_a_new_registration(nats_server: EmbeddedServer) -> None:
    connections = Connections()
    feeds = Feeds(connections, lambda namespace: None)
    with pytest.raises(RuntimeError, match="from the first registration on"):
        feeds.feed("acme")
    await feeds.update("AGENT1", Credentials((nats_server.url,)))
    feed = feeds.feed("acme")
    first = feed.connection
    await feeds.update("AGENT2", Credentials((nats_server.url + "/",)))
    assert feed.connection is not first
    await eventually(lambda: first.state.value == "closed")
    await feeds.close()
    assert len(connections) == 0


# --- triggers -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.close()


@pytest.fixture
def triggers(connections: Connections) -> Triggers:
    return Triggers(connections, lambda namespace: None)


async def test_all_triggers_are_live_and_know_their_sinks(
    triggers: Triggers, nats_server: EmbeddedServer, watcher: Client
) -> None:
    shared, own = KeepingSink(), KeepingSink()
    seen: list[Connection] = []
    specs = [TriggerSpec("a.*", "acme.fn"), TriggerSpec("b.>", sink=own)]
    registered = await triggers.register("w1", "acme", connection_data(nats_server.url), specs, shared, seen.append)
    assert registered.triggers == tuple(specs)
    assert seen == [registered.connection]
    await watcher.publish("a.1", b"a")
    await watcher.publish("b.1.2", b"b")
    await shared.count(1)
    await own.count(1)
    with pytest.raises(AgentError, match="has its triggers already") as caught:
        await triggers.register("w1", "acme", connection_data(nats_server.url), specs, shared, None)
    assert caught.value.status == 409
    await triggers.unregister("w1")
    await triggers.unregister("w1")
    with pytest.raises(nats.errors.NoRespondersError):
        await watcher.request("a.1", timeout=5)
    assert len(shared.messages) == 1


async def test_equal_credentials_share_and_the_last_one_closes(
    triggers: Triggers, connections: Connections, nats_server: EmbeddedServer
) -> None:
    data = connection_data(nats_server.url)
    named = connection_data(nats_server.url, conn_name="other name")
    different = connection_data(nats_server.url, nats_user_name="u", nats_user_password=SecretStr("p"))
    got = [
        await triggers.register(f"w{n}", "acme", creds, [TriggerSpec("a")], KeepingSink(), None)
        for n, creds in enumerate((data, named, different))
    ]
    assert got[0].connection is got[1].connection
    assert got[0].connection is not got[2].connection
    assert len(connections) == 2
    await triggers.unregister("w0")
    assert got[0].connection.connected
    await triggers.unregister("w1")
    assert not got[0].connection.connected
    await triggers.close()
    assert len(connections) == 0


async def test_triggers_move_to_a_connection_apart_and_back(
    triggers: Triggers, connections: Connections, nats_server: EmbeddedServer, watcher: Client
) -> None:
    before, after, stays = KeepingSink(), KeepingSink(), KeepingSink()
    specs = [TriggerSpec("a", "acme.fn", before), TriggerSpec("b", "", stays)]
    registered = await triggers.register("w1", "acme", connection_data(nats_server.url), specs, stays, None)
    home = registered.connection
    apart = await triggers.open_apart("w1")
    assert apart is not home
    assert apart.credentials == home.credentials
    assert set(connections.all()) == {home, apart}
    assert connections.namespaces(home) == connections.namespaces(apart) == {"acme"}
    await triggers.move("w1", [TriggerSpec("a", "acme.fn", after)], apart)
    assert (home.stats().subscriptions, apart.stats().subscriptions) == (1, 1)
    await watcher.publish("a", b"apart")
    await watcher.publish("b", b"home")
    await after.count(1)
    await stays.count(1)
    await triggers.move("w1", [TriggerSpec("a", "acme.fn", before)], home)
    assert (home.stats().subscriptions, apart.stats().subscriptions) == (2, 0)
    await watcher.publish("a", b"home")
    await before.count(1)
    await triggers.move("w1", [TriggerSpec("a", "acme.fn", after)], apart)
    await triggers.unregister("w1")
    assert apart.stats().subscriptions == 0
    assert apart.connected, "what is answered may have to leave over it"
    await triggers.close_apart(apart, "acme")
    assert len(connections) == 0
    with pytest.raises(AgentError, match="has no triggers"):
        await triggers.open_apart("w1")
    with pytest.raises(AgentError, match="has no triggers"):
        await triggers.move("w1", [], home)


async def test_one_that_cannot_move_leaves_all_where_they_are(connections: Connections) -> None:
    """The server has room on the new connection for two of three."""
    async with EmbeddedServer(config="max_subscriptions: 4") as server:
        client = await nats.connect(server.url)
        triggers = Triggers(connections, lambda namespace: None)
        before, after, taken = KeepingSink(), KeepingSink(), KeepingSink()
        names = ("a", "b", "c")
        specs = [TriggerSpec(one, "acme.fn", before) for one in names]
        await triggers.register("w1", "acme", connection_data(server.url), specs, before, None)
        apart = await triggers.open_apart("w1")
        for one in ("x", "y"):
            await apart.subscribe(one, sink=taken)
        with pytest.raises(TriggerRefused, match="maximum subscriptions exceeded"):
            await triggers.move("w1", [TriggerSpec(one, "acme.fn", after) for one in names], apart)
        assert apart.stats().subscriptions == 2
        for one in names:
            await client.publish(one, b"")
        await before.count(3)
        assert not after.messages
        await triggers.close_apart(apart, "acme")
        await triggers.close()
        assert len(connections) == 0
        await client.close()


async def test_one_refused_trigger_undoes_them_all(connections: Connections) -> None:
    operator = Operator()
    async with EmbeddedServer(config=operator.config) as server:
        creds = operator.workload(server.url, "acme", "w1")
        triggers = Triggers(connections, lambda namespace: None)
        sink = KeepingSink()
        with pytest.raises(TriggerRefused) as caught:
            await triggers.register(
                "w1", "acme", creds, [TriggerSpec("$NEX.FEED.acme.logs.x"), TriggerSpec("orders.created")], sink, None
            )
        assert caught.value.subject == "orders.created"
        assert 'permissions violation for subscription to "orders.created"' in caught.value.permission
        assert caught.value.status == 403
        assert "orders.created" in caught.value.text.splitlines()[0]
        assert "supply credentials for the namespace" in caught.value.text
        assert len(connections) == 0
        with pytest.raises(TriggerRefused, match="2 of the triggers refused") as caught:
            await triggers.register("w1", "acme", creds, [TriggerSpec("b"), TriggerSpec("a")], sink, None)
        assert "'a'" in caught.value.text
        assert "'b'" in caught.value.text
        # With the operator's own credentials for the namespace it works.
        own = Credentials.from_connection_data(operator.creds(server.url, "acme"))
        triggers = Triggers(connections, {"acme": own}.get)
        await triggers.register("w1", "acme", creds, [TriggerSpec("orders.created")], sink, None)
        await triggers.close()


async def test_a_start_that_is_cancelled_leaves_no_trigger(
    triggers: Triggers, connections: Connections, nats_server: EmbeddedServer
) -> None:
    await nats_server.kill()
    data = connection_data(nats_server.url)
    task = asyncio.create_task(triggers.register("w1", "acme", data, [TriggerSpec("a")], KeepingSink(), None))
    await eventually(lambda: len(connections) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await eventually(lambda: len(connections) == 0)


async def test_credentials_that_do_not_work_say_what_is_missing(connections: Connections) -> None:
    async with EmbeddedServer(config="authorization { token: s3cr3t }") as server:
        triggers = Triggers(connections, lambda namespace: None)
        with pytest.raises(AgentError, match="have the operator of this nexlet supply credentials") as caught:
            await triggers.register("w1", "acme", connection_data(server.url), [TriggerSpec("a")], KeepingSink(), None)
        assert caught.value.status == 503
        broken = connection_data(server.url, nats_user_seed=SecretStr("SUhunter2"), nats_user_nkey="UX")
        with pytest.raises(AgentError) as caught:
            await triggers.register("w1", "acme", broken, [TriggerSpec("a")], KeepingSink(), None)
        assert "hunter2" not in caught.value.text
        assert len(connections) == 0


async def test_a_connection_that_is_given_other_credentials_is_found_by_them(
    connections: Connections, nats_server: EmbeddedServer
) -> None:
    first, second = (Credentials((nats_server.url,), token=SecretStr(text)) for text in ("1", "2"))
    one = await connections.acquire(first, "acme")
    assert connections.hold(first, "umbrella") is one
    assert connections.namespaces(one) == {"acme", "umbrella"}
    connections.renew(one, second)
    assert await connections.acquire(second) is one
    other = await connections.acquire(first)
    assert other is not one
    connections.renew(other, second)  # of which there is one already: both go on, each with those that hold it
    assert set(connections.all()) == {one, other}
    assert len(connections) == 2
    assert connections.namespaces(other) == {""}
    await connections.release(other)
    assert connections.all() == [one]
    await connections.release(one, "acme")
    await connections.release(one)
    assert connections.namespaces(one) == {"umbrella"}
    await connections.release(one, "umbrella")
    assert len(connections) == 0
    assert not one.connected
    connections.renew(one, first)  # nobody uses it any more
    assert len(connections) == 0


async def test_services_lend_a_connection(running: Running, nats_server: EmbeddedServer) -> None:
    services = running.agent.services
    async with services.connection("acme", connection_data(nats_server.url)) as connection:
        stream = connection.client.jetstream()
        bucket = await stream.create_object_store("FUNCS")
        await bucket.put("greet_latest", b"def handler(event, context): ...")
        assert (await bucket.get("greet_latest")).data == b"def handler(event, context): ..."
    assert not connection.connected


async def test_a_server_that_is_not_there_is_waited_for_only_so_long(connections: Connections) -> None:
    triggers = Triggers(connections, lambda namespace: None, connect_timeout=0.2)
    with pytest.raises(AgentError, match=r"no connection to NATS for the workload: .*127.0.0.1:1") as caught:
        await triggers.acquire("acme", connection_data("nats://127.0.0.1:1"))
    assert caught.value.status == 503
    assert len(connections) == 0


# --- triggers served by a function ----------------------------------------------------------------------------------


async def test_served_triggers_answer_and_tell(running: Running, nats_server: EmbeddedServer, watcher: Client) -> None:
    async def handler(message: TriggerMessage) -> bytes | None:
        if message.data == b"reject":
            raise AgentError("qty must be > 0", status=422)
        if message.data == b"bug":
            raise KeyError("x\r\ny")
        if message.data == b"nothing":
            return None
        return message.data.upper() + message.headers.get("Tail", "").encode()

    events = await heard(watcher, "$NEX.FEED.acme.events.WORKLOADTRIGGERED")
    services = running.agent.services
    served = await serve_triggers(services, "w1", "acme", connection_data(nats_server.url), ["up.*"], handler)

    async def ask(data: bytes, **headers: str) -> tuple[bytes, dict[str, str], dict[str, Any]]:
        reply = await watcher.request("up.x", data, timeout=5, headers=headers or None)
        return reply.data, dict(reply.headers or {}), json.loads((await one(events)).data)

    ours = {"workload_id": "w1", "namespace": "acme"}
    body, headers, event = await ask(b"hi", Tail="!")
    assert (body, headers) == (b"HI!", ours)
    assert (event["id"], event["namespace"], event["outcome"], event["subject"]) == ("w1", "acme", "ok", "up.x")
    assert event["duration"] >= 0
    assert "error" not in event
    assert (await ask(b"nothing"))[:2] == (b"", ours)
    body, headers, event = await ask(b"reject")
    assert headers == ours | {
        "error": "qty must be > 0", "Nats-Service-Error": "qty must be > 0", "Nats-Service-Error-Code": "422",
    }  # fmt: skip
    assert (event["outcome"], event["error"]) == ("rejected_by_function", "qty must be > 0")
    body, headers, event = await ask(b"bug")
    assert headers["Nats-Service-Error-Code"] == "500"
    assert headers["error"].startswith("KeyError: ")
    assert event["outcome"] == "error"
    await watcher.publish("up.x", b"no answer wanted")
    assert json.loads((await one(events)).data)["outcome"] == "ok"
    await served.stop(1)
    with pytest.raises(nats.errors.NoRespondersError):
        await watcher.request("up.x", timeout=5)


async def test_served_triggers_are_bounded_and_end_in_order(
    running: Running, nats_server: EmbeddedServer, watcher: Client
) -> None:
    gate, began = asyncio.Event(), 0

    async def handler(message: TriggerMessage) -> bytes:
        nonlocal began
        began += 1
        await gate.wait()
        return b"done"

    services = running.agent.services
    served = await serve_triggers(
        services, "w1", "acme", connection_data(nats_server.url), ["s"], handler, at_once=2, waiting=1
    )
    asking = [asyncio.create_task(watcher.request("s", timeout=10)) for _ in range(5)]
    first = [task.result() for task in (await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED))[0]]
    assert (first[0].headers or {})["Nats-Service-Error-Code"] == "429"
    await eventually(lambda: sum(task.done() for task in asking) == 2)
    assert began == 2
    stopping = asyncio.create_task(served.stop(0.05))
    replies = await asyncio.gather(*asking)
    await stopping
    codes = sorted((reply.headers or {}).get("Nats-Service-Error-Code", "") for reply in replies)
    assert codes == ["429", "429", "503", "503", "503"]


async def test_a_signing_key_changes_what_can_be_had(start: Start) -> None:
    """The whole of it, with the permissions that a node with a signing key mints."""
    operator = Operator()
    async with EmbeddedServer(config=operator.config) as server:
        node_creds = Credentials.from_connection_data(operator.creds(server.url, "node")).connect_options()
        async with ScriptedNode.on(server.url, **node_creds) as node:
            node.registration_creds = lambda agent: operator.registration(server.url, NODE, agent)
            node.creds = lambda agent: operator.agent(server.url, NODE, agent)
            mine = Credentials.from_connection_data(operator.creds(server.url, "nexlet"))
            async with start(credentials=mine) as running:
                agent_id = await node.registered()
                messages = await heard(node.client, "$NEX.FEED.>")
                services = running.agent.services
                assert services.emit_event("acme", "WORKLOADSTARTED", STARTED)
                assert (await one(messages)).subject == f"$NEX.FEED.{agent_id}.events.WORKLOADSTARTED"
                creds = operator.workload(server.url, "acme", "w1")
                with pytest.raises(TriggerRefused):
                    await services.register_trigger("w1", "acme", creds, [TriggerSpec("orders")], KeepingSink())
            await eventually(lambda: node.states(agent_id)[-1] == "stopping")
