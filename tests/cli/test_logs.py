"""`nexfn logs` as a process, following functions that a test invokes and replaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from nexlet_functions.cli import logs
from nexlet_functions.cli.nodes import session
from nexlet_functions.cli.output import Output
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models import subjects
from nexlet_models.control import NodePingResponse
from nexlet_models.workloads import AgentListWorkloadsResponse, WorkloadState, WorkloadSummary
from tests.support.cli import nexfn, start_nexfn
from tests.support.live import Live, StartLive
from tests.support.nexlets import NAMESPACE, NexletBench, deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.settle import settle

TALKS = """
def handler(event, context):
    print("printed", event.text)
    context.log.info("noted", order=17, word=event.text)
    context.log.warning("beware")
    if event.text == "fail":
        raise ValueError("oh dear")
    return event.invocation_id
"""


@pytest.fixture
async def bench(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[NexletBench]:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node) as nexlet:
            yield nexlet
    finally:
        await node.stop()


async def follow(live: StartLive, bench: NexletBench, *arguments: str) -> Live:
    following = await live("logs", "-f", "-s", bench.server.url, "-n", NAMESPACE, "--nodes", "1", *arguments)
    await following.until("following")
    return following


def said(following: Live, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(record.get(field) for field in fields) for record in following.of("log")]


async def test_every_line_has_its_function_its_level_and_its_fields(bench: NexletBench, live: StartLive) -> None:
    workload_id = await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    await deploy(bench.control, TALKS, name="other", triggers=["other"])
    following = await follow(live, bench, "talks", "--count", "4")
    await bench.ask("other", b"unheard")
    invocation = (await bench.ask("talk", b"hi")).data.decode()
    await bench.ask("talk", b"fail")
    assert await following.ended() == 0
    assert said(following, "name", "id", "stream", "level", "message") == [
        ("talks", workload_id, "stdout", "info", "printed hi"),
        ("talks", workload_id, "stdout", "info", "noted"),
        ("talks", workload_id, "stderr", "warning", "beware"),
        ("talks", workload_id, "stdout", "info", "printed fail"),
    ]
    noted = following.of("log")[1]
    assert (noted["fields"], noted["invocation_id"]) == ({"order": 17, "word": "hi"}, invocation)


async def test_a_name_is_followed_through_a_replacement_and_lines_are_chosen(
    bench: NexletBench, live: StartLive
) -> None:
    old = await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    following = await follow(live, bench, "talks", "--level", "warning")
    await bench.ask("talk", b"fail")
    await bench.control.stop(old)
    new = await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    await bench.ask("talk", b"again")
    await following.until("log", id=new)
    assert await following.end() == 0
    lines = said(following, "id", "level", "stream")
    assert lines == [(old, "warning", "stderr"), (old, "error", "stderr"), (new, "warning", "stderr")]
    assert "ValueError: oh dear" in following.of("log")[1]["message"]


async def test_lines_of_one_invocation_or_of_one_stream(bench: NexletBench, live: StartLive) -> None:
    await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    first = (await bench.ask("talk", b"first")).data.decode()
    second = f"{first[:-1]}{int(first[-1], 16) + 1:x}"
    of_one = await follow(live, bench, "--invocation", second, "--count", "4")
    of_stdout = await follow(live, bench, "--stream", "stdout", "--count", "2")
    failed = await bench.ask("talk", b"fail", headers={"X": "y"})
    assert failed.headers is not None
    assert failed.headers["Nex-Invocation-Id"] == second, "the id that somebody would look up"
    await bench.ask("talk", b"third")
    await asyncio.gather(of_one.ended(), of_stdout.ended())
    lines = said(of_one, "message", "invocation_id")
    assert lines[:3] == [("printed fail", second), ("noted", second), ("beware", second)]
    assert lines[3][0].splitlines()[-1] == "ValueError: oh dear"
    assert lines[3][1] == second
    assert said(of_stdout, "message") == [("printed fail",), ("noted",)]


async def test_for_people_and_what_is_not_there(bench: NexletBench) -> None:
    await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    options = ("-s", bench.server.url, "-n", NAMESPACE, "--nodes", "1")
    unknown = await nexfn("logs", *options, "walks")
    assert (unknown.code, unknown.error["code"]) == (1, "unknown-workload")
    enough = asyncio.Event()
    asking = asyncio.create_task(_keep_asking(bench, enough))
    shown = await nexfn("logs", *options, "--text", "--count", "3", "--level", "info")
    enough.set()
    await asking
    assert shown.code == 0
    assert any(line.endswith("  info      talks  noted  order=17  word=hi") for line in shown.out.splitlines())
    over = await nexfn("logs", *options, "--for", "100ms")
    assert (over.code, [json.loads(line)["type"] for line in over.out.splitlines()]) == (0, ["following"])


HALF = """
def handler(event, context):
    print('{"level":"info","message":"half \\\\ud800","word":"\\\\ud800"}')
    return ""
