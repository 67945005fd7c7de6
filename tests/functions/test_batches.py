"""Functions that take batches, deployed: every message has its own answer, event, acknowledgement and name."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.msg import Msg

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually

EACH = """
def one(event, many):
    if event.text == "reject":
        return Reject(422, "not that")
    if event.text == "error":
        return ValueError("no such luck")
    return [event.text, event.invocation_id, many]

def handler(events, context):
    return [one(event, len(events)) for event in events]
"""


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        yield made


async def ask(bench: AgentBench, *payloads: str, subject: str = "greet") -> list[Msg]:
    """Requests that are all under way at once."""
    return await asyncio.gather(*(bench.ask(subject, payload.encode()) for payload in payloads))


async def test_each_message_has_its_own_answer_and_its_own_event(bench: AgentBench) -> None:
    await bench.start(source=EACH, batch=16, triggers=["greet"])
    said = [*map(str, range(40)), "reject", "error"]
    answers = dict(zip(said, await ask(bench, *said), strict=True))
    codes = {text: (answer.headers or {}).get("Nats-Service-Error-Code", "200") for text, answer in answers.items()}
    assert codes == {text: {"reject": "422", "error": "500"}.get(text, "200") for text in said}
    await bench.event("WORKLOADTRIGGERED", count=len(said))
    events = {event["invocation_id"]: event for event in bench.events("WORKLOADTRIGGERED")}
    assert len(events) == len(said)
    told = {text: json.loads(answers[text].data) for text in said[:40]}
    assert {events[invocation]["outcome"] for _, invocation, _ in told.values()} == {"ok"}
    assert [text for text, (of, _, _) in told.items() if of != text] == []
    outcomes = Counter(event["outcome"] for event in events.values())
    assert outcomes == {"ok": 40, "rejected_by_function": 1, "error": 1}
    failed = answers["error"].headers
    assert failed is not None
    assert events[failed["Nex-Invocation-Id"]]["error"] == "ValueError: no such luck"
    await eventually(lambda: any("ValueError: no such luck" in line for line in bench.logs("stderr")), what="a line")


async def together(bench: AgentBench, *messages: tuple[bytes, dict[str, str] | None]) -> list[Msg]:
    """Answers to messages that lie ready at once: a first one, `hold`, keeps the only worker until they are here."""
    inbox = bench.client.new_inbox()
    answered, held = await bench.client.subscribe(inbox), await bench.client.subscribe("release")
    (function,) = bench.agent.functions
    pool = function.pool
    assert pool is not None
    await bench.client.publish("greet", b"hold")
    release = await held.next_msg(timeout=20)
    for payload, headers in messages:
        await bench.client.publish("greet", payload, reply=inbox, headers=headers)
    await eventually(lambda: pool.stats().in_flight + pool.stats().pending == 1 + len(messages), what="the others")
    await release.respond(b"")
    return [await answered.next_msg(timeout=20) for _ in messages]


HOLDS = """
def handler(events, context):
    if events[0].text == "hold":
        context.request("release")
        return
    while any(event.text == "hang" for event in events):
        pass
    for event in events:
        context.publish("out.each", event.text, event=event)
    context.publish("out.all", str(len(events)))
