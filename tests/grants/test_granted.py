"""What functions do with what they were granted, over a real server with JetStream, from their own code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import KeyValueConfig

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import AgentBench, agent_bench
from tests.support.row import row

RUN = """
import json

def handler(event, context):
    kv = context.kv("settings")
    objects = context.objects("reports")
    result = steps_of(event.json(), context, kv, objects)
    return result

def steps_of(asked, context, kv, objects):
    out = []
    for step in asked:
        name, args = step[0], step[1:]
        try:
            out.append(show(call(name, args, context, kv, objects)))
        except CallFailed as error:
            out.append([type(error).__name__, str(error)])
    return out

def call(name, args, context, kv, objects):
    if name == "publish": return context.publish(*args)
    if name == "request": return context.request(*args)
    if name == "kv.get": return kv.get(*args)
    if name == "kv.put": return kv.put(*args)
    if name == "kv.create": return kv.create(*args)
    if name == "kv.update": return kv.update(*args)
    if name == "kv.delete": return kv.delete(*args)
    if name == "kv.keys": return kv.keys()
    if name == "other.get": return context.kv("other").get(*args)
    if name == "other.put": return context.kv("other").put(*args)
    if name == "objects.get": return objects.get(*args)
    if name == "objects.put": return objects.put(*args)
    if name == "objects.info": return objects.info(*args)
    if name == "objects.list": return objects.list()
    if name == "objects.delete": return objects.delete(*args)
    raise ValueError(name)

def show(value):
    if isinstance(value, Entry): return [value.key, value.text, value.revision]
    if isinstance(value, Message): return [value.text, value.headers, value.error]
    if isinstance(value, PubAck): return [value.stream, value.sequence, value.duplicate]
    if isinstance(value, ObjectInfo): return [value.name, value.size]
    if isinstance(value, StoredObject): return [value.info.name, value.text]
    if isinstance(value, list): return [show(each) for each in value]
    return value
