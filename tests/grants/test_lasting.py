"""What stays true of calls when servers, credentials, streams and loops of functions get in their way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.errors import ConnectionLost
from nexlet_functions.observing.counts import numbers_of
from nexlet_sandboxes import link
from tests.support.agent import agent_bench
from tests.support.polling import eventually
from tests.support.row import row

ONE_CALL = """
def handler(event, context):
    try:
        return context.{call}
    except CallFailed as error:
        return type(error).__name__ + ": " + str(error)
"""


@row("NATS goes while it waits")
async def test_a_server_that_goes_while_a_function_waits() -> None:
    async with EmbeddedServer() as server, agent_bench(server) as bench:
        source = """
def handler(event, context):
    try:
        context.request("slow")
    except CallFailed as error:
        print(type(error).__name__, str(error))
"""
        await bench.start(source=source, triggers=["go"], grants={"request": ["slow"]})
        asked = asyncio.Event()

        async def silent(message: Any) -> None:
            asked.set()

        await bench.client.subscribe("slow", cb=silent)
        await bench.client.publish("go", b"")
        await asyncio.wait_for(asked.wait(), 10)
        (connection,) = bench.services.connections.all()
        life = connection._life
        assert life is not None
        life.give_up("pulled by a test")
        await eventually(lambda: any("Unavailable" in line for line in bench.logs()), what="it was told")
        assert "whether it was done is not known" in "".join(bench.logs())


@row("NATS is away when it is asked")
async def test_a_server_that_is_away_when_it_is_asked(nats_server: EmbeddedServer) -> None:
    async with await Connection.open(Credentials(servers=(nats_server.url,))) as connection:
        questions = Questions(connection)
        await questions.open()
        await nats_server.stop()
        await eventually(lambda: not connection.connected, what="it is seen to be away")
        for send in (questions.ask, questions.tell):
            with pytest.raises(ConnectionLost):
                await send("out.a", b"x", deadline_ns=time.monotonic_ns() + 10**10)
        assert connection.stats().outgoing_bytes == 0, "nothing is done later either"
        assert questions.under_way == 0
        await questions.close()


@row("no answer in time")
async def test_a_call_ends_within_the_time_of_its_invocation(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FOR_ITSELF_NS", 200_000_000)  # as much of its time as a busy machine may take from it
    async with agent_bench(nats_server) as bench:
        source = ONE_CALL.format(call='request("slow")')
        await bench.start(source=source, triggers=["go"], grants={"request": ["slow"]}, limits={"timeout": "2s"})

        async def silent(message: Any) -> None:
            pass

        await bench.client.subscribe("slow", cb=silent)
        await bench.client.flush()
        answer = await bench.ask("go")
        assert answer.data == b"TimedOut: request had no answer in time"
        assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "ok", "it had time left for what it made of it"
        source = ONE_CALL.format(call='request("slow", timeout=0.05)')
        await bench.start("W2", name="two", source=source, triggers=["two"], grants={"request": ["slow"]})
        assert (await bench.ask("two")).data == b"TimedOut: request had no answer in time"


PERMITTED = """
authorization {{
  users: [
    {{ user: admin, password: admin }}
    {{ user: work, password: work, permissions: {{
        publish: {{ allow: ["out.>", "$NEX.>", "_INBOX.>", "$JS.API.STREAM.LIST"] }}
        subscribe: {{ allow: ["go", "_INBOX.>", "{more}"] }}
    }} }}
  ]
}}
"""


@pytest.mark.parametrize(
    ("call", "grants", "said"),
    [
        ('publish("in.a", "x")', {"publish": ["in.a"]}, "publish on 'in.a'"),
        ('request("in.a", "x")', {"request": ["in.a"]}, "publish on 'in.a'"),
        ('kv("b").get("k")', {"kv": {"b": "read"}}, "publish on '$JS.API.DIRECT.GET.KV_b.$KV.b.k'"),
        ('kv("b").keys()', {"kv": {"b": "read"}}, "publish on '$js.api.stream.info.kv_b'"),
        ('objects("o").list()', {"objects": {"o": "read"}}, "publish on '$js.api.stream.info.obj_o'"),
        ('objects("o").put("n", "x")', {"objects": {"o": "write"}}, "publish on '$JS.API.DIRECT.GET.OBJ_o"),
    ],
)
@row("the server does not permit it to the workload")
async def test_what_the_server_forbids_the_workload_is_denied_at_once(
    call: str, grants: dict[str, Any], said: str
) -> None:
    async with EmbeddedServer(config=PERMITTED.format(more="none")) as server:
        admin = server.url.replace("nats://", "nats://admin:admin@")
        async with agent_bench(server, url=admin) as bench:
            creds = {"nats_user_name": "work", "nats_user_password": "work"}
            source = ONE_CALL.format(call=call)
            await bench.start(source=source, triggers=["go"], grants=grants, creds=creds)
            answer = await bench.ask("go")
            assert answer.data.startswith(b"Denied: the server does not let this workload ")
            assert said in answer.data.decode()


@row("functions that trigger each other without end")
async def test_functions_that_run_each_other_come_to_an_end(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, max_hops=5) as bench:
        for name, other in (("ping", "pong"), ("pong", "ping")):
            source = f"def handler(event, context):\n    context.publish('loop.{other}', event.text + '.')\n"
            grants = {"publish": [f"loop.{other}"]}
            await bench.start(name, name=name, source=source, triggers=[f"loop.{name}"], grants=grants)
        await bench.client.publish("loop.ping", b"")

        def told() -> list[dict[str, Any]]:
            return [event for name in ("ping", "pong") for event in bench.events("WORKLOADTRIGGERED", name)]

        # Each has its own connection: of two events, the one about what came later may be here first.
        await eventually(lambda: len(told()) >= 7, what="the loop is ended")
        events = told()
        assert sorted(event["outcome"] for event in events) == ["ok"] * 6 + ["rejected"]
        (refused,) = [event for event in events if event["outcome"] == "rejected"]
        assert "max_hops" in refused["error"]


@pytest.mark.parametrize(
    ("stream", "grants", "write"),
    [
        ("KV_loop", {"kv": {"loop": "write"}}, 'kv("loop").put("k", event.text + ".")'),
        ("KV_loop", {"kv": {"loop": "write"}}, 'kv("loop").update("k", "x", event.sequence)'),
        ("KV_loop", {"kv": {"loop": "write"}}, 'kv("loop").create(f"k{event.sequence}", "x")'),
        ("KV_loop", {"kv": {"loop": "write"}}, 'kv("loop").delete("k")'),
        ("OBJ_loop", {"objects": {"loop": "write"}}, 'objects("loop").put(f"o{event.sequence}", "x")'),
    ],
    ids=["put", "update", "create", "delete", "object"],
)
async def test_what_runs_a_function_that_writes_it_again_comes_to_an_end(
    nats_server: EmbeddedServer, stream: str, grants: dict[str, Any], write: str
) -> None:
    async with agent_bench(nats_server, max_hops=3) as bench:
        jetstream = bench.client.jetstream()
        await jetstream.add_stream(name="DEAD", subjects=["dead.>"])
        bucket = await jetstream.create_key_value(bucket="loop")
        store = await jetstream.create_object_store("loop")
        source = f"def handler(event, context):\n    context.{write}\n"
        trigger = {"stream": stream, "dead_letter": "dead.loop", "max_ack_pending": 1}
        await bench.start(source=source, triggers=[trigger], grants=grants, workers={"max": 1})
        if stream == "KV_loop":
            await bucket.put("k", b"")
        else:
            await store.put("first", b"")
        refused = await bench.client.jetstream().subscribe("dead.loop")
        letter = await refused.next_msg(20)
        assert (letter.headers or {})["Nex-Dlq-Code"] == "508"
        async with asyncio.timeout(20):
            # Nothing announces it.
            while (info := await jetstream.consumer_info(stream, "acme-greet")).num_pending or info.num_ack_pending:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await eventually(lambda: {each["outcome"] for each in bench.events("WORKLOADTRIGGERED")} == {"ok", "rejected"})


async def test_a_message_that_is_delivered_again_publishes_nothing_twice(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server) as bench:
        stream = bench.client.jetstream()
        await stream.add_stream(name="IN", subjects=["in.*"])
        await stream.add_stream(name="OUT", subjects=["out.*"])
        source = """
