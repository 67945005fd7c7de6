"""A stream that does not answer for a moment, as where a cluster elects its leader: nothing is published past it.

One server has no such moment, so here a stand-in takes the place of the connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.subjects import Subjects
from nexlet_functions.natsio.asking import Questions
from nexlet_functions.natsio.errors import NoResponders
from nexlet_sandboxes.asking import Ask, Asks, Verb
from nexlet_sandboxes.calls import Call


@dataclass
class Answer:
    payload: bytes
    headers: bytes = b""


@dataclass
class Server:
    """Answers as a server with a stream does that keeps `kept.>`."""

    streams: bool = True
    api: bool = True
    leader: bool = True
    told: list[str] = field(default_factory=list)

    async def ask(self, subject: str, payload: bytes, **_: Any) -> Answer:
        if subject == "$JS.API.STREAM.LIST":
            if not self.api:
                raise NoResponders(subject)
            return Answer(orjson.dumps({"streams": [{"config": {}}] if self.streams else None}))
        if not (self.streams and self.leader):
            raise NoResponders(subject)
        return Answer(b'{"stream":"KEPT","seq":1}')

    async def tell(self, subject: str, payload: bytes, **_: Any) -> None:
        self.told.append(subject)


async def publish(subjects: Subjects) -> list[bytes]:
    call = Call(b"in", b"")
    parts = [b"kept.a", b"", b"x"]
    ask = Ask(lambda *_: None, [call], Asks(), Verb.PUBLISH, 1, parts, time.monotonic_ns() + 10**9)
    return list(await subjects.publish(ask)())


def of(server: Server) -> Subjects:
    questions = cast(Questions, server)
    return Subjects(["kept.>"], [], questions, identity=lambda call: "id", max_payload=lambda: 1 << 20)


@pytest.mark.parametrize("lost", ["leader", "api and leader"])
async def test_a_stream_without_a_leader_is_unavailable_and_nothing_is_published(lost: str) -> None:
    server = Server()
    subjects = of(server)
    assert await publish(subjects) == [b"KEPT", b"1", b"0"]
    server.leader, server.api = False, lost == "leader"
    for _ in range(2):
        with pytest.raises(CallFailed, match="does not answer; nothing was published") as failed:
            await publish(subjects)
        assert failed.value.failure is Failure.UNAVAILABLE
    server.leader = server.api = True
    assert await publish(subjects) == [b"KEPT", b"1", b"0"]
    assert server.told == []


async def test_where_the_stream_was_deleted_it_is_a_message_like_any_other() -> None:
    server = Server()
    subjects = of(server)
    await publish(subjects)
    server.streams = False
    assert await publish(subjects) == []
    assert server.told == ["kept.a"]


async def test_without_jetstream_it_is_one_from_the_start() -> None:
    server = Server(api=False)
    assert await publish(of(server)) == []
    assert server.told == ["kept.a"]