"""
RUN = "from nexlet_functions.authoring import Entry, Message, ObjectInfo, PubAck, StoredObject\n" + RUN

GRANTS: dict[str, Any] = {
    "publish": ["out.>", "kept.*"],
    "request": ["prices.*", "nobody"],
    "kv": {"settings": "write", "other": "read", "missing": "read"},
    "objects": {"reports": "write"},
}


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        await made.start(source=RUN, triggers=["run"], grants=GRANTS)
        yield made


async def run(bench: AgentBench, *steps: Any) -> list[Any]:
    answer = await bench.ask("run", json.dumps(steps).encode())
    assert answer.headers is not None
    assert "error" not in answer.headers, answer.headers
    found: list[Any] = json.loads(answer.data)
    return found


async def test_publishing_reaches_whoever_listens(bench: AgentBench) -> None:
    heard = await bench.client.subscribe("out.>")
    await bench.client.flush()
    assert await run(bench, ["publish", "out.a", {"n": 1}], ["publish", "out.b", "text"]) == [None, None]
    first, second = [await heard.next_msg(timeout=5) for _ in range(2)]
    assert (first.subject, first.data, second.data) == ("out.a", b'{"n":1}', b"text")
    assert first.headers is not None
    assert second.headers is not None
    assert first.headers["Nex-Hops"] == "1"
    assert first.headers["Nats-Msg-Id"] != second.headers["Nats-Msg-Id"]
    event = await bench.event("WORKLOADTRIGGERED")
    assert event["calls"] == 2
    assert first.headers["Nats-Msg-Id"] == f"{event['invocation_id']}:1"


async def test_a_stream_acknowledges(bench: AgentBench) -> None:
    stream = bench.client.jetstream()
    await stream.add_stream(name="KEPT", subjects=["kept.*"])
    try:
        assert await run(bench, ["publish", "kept.a", "x"], ["publish", "kept.a", "y"]) == [
            ["KEPT", 1, False],
            ["KEPT", 2, False],
        ]
    finally:
        await stream.delete_stream("KEPT")


@row("nobody listens, no JetStream")
async def test_requests(bench: AgentBench) -> None:
    async def answer(message: Any) -> None:
        assert int(message.headers["Nex-Deadline-Ms"]) <= 5000
        await bench.client.publish(message.reply, b"42", headers={"X-Seen": message.headers["Nex-Hops"]})

    await bench.client.subscribe("prices.*", cb=answer)
    await bench.client.flush()
    ((text, headers, error), nobody) = await run(bench, ["request", "prices.get", "tea"], ["request", "nobody"])
    assert (text, headers["X-Seen"], error) == ("42", "1", "")
    assert nobody == ["Unavailable", "nobody listens on 'nobody'"]


@pytest.mark.parametrize("direct", [True, False])
async def test_a_bucket(bench: AgentBench, direct: bool) -> None:
    stream = bench.client.jetstream()
    bucket = await stream.create_key_value(KeyValueConfig(bucket="settings", direct=direct))
    try:
        await bucket.put("a", b"1")
        found = await run(
            bench,
            ["kv.get", "a"], ["kv.get", "b"], ["kv.put", "b", {"x": 2}], ["kv.get", "b"], ["kv.create", "b", "3"],
            ["kv.create", "c.d", "3"], ["kv.update", "b", "4", 2], ["kv.update", "b", "5", 2], ["kv.keys"],
            ["kv.delete", "b"], ["kv.get", "b"], ["kv.create", "b", "6"], ["kv.delete", "nothing"], ["kv.keys"],
        )  # fmt: skip
        assert found == [
            ["a", "1", 1], ["NotFound", "there is no key 'b' in the bucket 'settings'"], 2, ["b", '{"x":2}', 2],
            ["Conflict", "the key 'b' is in the bucket 'settings' already"], 3, 4,
            ["Conflict", "the key 'b' of the bucket 'settings' has not the revision 2: get it again, then update"],
            ["a", "b", "c.d"], None, ["NotFound", "there is no key 'b' in the bucket 'settings'"], 6, None,
            ["a", "b", "c.d"],
        ]  # fmt: skip
        assert (await bucket.get("b")).value == b"6"
    finally:
        await stream.delete_key_value("settings")


async def test_what_is_larger_than_the_server_takes(bench: AgentBench) -> None:
    stream = bench.client.jetstream()
    await stream.create_key_value(bucket="settings")
    await stream.create_object_store("reports")
    try:
        most = bench.client.max_payload
        source = RUN.replace("kv.put(*args)", 'kv.put(args[0], "x" * args[1])')
        source = source.replace("objects.put(*args)", 'objects.put(args[0], "x" * args[1])')
        await bench.start("W2", name="two", source=source, triggers=["two"], grants=GRANTS)
        asked = [["kv.put", "a", most], ["kv.put", "b", most - 64], ["objects.put", "c", 2 * most]]
        too_large, put, info = json.loads((await bench.ask("two", json.dumps(asked).encode())).data)
        assert too_large[0] == "TooLarge"
        assert f"more than the {most} that the server takes" in too_large[1]
        assert (put, info) == (1, ["c", 2 * most])
    finally:
        await stream.delete_key_value("settings")
        await stream.delete_object_store("reports")


async def test_an_object_store(bench: AgentBench) -> None:
    stream = bench.client.jetstream()
    assert (await run(bench, ["objects.get", "x"], ["objects.list"])) == [
        ["NotFound", "there is no object store 'reports'"]
    ] * 2
    store = await stream.create_object_store("reports")
    try:
        await store.put("theirs", b"abc")
        large = "0123456789" * 50_000
        found = await run(
            bench,
            ["objects.get", "theirs"], ["objects.put", "big", large], ["objects.info", "big"],
            ["objects.put", "big", "b"], ["objects.get", "big"], ["objects.list"], ["objects.delete", "theirs"],
            ["objects.get", "theirs"], ["objects.delete", "theirs"], ["objects.put", "empty", ""],
            ["objects.get", "empty"],
        )  # fmt: skip
        gone = ["NotFound", "there is no object 'theirs' in the object store 'reports'"]
        assert found == [
            ["theirs", "abc"], ["big", 500_000], ["big", 500_000], ["big", 1], ["big", "b"],
            [["big", 1], ["theirs", 3]], None, gone, gone, ["empty", 0], ["empty", ""],
        ]  # fmt: skip
        assert (await store.get("big")).data == b"b"
        info = await stream.stream_info("OBJ_reports")
        assert info.state.messages == 4, "one piece, and what is told of three"
    finally:
        await stream.delete_object_store("reports")


@row("it was not granted")
async def test_what_was_not_granted(bench: AgentBench) -> None:
    found = await run(
        bench, ["publish", "in.a", "x"], ["request", "in.a", "x"], ["other.put", "k", "v"], ["other.get", "k"]
    )
    add = "was not granted; add to start_request in the Nexfile: grants:"
    assert found == [
        ["Denied", f"publishing on 'in.a' {add} {{publish: [in.a]}}"],
        ["Denied", f"a request to 'in.a' {add} {{request: [in.a]}}"],
        ["Denied", f"writing the bucket 'other' {add} {{kv: {{other: write}}}}"],
        ["NotFound", "there is no bucket 'other'"],
    ]


async def test_without_grants_nothing_goes_out(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server) as bench:
        await bench.start(source=RUN, triggers=["run"])
        found = await run(bench, ["publish", "out.a", "x"], ["kv.get", "a"], ["objects.list"])
        assert [kind for kind, _ in found] == ["Denied"] * 3
        assert "kv: {settings: read}" in found[1][1]
        event = await bench.event("WORKLOADTRIGGERED")
        assert "calls" not in event