def handler(event, context):
    first = context.publish("out.a", event.text + " first")
    second = context.publish("out.b", event.text + " second")
    print(event.attempt, first.duplicate, second.duplicate)
    if event.attempt == 1:
        raise ValueError("after it was published")
"""
        await bench.start(
            source=source,
            triggers=[{"stream": "IN", "filter": "in.*", "backoff": ["50ms"]}],
            grants={"publish": ["out.*"]},
        )
        await stream.publish("in.a", b"one")
        await eventually(lambda: "2 True True" in "".join(bench.logs()), what="it ran again")
        assert "1 False False" in "".join(bench.logs())
        info = await stream.stream_info("OUT")
        assert info.state.messages == 2


@row("too much at once, over all functions")
async def test_calls_of_many_functions_at_once_keep_within_their_room(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server, max_calls_at_once=2) as bench:
        source = ONE_CALL.format(call='request("slow").text')
        for number in range(6):
            await bench.start(
                f"W{number}", name=f"f{number}", source=source, triggers=[f"go.{number}"], grants={"request": ["slow"]}
            )
        waiting: list[Any] = []
        most = 0

        async def keep(message: Any) -> None:
            nonlocal most
            waiting.append(message)
            most = max(most, len(waiting))

        await bench.client.subscribe("slow", cb=keep)
        await bench.client.flush()
        asked = [asyncio.ensure_future(bench.ask(f"go.{number}")) for number in range(6)]
        for _ in range(6):
            await eventually(lambda: waiting, what="one that asks")
            await waiting.pop(0).respond(b"done")
        assert [answer.data for answer in await asyncio.gather(*asked)] == [b"done"] * 6
        assert most <= 2


@row("a namespace has its share of the room for calls")
async def test_a_namespace_that_asks_without_end_leaves_room_for_the_calls_of_others(
    nats_server: EmbeddedServer,
) -> None:
    async with agent_bench(nats_server, max_calls_at_once=4) as bench:
        source = ONE_CALL.format(call='request("slow.{0}").text')
        for namespace, count in (("busy", 5), ("calm", 1)):
            for number in range(count):
                name = f"{namespace}{number}"
                await bench.start(
                    name,
                    name=name,
                    namespace=namespace,
                    source=source.replace("{0}", namespace),
                    triggers=[f"go.{name}"],
                    grants={"request": ["slow.*"]},
                    limits={"timeout": "30s"},
                )
        waiting: list[Any] = []

        async def keep(message: Any) -> None:
            waiting.append(message)

        await bench.client.subscribe("slow.*", cb=keep)
        await bench.client.flush()
        busy = [asyncio.ensure_future(bench.ask(f"go.busy{number}", timeout=30)) for number in range(5)]
        room = bench.agent._means.room
        await eventually(lambda: room.waiting == 3, what="two of four are busy's, and three wait")
        calm = asyncio.ensure_future(bench.ask("go.calm0", timeout=30))
        await eventually(lambda: len(waiting) == 3, what="the other one's call")
        assert [message.subject for message in waiting] == ["slow.busy", "slow.busy", "slow.calm"]
        await waiting.pop().respond(b"done")
        assert (await calm).data == b"done"
        for _ in range(5):
            await eventually(lambda: waiting, what="one that asks")
            await waiting.pop(0).respond(b"done")
        assert [answer.data for answer in await asyncio.gather(*busy)] == [b"done"] * 5


async def test_calls_are_counted_by_kind_and_by_what_came_of_them(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server) as bench:
        source = """
