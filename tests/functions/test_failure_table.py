"""Every row of the failure table, over a real server: what the requester reads, event, feeds, and the worker's fate.

The rows about starts and about nodes stand elsewhere (`test_agent.py`, `tests/runner`). All of it runs over both ways
of using nats-py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from nexlet_sandboxes.pool import Pool
from tests.support.agent import AgentBench, agent_bench, workers_of
from tests.support.polling import eventually
from tests.support.settle import settle

SOURCE = """
import time

def handler(event, context):
    what, _, rest = event.text.partition(" ")
    if what == "return":
        return rest
    if what == "headers":
        return Reply(rest, headers={"X-Kind": "test"})
    if what == "reject":
        raise Reject(422, rest)
    if what == "json":
        return event.json()
    if what == "raise":
        raise ValueError(rest + chr(13) + chr(10) + "workload_id: forged")
    if what == "spin":
        while True:
            pass
    if what == "grow":
        kept = []
        while True:
            kept.append("x" * 1048576)
    if what == "set":
        return {1, 2}
    if what == "large":
        return "x" * int(rest)
    if what == "flood":
        for n in range(5000):
            print("x" * 200)
        return "flooded"
    if what == "sleep":
        time.sleep(float(rest))
        return "slept"
    if what == "print":
        print(rest)
        context.metrics.gauge("level", 3)
        return None
