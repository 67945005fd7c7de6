"""Secrets that are changed while a function runs: with `rotation: live` it gets them, and no message notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.function import Function
from nexlet_functions.functions.rotation import watch_secrets
from nexlet_models.start_request import StartRequest
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.row import row

TELLS = """
import time

ran = 0

def handler(event, context):
    global ran
    ran += 1
    if event.data == b"slow":
        time.sleep(0.3)
    return f"{context.env['KEY']} {ran}"
"""
LIVE: dict[str, Any] = {"environment": {"KEY": "secret://KEY", "PLAIN": "x"}, "rotation": "live"}


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        made.services.secrets["acme", "KEY"] = "first"
        yield made


async def renew(bench: AgentBench) -> None:
    for function in bench.agent.functions:
        await function.renew_secrets(bench.services)


async def told(bench: AgentBench, data: bytes = b"") -> str:
    return (await bench.ask("W1", data)).data.decode()


async def facts(bench: AgentBench) -> dict[str, str]:
    summary = await bench.summary()
    assert summary is not None
    return dict(summary.metadata or {})


async def test_a_changed_secret_is_there_with_the_next_message(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    assert await told(bench) == "first 1"
    bench.services.secrets["acme", "KEY"] = "second"
    await renew(bench)
    assert await told(bench) == "second 1"
    assert (await facts(bench))["rotation"] == "live"


async def test_where_none_was_changed_its_worker_stays(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    assert await told(bench) == "first 1"
    await renew(bench)
    assert await told(bench) == "first 2"


async def test_without_being_asked_it_is_by_redeploy(bench: AgentBench) -> None:
    await bench.start(source=TELLS, environment={"KEY": "secret://KEY"})
    bench.services.secrets["acme", "KEY"] = "second"
    await renew(bench)
    assert await told(bench) == "first 1"
    assert "rotation" not in await facts(bench)


@row("a secret is changed, where `rotation: live` asks for it")
async def test_what_runs_is_finished_with_the_old_one(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    slow = asyncio.create_task(told(bench, b"slow"))
    (function,) = bench.agent.functions
    await eventually(lambda: function.stats is not None and function.stats.in_flight == 1, what="it runs")
    bench.services.secrets["acme", "KEY"] = "second"
    await renew(bench)
    answers = await asyncio.gather(*(told(bench) for _ in range(10)))
    assert await slow == "first 1"
    assert all(answer.startswith("second") for answer in answers)


@row("a changed secret cannot be had, or a function does not load with it")
async def test_a_secret_that_is_gone_leaves_what_there_is_and_says_so(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    del bench.services.secrets["acme", "KEY"]
    await renew(bench)
    assert await told(bench) == "first 1"
    assert "secret://KEY cannot be had" in (await facts(bench))["rotation_trouble"]
    bench.services.secrets["acme", "KEY"] = "second"
    await renew(bench)
    assert await told(bench) == "second 1"
    assert "rotation_trouble" not in await facts(bench)


@row("a changed secret cannot be had, or a function does not load with it")
async def test_one_that_does_not_load_with_it_goes_on_and_the_value_is_told_to_nobody(
    bench: AgentBench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.start(source=TELLS, **LIVE)
    function = next(iter(bench.agent.functions))
    assert function.pool is not None
    # A source cannot see its environment while it loads; what can fail is the worker itself.
    function.pool.program = type(function.pool.program)(
        TELLS.replace("ran = 0", "raise ValueError('hunter2')"), environment=function.pool.program.environment
    )
    function.pool.compiled = b""
    bench.services.secrets["acme", "KEY"] = "hunter2"
    await renew(bench)
    assert await told(bench) == "first 1"
    trouble = (await facts(bench))["rotation_trouble"]
    assert trouble == "it does not load with the new values: deploy it anew to see why"
    assert "hunter2" not in caplog.text


async def test_values_that_it_does_not_load_with_are_tried_once(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    (function,) = bench.agent.functions
    pool = function.pool
    assert pool is not None
    good, form = pool.program, pool.compiled
    pool.program, pool.compiled = replace(good, handler="missing"), b""
    bench.services.secrets["acme", "KEY"] = "second"
    await renew(bench)
    starts = pool.stats().cold_starts
    pool.program, pool.compiled = good, form
    await renew(bench)
    assert (await told(bench), pool.stats().cold_starts) == ("first 1", starts)
    bench.services.secrets["acme", "KEY"] = "third"
    await renew(bench)
    assert await told(bench) == "third 1"
    assert "rotation_trouble" not in await facts(bench)


async def test_whatever_goes_wrong_with_one_the_others_are_looked_after() -> None:
    looked: list[str] = []

    class Odd:
        def __init__(self, workload_id: str) -> None:
            self.workload_id = workload_id
            self.start_request = StartRequest(source=TELLS, rotation="live")

        async def renew_secrets(self, secrets: Any) -> None:
            looked.append(self.workload_id)
            if self.workload_id == "broken":
                raise UnicodeError("of a store")

    functions = cast("list[Function]", [Odd("broken"), Odd("whole")])
    watching = asyncio.create_task(watch_secrets(lambda: functions, cast(Any, None), interval=0.001))
    await eventually(lambda: len(looked) >= 4)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert looked[:4] == ["broken", "whole", "broken", "whole"]


async def test_it_is_looked_for_from_time_to_time(bench: AgentBench) -> None:
    await bench.start(source=TELLS, **LIVE)
    watching = asyncio.create_task(watch_secrets(lambda: bench.agent.functions, bench.services, interval=0.01))
    bench.services.secrets["acme", "KEY"] = "second"
    (function,) = bench.agent.functions
    pool = function.pool
    assert pool is not None
    await eventually(lambda: pool.program.environment["KEY"] == "second", what="it was seen")
    assert (await told(bench)).startswith("second")
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_in_one_look_a_secret_is_read_once(bench: AgentBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await bench.start(f"W{number}", name=f"f{number}", source=TELLS, **LIVE)
    await bench.start("W9", name="other", namespace="other", source=TELLS, environment={"PLAIN": "x"}, rotation="live")
    read: list[tuple[str, str]] = []
    get = bench.services.get_namespace_secret

    async def reading(namespace: str, key: str) -> SecretStr:
        read.append((namespace, key))
        return await get(namespace, key)

    monkeypatch.setattr(bench.services, "get_namespace_secret", reading)
    looks: list[int] = []

    def functions() -> list[Function]:
        looks.append(len(read))
        return bench.agent.functions

    watching = asyncio.create_task(watch_secrets(functions, bench.services, interval=0.001))
    await eventually(lambda: len(looks) >= 4, what="three looks")
    del bench.services.secrets["acme", "KEY"]
    await eventually(lambda: all(one.rotation.trouble for one in bench.agent.functions if one.namespace == "acme"))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert looks[:4] == [0, 1, 2, 3]
    assert set(read) == {("acme", "KEY")}
