"""`nexfn dlq`, as a process beside a real server: dead letters listed, shown, sent back and thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import AgentBench, agent_bench
from tests.support.cli import Ended, nexfn

STUBBORN = """
FIXED = []

def handler(event, context):
    if event.subject == "fix":
        FIXED.append(1)
        return "fixed"
    if not FIXED:
        raise ValueError(f"cannot {event.text}")
    print(event.text)
"""
TRIGGERS = [
    "fix",
    {"stream": "ORDERS", "filter": "orders.*", "max_deliver": 1, "dead_letter": "dead.orders"},
    {"subject": "jobs.*", "on_failure": "dead.jobs"},
]


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    """A function that fails until it is fixed, with three dead letters of a stream and one of a subject."""
    async with agent_bench(nats_server) as made:
        stream = made.client.jetstream()
        await stream.add_stream(name="ORDERS", subjects=["orders.>"])
        await stream.add_stream(name="DEAD", subjects=["dead.>"])
        await made.start(source=STUBBORN, triggers=TRIGGERS, workers={"max": 1})
        for number in range(3):
            await stream.publish("orders.new", b"%d" % number, headers={"X-Number": str(number)})
        await made.client.publish("jobs.x", b"job")
        await held(made, 4)
        yield made


async def held(bench: AgentBench, count: int) -> None:
    async with asyncio.timeout(20):
        context = bench.client.jetstream()
        while (await context.stream_info("DEAD")).state.messages != count:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.02)


async def dlq(bench: AgentBench, *arguments: str) -> Ended:
    return await nexfn("dlq", *arguments, "-s", bench.url, "--json")


def numbers(ended: Ended) -> list[int]:
    return [record["number"] for record in ended.records]


async def test_listed_and_shown(bench: AgentBench) -> None:
    ended = await dlq(bench, "list", "dead.orders")
    assert ended.code == 0, ended.err
    assert len(ended.records) == 3
    first: dict[str, Any] = ended.records[0]
    assert (first["type"], first["reason"], first["attempt"], first["stream"]) == ("letter", "error", 1, "ORDERS")
    assert "payload" not in first
    for arguments, count in (
        (["--reason", "error"], 4), (["--from", "jobs.*"], 1),
        (["--function", "greet"], 4), (["--from", "orders.>"], 3),
    ):  # fmt: skip
        found = (await dlq(bench, "list", "dead.>", *arguments)).records
        assert len(found) == count, arguments
    shown = await dlq(bench, "show", "dead.orders", str(first["number"]))
    assert shown.records[0]["payload"] == shown.records[0]["headers"]["X-Number"]
    text = await nexfn("dlq", "show", "dead.>", "--all", "-s", bench.url, "--text")
    assert "ValueError: cannot job" in text.out
    assert "consumer acme-greet" in text.out


async def test_sent_back_in_vain_and_then_for_good(bench: AgentBench) -> None:
    (before,) = (await dlq(bench, "list", "dead.jobs")).records
    vain = await dlq(bench, "redrive", "dead.jobs", "--all")
    assert vain.code == 1
    assert vain.records[0]["type"] == "kept"
    assert "it failed again: ValueError: cannot job" in vain.records[0]["reason"]
    assert (await dlq(bench, "list", "dead.jobs")).records == [before]
    # To a stream it goes back at once, and returns with what was before.
    assert (await dlq(bench, "redrive", "dead.orders", "--all", "--rate", "50")).code == 0
    await held(bench, 4)
    again = (await dlq(bench, "list", "dead.orders")).records
    assert [len(record["history"]) for record in again] == [1, 1, 1]
    assert "error after 1" in again[0]["history"][0]
    assert (await bench.ask("fix")).data == b"fixed"
    assert (await dlq(bench, "redrive", "dead.orders", "--reason", "error")).code == 0
    assert (await dlq(bench, "redrive", "dead.jobs", str(before["number"]))).code == 0
    await held(bench, 0)
    async with asyncio.timeout(10):
        while len(bench.logs()) < 4:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.02)
    assert sorted(bench.logs()) == ["0", "1", "2", "job"]


async def test_of_a_function_that_never_answers(nats_server: EmbeddedServer) -> None:
    """Its subject is kept by a stream, whose word publishers wait for. Sent back, it is the function's that counts."""
    async with agent_bench(nats_server) as made:
        stream = made.client.jetstream()
        await stream.add_stream(name="AUDIT", subjects=["audit.*"])
        await stream.add_stream(name="DEAD", subjects=["dead.>"])
        silent = {"subject": "audit.*", "queue_group": "", "reply": False, "on_failure": "dead.audit"}
        await made.start(source=STUBBORN, triggers=["fix", silent], workers={"max": 1})
        assert (await stream.publish("audit.x", b"kept", headers={"X-A": "1"})).stream == "AUDIT"
        await held(made, 1)
        (before,) = (await dlq(made, "list", "dead.audit")).records
        assert (before["subject"], before["headers"]) == ("audit.x", {"X-A": "1"})
        vain = await dlq(made, "redrive", "dead.audit", "--all")
        assert (vain.code, vain.records[0]["reason"]) == (1, "it failed again: ValueError: cannot kept")
        assert (await dlq(made, "list", "dead.audit")).records == [before]
        await made.ask("fix")
        done = await dlq(made, "redrive", "dead.audit", "--all")
        assert (done.code, done.records[0]["type"]) == (0, "redriven"), done.err
        await held(made, 0)
        assert (await stream.publish("audit.x", b"later")).stream == "AUDIT", "others get no answer of it"


