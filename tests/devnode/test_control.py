"""The client of the control API: how it waits, whom it believes, what its errors say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer, NoBid, TooLarge, gather
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.errors import ConnectionLost
from nexlet_models import subjects
from nexlet_models.control import AuctionResponse
from nexlet_models.errors import MalformedMessage
from nexlet_models.workloads import (
    AgentListWorkloadsResponse,
    StartWorkloadRequest,
    StopWorkloadResponse,
    WorkloadLifecycle,
)
from tests.support.settle import settle

Serve = Callable[[str, Callable[[Msg], Awaitable[None]]], Awaitable[None]]

REQUEST = StartWorkloadRequest(
    name="fn",
    namespace="acme",
    description="",
    workload_type="python",
    workload_lifecycle=WorkloadLifecycle.FUNCTION,
    run_request="{}",
    tags=None,
)


@pytest.fixture
async def serve(nats_server: EmbeddedServer) -> AsyncIterator[Serve]:
    """Answer a subject by hand, in the place of nodes."""
    connected = await nats.connect(nats_server.url)

    async def subscribe(subject: str, answer: Callable[[Msg], Awaitable[None]]) -> None:
        await connected.subscribe(subject, cb=answer)
        await settle(connected)

    yield subscribe
    await connected.close()


def answering(*bodies: bytes, headers: dict[str, str] | None = None) -> Callable[[Msg], Awaitable[None]]:
    async def answer(message: Msg) -> None:
        for body in bodies:
            await message._client.publish(message.reply, body, headers=headers)

    return answer


async def test_gathering_ends_with_the_last_that_is_expected(client: Client, serve: Serve) -> None:
    await serve("many", answering(b"1", b"2", b"3", b"4"))
    answers = await gather(client, "many", b"", wait=30, count=3)
    assert [answer.data for answer in answers] == [b"1", b"2", b"3"]
    answers = await gather(client, "many", b"", wait=30, until=lambda answer: answer.data == b"2")
    assert [answer.data for answer in answers] == [b"1", b"2"]


async def test_gathering_ends_when_nothing_more_comes(client: Client, serve: Serve) -> None:
    await serve("few", answering(b"1", b"2"))
    assert len(await gather(client, "few", b"", wait=30, stall=0.1)) == 2
    assert len(await gather(client, "few", b"", wait=0.1)) == 2


async def test_gathering_where_nobody_listens(client: Client) -> None:
    begun = time.monotonic()
    assert await gather(client, "nobody", b"", wait=30) == []
    assert time.monotonic() - begun < 10


async def test_gathering_leaves_no_subscription_behind(client: Client, serve: Serve) -> None:
    await serve("one", answering(b"1", b"2"))
    for _ in range(3):
        await gather(client, "one", b"", wait=30, count=1)
    assert client._subs == {}


async def test_gathering_over_a_connection_that_closes(client: Client, serve: Serve) -> None:
    async def close(message: Msg) -> None:
        await client.close()

    await serve("closing", close)
    gathering = asyncio.create_task(gather(client, "closing", b"", wait=30))
    with pytest.raises(ConnectionLost, match="during a question on 'closing'"):
        await gathering


async def test_a_request_that_no_server_takes(client: Client) -> None:
    bid = AuctionResponse(bidder_id="b", start_request_schema="{}", supported_lifecycles=(), xkey="")
    large = REQUEST.model_copy(update={"run_request": "x" * (1024 * 1024)})
    with pytest.raises(TooLarge, match="the server takes 1048576"):
        await ControlClient(client, "acme").deploy(bid, large)


async def test_one_that_refuses_among_many(client: Client, serve: Serve) -> None:
    """What others answered counts; an error only where there is nothing else."""
    refused = {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "500"}
    await serve(subjects.list_workloads("acme"), answering(b'{"error":"broken","error_id":"e"}', headers=refused))
    control = ControlClient(client, "acme", stall=0.2)
    with pytest.raises(ControlRefused, match="no: broken") as raised:
        await control.workloads()
    assert (raised.value.status, raised.value.error_id, raised.value.code) == (500, "e", "control-refused")
    await serve(subjects.list_workloads("acme"), answering(AgentListWorkloadsResponse(()).to_json()))
    assert await control.workloads() == []


@pytest.mark.parametrize(
    ("body", "headers", "text", "status"),
    [
        (b"", {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "100"}, "no", 100),
        (b"[]", {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "x"}, "no", 500),
        (b'{"error":"no: why"}', {"Nats-Service-Error": "no", "Nats-Service-Error-Code": "400"}, "no: why", 400),
        (b"\xff", {"Nats-Service-Error-Code": "500"}, "an error without a text, code 500", 500),
    ],
)  # fmt: skip
async def test_errors_of_every_shape(
    client: Client, serve: Serve, body: bytes, headers: dict[str, str], text: str, status: int
) -> None:
    await serve(subjects.node_info("N1"), answering(body, headers=headers))
    with pytest.raises(ControlRefused) as refused:
        await ControlClient(client).info("N1")
    assert (str(refused.value), refused.value.status) == (text, status)


async def test_an_answer_that_is_none(client: Client, serve: Serve) -> None:
    await serve(subjects.node_info("N1"), answering(b"nonsense"))
    with pytest.raises(MalformedMessage, match="NodeInfoResponse"):
        await ControlClient(client).info("N1")


async def test_deploying_to_who_is_gone(client: Client) -> None:
    bid = AuctionResponse(bidder_id="b", start_request_schema="{}", supported_lifecycles=(), xkey="")
    with pytest.raises(NoAnswer, match="10 s"):
        await ControlClient(client, "acme").deploy(bid, REQUEST)


async def test_starting_takes_one_who_supports_the_lifecycle(client: Client, serve: Serve) -> None:
    def bid(name: str, *lifecycles: WorkloadLifecycle) -> bytes:
        return AuctionResponse(
            bidder_id=name, start_request_schema="{}", supported_lifecycles=lifecycles, xkey=""
        ).to_json()

    await serve(subjects.auction("acme"), answering(bid("job", WorkloadLifecycle.JOB), bid("fn", *WorkloadLifecycle)))
    await serve(subjects.deploy("acme", "fn"), answering(b'{"id":"w","name":"fn"}'))
    for _ in range(3):
        assert (await ControlClient(client, "acme", nodes=2).start(REQUEST)).id == "w"
    with pytest.raises(NoBid, match="lifecycle function") as nobody:
        await ControlClient(client, "acme", nodes=1).start(REQUEST)
    assert nobody.value.code == "no-bid"


async def test_a_stop_believes_who_did_it(client: Client, serve: Serve) -> None:
    def said(stopped: bool) -> bytes:
        return StopWorkloadResponse(id="w", workload_type="python", stopped=stopped, message="").to_json()

    await serve(subjects.undeploy("acme", "w"), answering(said(False), said(True), said(False)))
    assert (await ControlClient(client, "acme").stop("w")).stopped


async def test_a_stop_from_system_asks_whose_it_is(client: Client, serve: Serve) -> None:
    asked: list[bytes] = []

    async def stop(message: Msg) -> None:
        asked.append(message.data)
        await message.respond(b'{"id":"w","workload_type":"python","stopped":true,"message":""}')

    listed = [
        {"id": workload, "namespace": namespace, "name": "", "start_time": "", "runtime": "", "workload_type": "",
         "workload_lifecycle": "", "workload_state": "running", "tags": None}
        for workload, namespace in (("other", "elsewhere"), ("w", "acme"))
    ]  # fmt: skip
    await serve(subjects.list_workloads("system"), answering(json.dumps(listed).encode()))
    await serve(subjects.undeploy("acme", "w"), stop)
    assert (await ControlClient(client, nodes=1).stop("w")).stopped
    assert json.loads(asked[0]) == {"namespace": "acme"}


async def test_placement_tags_of_several_nodes(client: Client, serve: Serve) -> None:
    await serve(subjects.placement_tags(), answering(b'{"zone":"a"}', b'{"gpu":"yes"}'))
    assert await ControlClient(client, nodes=2).placement_tags() == {"zone": "a", "gpu": "yes"}
