"""Workers that say what they like about calls: nothing is touched but what their function was granted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

import nats
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.grants.calls import Calls
from nexlet_functions.grants.room import Room
from nexlet_functions.natsio import Connection, Credentials
from nexlet_models.start_request import GrantsRequest
from nexlet_models.subjects import matches
from nexlet_sandboxes.asking import ASK, Verb, pack
from nexlet_sandboxes.frames import Kind, frame
from tests.support.hostile import Peer, answer, open_stage
from tests.support.pools import call, limits, run

GRANTS = GrantsRequest.model_validate(
    {
        "publish": ["out.*"],
        "request": ["prices.*"],
        "kv": {"mine": "write", "seen": "read"},
        "objects": {"store": "write", "shelf": "read"},
    }
)

TOUCHED = (
    *("out.*", "prices.*"),
    *("$KV.mine.>", "$O.store.>"),
    # Questions about what it may read; whether a stream keeps what it publishes.
    *("$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.PURGE.OBJ_store"),
    *(
        f"$JS.API.{verb}.{stream}{rest}"
        for verb in (
            "DIRECT.GET",
            "STREAM.INFO",
            "STREAM.MSG.GET",
            "CONSUMER.CREATE",
            "CONSUMER.INFO",
            "CONSUMER.DELETE",
        )
        for stream in ("KV_mine", "KV_seen", "OBJ_store", "OBJ_shelf")
        for rest in ("", ".>")
    ),
)
"""Where messages of this function may go."""

WORDS = [
    b"out.a", b"out.a.b", b"out.*", b"out.>", b"prices.get", b"orders", b"$JS.API.STREAM.DELETE.KV_mine", b"$SYS.REQ",
    b"$KV.other.key", b"_INBOX.x", b"out.a 5\r\nPUB evil 1\r\n", b"out.a\r\n", b"out.\xff", b"", b"mine", b"seen",
    b"other", b"store", b"shelf", b"mine.>", b"KV_mine", b"mine ", b"key", b"../other/key", b"a.b", b".", b"*", b">",
    b"key\r\n", b"0", b"1", b"-1", b"18446744073709551616", b"X: y\r\n", b"Nats-Msg-Id: z\r\n", b"Nex-Hops: 0\r\n",
    b"X: y", b"Nats-Rollup: all\r\n", b"X: a\r\n\r\nevil", b"{}", b"\0" * 20, b"x" * 600,
]  # fmt: skip
PART = st.sampled_from(WORDS) | st.binary(max_size=12)


BUCKET = st.sampled_from([b"mine", b"seen", b"other", b"store", b"shelf"]) | PART
KEY = st.sampled_from([b"key", b"a.b"]) | PART
SUBJECT = st.sampled_from([b"out.a", b"out.b", b"prices.get"]) | PART
SHAPES = {
    Verb.PUBLISH: (SUBJECT, st.just(b""), PART),
    Verb.REQUEST: (SUBJECT, PART, PART),
    Verb.KV_GET: (BUCKET, KEY),
    Verb.KV_PUT: (BUCKET, KEY, PART),
    Verb.KV_CREATE: (BUCKET, KEY, PART),
    Verb.KV_UPDATE: (BUCKET, KEY, PART, st.sampled_from([b"0", b"1", b"2"]) | PART),
    Verb.KV_DELETE: (BUCKET, KEY),
    Verb.KV_KEYS: (BUCKET,),
    Verb.OBJECT_GET: (BUCKET, KEY),
    Verb.OBJECT_PUT: (BUCKET, KEY, PART, PART),
    Verb.OBJECT_INFO: (BUCKET, KEY),
    Verb.OBJECT_LIST: (BUCKET,),
    Verb.OBJECT_DELETE: (BUCKET, KEY),
}
FORMED = st.one_of(
    *(
        st.tuples(st.tuples(*parts).map(lambda parts: pack(*parts)), st.just(int(verb)))
        for verb, parts in SHAPES.items()
    )
)
"""A call of the right form, with right and wrong words in it."""
MALFORMED = st.tuples(
    st.lists(PART, max_size=6).map(lambda parts: pack(*parts)) | st.binary(max_size=60), st.integers(0, 255)
)
ASKS = FORMED | FORMED | MALFORMED


class Scene:
    """A server with buckets and stores, the calls of one function, and all that is published on the server."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self.seen: set[str] = set()
        self.calls: Calls
        self.client: Client

    async def __aenter__(self) -> Self:
        server = await self._stack.enter_async_context(EmbeddedServer())
        self.client = await nats.connect(server.url)
        self._stack.push_async_callback(self.client.close)
        stream = self.client.jetstream()
        for bucket in ("mine", "seen", "other"):
            await (await stream.create_key_value(bucket=bucket)).put("key", b"before")
        for store in ("store", "shelf"):
            await (await stream.create_object_store(store)).put("key", b"before")

        async def hear(message: Msg) -> None:
            # What a consumer delivers bears the subject that it was published on: it is read, and not published.
            if not message.reply.startswith("$JS.ACK."):
                self.seen.add(message.subject)

        await self.client.subscribe(">", cb=hear)
        await self.client.flush()
        connection = await self._stack.enter_async_context(Connection(Credentials(servers=(server.url,))))
        await connection.wait_connected(10)
        self.calls = Calls(GRANTS, connection, identity=lambda _: "id", room=Room(8, 1 << 20), max_size=1 << 16)
        await self.calls.open()
        self._stack.push_async_callback(self.calls.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def play(self, batch: list[tuple[bytes, int]]) -> None:
        """One worker, which asks all of this as far as it is let, one after another."""

        async def script(peer: Peer) -> None:
            await peer.load()
            number, _ = await peer.invocation()
            for count, (parts, verb) in enumerate(batch, 1):
                await peer.say(frame(Kind.ASK, ASK.pack(count, 300) + parts, flag=verb, call=number))
                await peer.answer()
            await peer.say(answer(number))

        async with open_stage(script, limits(timeout=5.0), answerer=self.calls) as (pool, sink, _):
            await run(pool, call(b"go"))
            assert len(sink.results) == 1
        await self.client.flush()
        assert {subject for subject in self.seen if not allowed(subject)} == set()

    async def look(self) -> None:
        """What was not to be written is as it was."""
        assert self.calls.under_way == 0
        stream = self.client.jetstream()
        for bucket in ("other", "seen"):
            assert (await (await stream.key_value(bucket)).get("key")).value == b"before"
        assert (await (await stream.object_store("shelf")).get("key")).data == b"before"


def test_nothing_is_touched_but_what_was_granted() -> None:
    with asyncio.Runner() as runner:
        scene = runner.run(Scene().__aenter__())
        try:

            @settings(max_examples=150, deadline=None)
            @given(st.lists(ASKS, min_size=1, max_size=8))
            def fuzz(batch: list[tuple[bytes, int]]) -> None:
                runner.run(scene.play(batch))

            fuzz()
            runner.run(scene.look())
            assert any(matches("$KV.mine.>", subject) for subject in scene.seen), "what was granted was reached"
            assert any(matches("out.*", subject) for subject in scene.seen)
        finally:
            runner.run(scene.__aexit__())


def allowed(subject: str) -> bool:
    # Answers come to inboxes; those of JetStream go to ours, and acknowledge what a consumer delivers.
    if subject.startswith(("_INBOX.", "$JS.ACK.", "$JS.EVENT.", "$SYS.")):
        return True
    return any(matches(pattern, subject) for pattern in TOUCHED)