"""
"""JSON may say half of a surrogate pair, which no encoding can write."""


async def test_no_line_of_a_function_ends_it(bench: NexletBench, live: StartLive) -> None:
    await deploy(bench.control, HALF, name="half", triggers=["half"])
    await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    following = await follow(live, bench, "--count", "2", "--stream", "stdout")
    await bench.ask("half", b"")
    await bench.ask("talk", b"on")
    assert await following.ended() == 0
    assert said(following, "message", "fields") == [("half \ud800", {"word": "\ud800"}), ("printed on", None)]


@pytest.mark.parametrize("how", ["--json", "--text"])
async def test_without_anybody_who_reads_it_ends(bench: NexletBench, how: str) -> None:
    await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    process = await start_nexfn("logs", "-s", bench.server.url, "-n", NAMESPACE, "--nodes", "1", how)
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"following" in await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head` does it
    await bench.ask("talk", b"hi")
    async with asyncio.timeout(30):
        assert await process.stderr.read() == b""
        assert await process.wait() == 1


SUMMARY = WorkloadSummary(
    id="w1",
    namespace="acme",
    name="late",
    start_time="2026-01-01T00:00:00Z",
    runtime="0s",
    workload_type="python",
    workload_lifecycle="function",
    workload_state=WorkloadState.RUNNING,
    tags=None,
)
PING = NodePingResponse(
    node_id="N1", agent_count=1, start_time="2026-01-01T00:00:00Z", state="running", tags=None, version="1", xkey="X1"
)


async def test_nodes_that_are_not_there_for_a_while_are_no_reason_to_end(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that is started anew refuses at first, then does not know what another one runs, and then does."""
    refused = {"Nats-Service-Error": "no agent", "Nats-Service-Error-Code": "500"}
    answers: list[tuple[bytes, dict[str, str] | None]] = [
        (AgentListWorkloadsResponse(()).to_json(), None),
        (b'{"error":"no agent"}', refused),
        (AgentListWorkloadsResponse(()).to_json(), None),
        (AgentListWorkloadsResponse((SUMMARY,)).to_json(), None),
    ]

    async def answer(message: Msg) -> None:
        data, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        await node.publish(message.reply, data, headers=headers)

    async def ping(message: Msg) -> None:
        await message.respond(PING.to_json())

    monkeypatch.setattr(logs, "AGAIN", 0.01)
    monkeypatch.setattr(logs, "ANEW", 0.05)
    node = await nats.connect(nats_server.url)
    await node.subscribe(subjects.list_workloads("acme"), cb=answer)
    await node.subscribe(subjects.node_ping(), cb=ping)
    await settle(node)
    asked = asyncio.Event()
    async with session("logs", "acme", {"servers": nats_server.url}, nodes=1) as to:
        following = logs._Following(to, Output(json=True), (), lambda line: True, 1)
        await following.begin()
        ended = asyncio.create_task(following.until(asked, None))
        while not ended.done():  # a function that goes on talking
            await node.publish("$NEX.FEED.acme.logs.w1.stdout", b"said")
            await asyncio.sleep(0.02)
        await ended
    await node.close()
    assert len(answers) == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["type"], record["name"], record["message"]) == ("log", "late", "said")


async def _keep_asking(bench: NexletBench, enough: asyncio.Event) -> None:
    # Not cancelled: a request of nats-py that is answered in that very moment swallows it, and asking goes on.
    while not enough.is_set():
        await bench.ask("talk", b"hi")
