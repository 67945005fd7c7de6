"""The header `Nex-Deadline-Ms`: read from raw bytes, honoured over a real server, and refused where it is none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.deadlines import DeadlineRefused, deadline_ns
from nexlet_functions.natsio.life import Options
from nexlet_functions.natsio.protocol import encode_headers
from nexlet_sandboxes.calls import NEVER_NS
from nexlet_sandboxes.worker.event import parse_headers
from tests.support.agent import AgentBench, agent_bench
from tests.support.settle import settle

SOURCE = """
import time
ran = []
def handler(event, context):
    ran.append(event.text)
    if event.text == "left":
        return str(context.remaining_ms())
    if event.text == "ran":
        return ran
    if event.text == "spin":
        while True:
            pass
    time.sleep(float(event.text))
"""


@given(st.integers(-(10**17), 10**17))
def test_whole_numbers_are_milliseconds_from_now(number: int) -> None:
    for name in ("Nex-Deadline-Ms", "nex-deadline-ms"):
        block = encode_headers({"X-One": "1", name: str(number), "X-Two": "2"})
        assert deadline_ns(block, 5_000) == min(5_000 + number * 1_000_000, NEVER_NS)


@given(st.text(max_size=60))
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    block = encode_headers({"Nex-Deadline-Ms": text})
    value = parse_headers(block)["Nex-Deadline-Ms"]
    if re.fullmatch(r"-?[0-9]{1,40}", value):
        assert deadline_ns(block, 0) == min(int(value) * 1_000_000, NEVER_NS)
        return
    with pytest.raises(DeadlineRefused, match="whole number of milliseconds") as refused:
        deadline_ns(block, 0)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        encode_headers({"X-Nex-Deadline-Ms": "1"}),
        encode_headers({"X": "Nex-Deadline-Ms: 1"}),
        encode_headers({"Nex-Deadline-Ms-X": "1"}),
    ],
)
def test_no_deadline_is_none(block: bytes) -> None:
    assert deadline_ns(block, 1) == NEVER_NS


def test_the_first_of_several_counts_as_it_does_for_the_function() -> None:
    block = b"NATS/1.0\r\nNex-Deadline-Ms: 7\r\nNex-Deadline-Ms: 9\r\n\r\n"
    assert deadline_ns(block, 0) == 7_000_000
    assert parse_headers(block)["Nex-Deadline-Ms"] == "7"


@pytest.fixture(params=["fast", "public"])
async def bench(nats_server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, options=Options(public_only=request.param == "public")) as made:
        await settle(made.client)
        await made.start(source=SOURCE, triggers=["timed"], workers={"max": 1}, limits={"timeout": "20s"})
        yield made


async def ask(bench: AgentBench, payload: bytes, left: str) -> Msg:
    return await bench.client.request("timed", payload, timeout=15, headers={"Nex-Deadline-Ms": left})


def error_of(answer: Msg) -> tuple[str, str]:
    assert answer.headers is not None
    return answer.headers["Nats-Service-Error-Code"], answer.headers["error"]


async def test_a_callers_deadline_is_kept(bench: AgentBench) -> None:
    assert 0 < float((await ask(bench, b"left", "9000")).data) <= 9000
    assert 9000 < float((await ask(bench, b"left", "900000")).data) <= 20000
    assert error_of(await ask(bench, b"spin", "200")) == ("504", "took longer than its caller gave it")
    event = await bench.event("WORKLOADTRIGGERED", count=3)
    assert event["outcome"] == "timeout"


async def test_what_nobody_waits_for_is_not_run(bench: AgentBench) -> None:
    code, error = error_of(await ask(bench, b"left", "0"))
    assert code == "503"
    assert error == "waited 0 ms for a worker, as long as its caller gave it, and was not run"
    running = asyncio.ensure_future(bench.ask("timed", b"1"))
    await settle(bench.client)
    code, _ = error_of(await ask(bench, b"left", "30"))
    assert code == "503"
    assert not running.done(), "it was answered when its time was up, and not when there was a worker"
    await running
    assert (await bench.ask("timed", b"ran")).data == b'["1","ran"]'
    outcomes = [event["outcome"] for event in bench.events("WORKLOADTRIGGERED")]
    assert outcomes.count("expired") == 2


async def test_a_deadline_that_is_none_is_refused(bench: AgentBench) -> None:
    for count, left in enumerate(("soon", "1.5", "", "0x10", "1 2"), start=1):
        code, error = error_of(await ask(bench, b"left", left))
        assert code == "400"
        assert error == f"the header Nex-Deadline-Ms is a whole number of milliseconds, not '{left}'"
        event = await bench.event("WORKLOADTRIGGERED", count=count)
        assert (event["outcome"], event["error"]) == ("rejected", error)
    assert (await bench.ask("timed", b"ran")).data == b'["ran"]'