"""
HELD: dict[str, Any] = {
    "source": HOLDS, "batch": 8, "triggers": ["greet"], "workers": {"max": 1},
    "grants": {"publish": ["out.*"], "request": ["release"]}, "limits": {"timeout": "4s", "queue_timeout": "20s"},
}  # fmt: skip


async def test_what_ends_a_worker_is_told_of_each_of_its_batch(bench: AgentBench) -> None:
    await bench.start(**HELD)
    answers = await together(bench, (b"hang", None), (b"a", None), (b"b", None))
    assert [(answer.headers or {})["Nats-Service-Error-Code"] for answer in answers] == ["504"] * 3
    await bench.event("WORKLOADTRIGGERED", count=4)
    outcomes = [event["outcome"] for event in bench.events("WORKLOADTRIGGERED")]
    assert outcomes == ["ok", "timeout", "timeout", "timeout"]


async def test_a_profile_of_a_process_for_each_invocation_has_no_batches(bench: AgentBench) -> None:
    refused = await bench.refusal(source=EACH, batch=16, sandbox="oneshot")
    assert "batch: the profile 'oneshot' runs each invocation in a process of its own, a batch several in one" in (
        " ".join(refused.text.replace("batch  ", "batch: ").split())
    )
    assert "leave batch out, or choose another profile: sandbox: strict" in refused.text


async def test_what_is_published_is_named_after_its_event_or_after_this_run(bench: AgentBench) -> None:
    heard: dict[tuple[str, bytes], dict[str, str]] = {}

    async def hear(message: Msg) -> None:
        heard[message.subject, message.data] = message.headers or {}

    await bench.client.subscribe("out.>", cb=hear)
    await bench.start(**HELD)
    # One that has gone through some functions already is in the same batch as one that has not.
    await together(bench, (b"a", None), (b"b", {"Nex-Hops": "3"}))
    await bench.event("WORKLOADTRIGGERED", count=3)
    _, first, second = (event["invocation_id"] for event in bench.events("WORKLOADTRIGGERED"))
    named = {key: (headers["Nats-Msg-Id"], headers["Nex-Hops"]) for key, headers in heard.items()}
    assert named == {
        ("out.each", b"a"): (f"{first}:1", "1"),
        ("out.each", b"b"): (f"{second}:1", "4"),
        ("out.all", b"2"): (f"{first}+:1", "4"),  # no other run of either has this name, and the hops are the most
    }
    assert [event.get("calls") for event in bench.events("WORKLOADTRIGGERED")] == [1, 2, 1]


# --- streams --------------------------------------------------------------------------------------------------------

MOODS = """
def one(event, many):
    print(event.text, event.attempt)
    if event.text == "refuse":
        return Reject(422, "no such order")
    if event.text == "once" and event.attempt == 1:
        return ValueError("not yet")

def handler(events, context):
    if events[0].attempt > 1 and len(events) > 1:
        raise AssertionError("what comes again runs alone")
    if any(event.text == "poison" for event in events):
        while True:
            pass
    return [one(event, len(events)) for event in events]
"""

TRIGGER: dict[str, Any] = {"stream": "ORDERS", "max_deliver": 2, "backoff": ["10ms"], "dead_letter": "dead.orders"}


async def settled(bench: AgentBench, count: int) -> None:
    """Everything in the stream, which has so many messages, has its end."""
    stream = bench.client.jetstream()

    async def ended() -> bool:
        info = await stream.consumer_info("ORDERS", "acme-greet")
        return info.delivered.stream_seq == count and not info.num_pending and not info.num_ack_pending

    async with asyncio.timeout(30):
        while not await ended():  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.02)


async def filled(bench: AgentBench, *payloads: str) -> None:
    stream = bench.client.jetstream()
    await stream.add_stream(name="ORDERS", subjects=["orders.>"])
    await stream.add_stream(name="DEAD", subjects=["dead.>"])
    for payload in payloads:
        await stream.publish("orders.new", payload.encode())


async def letters(bench: AgentBench) -> list[bytes]:
    stream = bench.client.jetstream()
    count = (await stream.stream_info("DEAD")).state.messages
    return [(await stream.get_msg("DEAD", number + 1)).data or b"" for number in range(count)]


async def test_each_message_of_a_stream_is_settled_by_its_own_outcome(bench: AgentBench) -> None:
    said = ["a", "refuse", "once", "b", *map(str, range(60))]
    await filled(bench, *said)
    await bench.start(source=MOODS, batch=64, triggers=[TRIGGER])
    await settled(bench, len(said))
    await eventually(lambda: len(bench.logs()) == len(said) + 1, what="a line for each attempt")
    assert Counter(bench.logs()) == Counter([*(f"{text} 1" for text in said), "once 2"])
    assert await letters(bench) == [b"refuse"]
    await bench.event("WORKLOADTRIGGERED", count=len(said) + 1)
    assert Counter(event["outcome"] for event in bench.events("WORKLOADTRIGGERED")) == {
        "ok": len(said) - 1,
        "rejected_by_function": 1,
        "error": 1,
    }


async def test_a_message_that_ends_its_worker_takes_no_other_of_its_batch_with_it_for_good(bench: AgentBench) -> None:
    said = ["a", "poison", "b", "c"]
    await filled(bench, *said)
    await bench.start(source=MOODS, batch=64, triggers=[TRIGGER], limits={"timeout": "300ms"})
    await settled(bench, len(said))
    assert await letters(bench) == [b"poison"], "what failed with it was tried again without it"
    assert {line.split()[0] for line in bench.logs()} == {"a", "b", "c"}