"""


@pytest.fixture(params=["fast", "public"])
def options(request: pytest.FixtureRequest) -> Options:
    """Both ways of using nats-py."""
    return Options(public_only=request.param == "public")


@pytest.fixture
async def bench(nats_server: EmbeddedServer, options: Options) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, options=options) as made:
        await settle(made.client)
        yield made


async def start(bench: AgentBench, **more: Any) -> None:
    asked: dict[str, Any] = {"source": SOURCE, "triggers": ["table"], "workers": {"min": 0, "max": 1}}
    await bench.start(**{**asked, **more})


def pool_of(bench: AgentBench) -> Pool:
    (function,) = bench.agent._functions.values()
    assert function._pool is not None
    return function._pool


def is_error(answer: Msg, code: int, text: str) -> None:
    assert answer.headers is not None
    assert answer.headers["Nats-Service-Error-Code"] == str(code)
    assert text in answer.headers["error"]
    assert answer.headers["Nats-Service-Error"] == answer.headers["error"]
    assert (answer.headers["workload_id"], answer.headers["namespace"]) == ("W1", "acme")


async def test_it_returns(bench: AgentBench) -> None:
    await start(bench)
    answer = await bench.ask("table", b"return well")
    assert answer.data == b"well"
    assert answer.headers == {"workload_id": "W1", "namespace": "acme"}
    event = await bench.event("WORKLOADTRIGGERED")
    invocation = event.pop("invocation_id")
    duration, queue, cpu, peak = (event.pop(k) for k in ("duration", "queue_ms", "cpu_ms", "peak_memory_bytes"))
    assert event == {"id": "W1", "namespace": "acme", "subject": "table", "outcome": "ok", "attempt": 1}
    assert invocation.endswith(".1")
    assert 0 <= duration < 1000
    assert 0 <= queue < 1000
    assert 0 <= cpu < 1000
    assert peak > 1_000_000


async def test_headers_of_its_own_join_ours(bench: AgentBench) -> None:
    await start(bench)
    answer = await bench.ask("table", b"headers well")
    assert answer.headers == {"workload_id": "W1", "namespace": "acme", "X-Kind": "test"}


async def test_it_rejects(bench: AgentBench) -> None:
    await start(bench)
    answer = await bench.ask("table", b"reject qty must be > 0")
    is_error(answer, 422, "qty must be > 0")
    assert answer.data == b"qty must be > 0"
    event = await bench.event("WORKLOADTRIGGERED")
    assert (event["outcome"], event["error"]) == ("rejected_by_function", "qty must be > 0")
    assert bench.logs("stderr") == []


async def test_the_event_is_not_the_json_it_asks_for(bench: AgentBench) -> None:
    await start(bench)
    is_error(await bench.ask("table", b"json {"), 400, "the payload is not JSON")
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "rejected_by_function"


async def test_it_raises(bench: AgentBench) -> None:
    await start(bench)
    answer = await bench.ask("table", b"raise no luck")
    is_error(answer, 500, "ValueError: no luck")
    assert answer.data == b""
    event = await bench.event("WORKLOADTRIGGERED")
    assert event["outcome"] == "error"
    assert event["error"].startswith("ValueError: no luck")
    await eventually(lambda: bench.logs("stderr"), what="the traceback is on the feed")
    (traceback,) = bench.logs("stderr")
    assert "function.py" in traceback
    assert "raise ValueError(rest" in traceback
    assert "nexlet_sandboxes" not in traceback
    assert (await bench.ask("table", b"return on")).data == b"on"


async def test_over_its_time(bench: AgentBench) -> None:
    await start(bench, limits={"timeout": "200ms"})
    (worker,) = workers_of(bench.zygote)
    is_error(await bench.ask("table", b"spin"), 504, "took longer than its limit of 0.2 s")
    event = await bench.event("WORKLOADTRIGGERED")
    assert event["outcome"] == "timeout"
    assert event["duration"] >= 200
    assert (await bench.ask("table", b"return on")).data == b"on"
    await eventually(lambda: worker not in workers_of(bench.zygote), what="the worker is gone")
    await eventually(lambda: any("timeout" in line for line in bench.logs("stderr")), what="its author reads of it")


async def test_over_its_memory(bench: AgentBench) -> None:
    await start(bench, limits={"memory": "48MiB", "timeout": "20s"})
    is_error(await bench.ask("table", b"grow"), 507, "48 MiB")
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "memory"
    assert (await bench.ask("table", b"return on")).data == b"on"


async def test_it_dies(bench: AgentBench) -> None:
    await start(bench, limits={"timeout": "20s"})
    (worker,) = workers_of(bench.zygote)
    asked = asyncio.create_task(bench.ask("table", b"sleep 15", timeout=20))
    pool = pool_of(bench)
    await eventually(lambda: any(link.process.running_call for link in pool._links), what="it runs")
    os.kill(worker, signal.SIGSEGV)
    is_error(await asked, 502, "SIGSEGV")
    event = await bench.event("WORKLOADTRIGGERED")
    assert (event["outcome"], event["error"]) == ("crash", "the worker died: signal SIGSEGV")
    assert (await bench.ask("table", b"return on")).data == b"on"


@pytest.mark.parametrize(
    ("payload", "text"),
    [(b"set", "a set, which is not JSON"), (b"large 2000000", "the reply is 2000000 bytes, more than the")],
)
async def test_no_result(bench: AgentBench, payload: bytes, text: str) -> None:
    await start(bench)
    is_error(await bench.ask("table", payload), 500, text)
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "error"
    assert (await bench.ask("table", b"return on")).data == b"on"


async def test_a_flood_of_output(bench: AgentBench) -> None:
    await start(bench, limits={"log_rate": "2KiB"})
    assert (await bench.ask("table", b"flood")).data == b"flooded"
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "ok"
    await eventually(lambda: any("lines dropped" in line for line in bench.logs("stderr")), what="it is said")
    dropped = sum(int(line.split()[0]) for line in bench.logs("stderr") if "lines dropped" in line)
    assert dropped + len(bench.logs("stdout")) == 5000
    assert 10 < len(bench.logs("stdout")) < 200


async def test_the_queue_is_full(bench: AgentBench) -> None:
    await start(bench, limits={"max_pending": 2, "timeout": "20s"})
    running = [asyncio.create_task(bench.ask("table", b"sleep 0.5")) for _ in range(6)]
    answers = await asyncio.gather(*running)
    refused = [answer for answer in answers if answer.headers and "error" in answer.headers]
    assert len(refused) == 3  # one runs, two wait
    for answer in refused:
        is_error(answer, 429, "2 invocations")
    await bench.event("WORKLOADTRIGGERED", count=6)
    outcomes = [event["outcome"] for event in bench.events("WORKLOADTRIGGERED")]
    assert (outcomes.count("rejected"), outcomes.count("ok")) == (3, 3)


async def test_it_waited_too_long(bench: AgentBench) -> None:
    await start(bench, limits={"queue_timeout": "100ms", "timeout": "20s"})
    first = asyncio.create_task(bench.ask("table", b"sleep 0.4"))
    await asyncio.sleep(0)
    is_error(await bench.ask("table", b"print never"), 503, "was not run")
    assert (await first).data == b"slept"
    await bench.event("WORKLOADTRIGGERED", count=2)
    assert sorted(event["outcome"] for event in bench.events("WORKLOADTRIGGERED")) == ["expired", "ok"]
    assert bench.logs() == []


async def test_it_is_stopped_with_work_in_flight(bench: AgentBench) -> None:
    await start(bench, limits={"timeout": "20s"})
    running = asyncio.create_task(bench.ask("table", b"sleep 0.3"))
    pool = pool_of(bench)
    await eventually(lambda: pool.stats().busy, what="it runs")
    await bench.agent.stop_workload("W1", "acme")
    assert await bench.silent("table")
    assert (await running).data == b"slept"
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "ok"


async def test_an_event_without_a_requester(bench: AgentBench) -> None:
    await start(bench)
    await bench.client.publish("table", b"print to the feed")
    assert (await bench.event("WORKLOADTRIGGERED"))["outcome"] == "ok"
    await eventually(lambda: bench.logs() == ["to the feed"], what="the line is on the feed")
    (metric,) = [message for message in bench.heard if ".metrics." in message.subject]
    assert metric.subject == "$NEX.FEED.acme.metrics.W1"
    assert json.loads(metric.data) == {"name": "level", "kind": "gauge", "value": 3}


async def test_no_answer_is_given_where_none_may_be(bench: AgentBench) -> None:
    await start(bench, triggers=["table", {"subject": "mute", "reply": False}])
    for trigger, reply in (("table", "$JS.API.STREAM.LIST"), ("table", "table"), ("mute", "some.inbox")):
        heard: list[Msg] = []

        async def hear(message: Msg, heard: list[Msg] = heard) -> None:
            heard.append(message)

        if reply != "table":
            await bench.client.subscribe(reply, cb=hear)
        await settle(bench.client)
        before = len(bench.events("WORKLOADTRIGGERED"))
        await bench.client.publish(trigger, b"return no", reply=reply)
        await bench.event("WORKLOADTRIGGERED", count=before + 1)
        await settle(bench.client)
        assert heard == []
    assert len(bench.events("WORKLOADTRIGGERED")) == 3  # and none of them set off another


async def test_the_server_takes_less_than_before(options: Options) -> None:
    config = "max_payload: {}"
    async with (
        EmbeddedServer(config=config.format(1_000_000)) as server,
        agent_bench(server, options=options) as bench,
    ):
        await settle(bench.client)
        await start(bench)
        assert len((await bench.ask("table", b"large 500000")).data) == 500_000
        # A running server does not tell its clients; those who come (again) are told.
        server.reconfigure(config.format(100_000))
        await server.restart()
        connection = bench.services._triggers["W1"][0]
        await eventually(lambda: connection.max_payload == 100_000, what="the new limit is known")
        await eventually(lambda: bench.client.is_connected, what="the client is back, too")
        is_error(await bench.ask("table", b"large 500000"), 500, "the server takes 100000")
        assert (await bench.ask("table", b"return on")).data == b"on"


async def test_the_server_goes_away_and_comes_back(nats_server: EmbeddedServer, bench: AgentBench) -> None:
    source = """
runs = []
def handler(event, context):
    runs.append(event.text)
    return runs
"""
    await start(bench, source=source)
    await bench.ask("table", b"before")
    await nats_server.kill()
    await nats_server.start()
    client = await nats.connect(nats_server.url)
    try:
        connection = bench.services._triggers["W1"][0]
        await eventually(lambda: connection.connected, within=15, what="it has found the server again")
        answer = await client.request("table", b"after", timeout=5)
        assert json.loads(answer.data) == ["before", "after"]  # the same worker, and nothing twice
    finally:
        await client.close()