def handler(event, context):
    context.publish("out", "x")
    for call in (lambda: context.kv("b").get("k"), lambda: context.kv("c").get("k"), lambda: context.request("no")):
        try:
            call()
        except CallFailed:
            pass
"""
        await bench.client.jetstream().create_key_value(bucket="b")
        grants = {"publish": ["out"], "kv": {"b": "read"}}
        await bench.start(source=source, triggers=["go"], grants=grants)
        await bench.ask("go")
        await bench.ask("go")
        (function,) = bench.agent.functions
        counted = {key[1:]: count for key, count in numbers_of(function).items() if key[0].endswith("calls_total")}
        assert {key: count for key, count in counted.items() if count} == {
            ("publish", "ok"): 2, ("kv", "not_found"): 2, ("kv", "denied"): 2, ("request", "denied"): 2,
        }  # fmt: skip
        assert counted["kv", "ok"] == 0, "what was granted is there from the beginning"


async def test_an_event_counts_the_calls(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server) as bench:
        source = "def handler(event, context):\n    for i in range(1000):\n        context.publish('out', str(i))\n"
        await bench.start(source=source, triggers=["go"], grants={"publish": ["out"]}, limits={"timeout": "30s"})
        heard = await bench.client.subscribe("out")
        await bench.client.flush()
        await bench.ask("go", timeout=40)
        event = await bench.event("WORKLOADTRIGGERED")
        assert (event["outcome"], event["calls"]) == ("ok", 1000)
        assert [int((await heard.next_msg()).data) for _ in range(1000)] == list(range(1000))