async def test_whoever_else_answers_there_does_not_answer_for_it(nats_server: EmbeddedServer) -> None:
    """A neighbour of the same namespace takes the message gladly, and is quicker: the letter is not the neighbour's."""
    async with agent_bench(nats_server) as made:
        await made.client.jetstream().add_stream(name="DEAD", subjects=["dead.>"])
        jobs = {"subject": "jobs.*", "on_failure": "dead.jobs"}
        failing = "import time\n" + STUBBORN.replace("raise", "time.sleep(0.3); raise")
        await made.start(source=failing, triggers=["fix", jobs], workers={"max": 1}, name="slow")
        glad = "def handler(event, context):\n    return 'glad'\n"
        await made.start("w2", source=glad, triggers=["jobs.*"], name="glad")
        await made.client.publish("jobs.x", b"job")
        await held(made, 1)
        (before,) = (await dlq(made, "list", "dead.jobs")).records
        vain = await dlq(made, "redrive", "dead.jobs", "--all")
        assert (vain.code, vain.records[0].get("reason")) == (1, "it failed again: ValueError: cannot job")
        assert (await dlq(made, "list", "dead.jobs")).records == [before]
        await made.ask("fix")
        done = await dlq(made, "redrive", "dead.jobs", "--all")
        assert (done.code, done.records[0]["type"]) == (0, "redriven"), done.err


async def test_thrown_away(bench: AgentBench) -> None:
    first, *_ = numbers(await dlq(bench, "list", "dead.orders"))
    assert (await dlq(bench, "discard", "dead.orders", str(first))).records == [{"type": "discarded", "number": first}]
    gone = await dlq(bench, "discard", "dead.orders", str(first))
    assert (gone.code, gone.error["code"]) == (1, "no-dead-letters")
    assert (await dlq(bench, "discard", "dead.>", "--all")).code == 0
    await held(bench, 0)
    assert (await dlq(bench, "list", "dead.>")).records[0]["type"] == "none"


async def test_what_is_not_said_is_not_done(bench: AgentBench) -> None:
    for action in ("show", "redrive", "discard"):
        ended = await dlq(bench, action, "dead.>")
        assert (ended.code, ended.error["code"]) == (2, "nothing-chosen")
    nowhere = await dlq(bench, "list", "elsewhere")
    assert (nowhere.code, nowhere.error["code"]) == (1, "no-dead-letters")
    several = await dlq(bench, "list", ">")
    assert "in several streams: DEAD (dead.>), ORDERS (orders.>)" in several.error["message"]
    await held(bench, 4)


async def test_a_subject_that_is_none_means_no_letter(nats_server: EmbeddedServer) -> None:
    async with agent_bench(nats_server) as made:
        stream = made.client.jetstream()
        await stream.add_stream(name="DEAD", subjects=["dead.>"])
        await stream.publish("dead.x", b"kept")
        for subject in ("", "dead..x", "dead x"):
            ended = await dlq(made, "discard", subject, "--all")
            assert (ended.code, ended.error["code"]) == (2, "invalid-subject")
        await held(made, 1)
