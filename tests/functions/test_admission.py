"""What a request for a function has to keep, and that all that is wrong with one is said in one go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog.testing

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.requests import KV_LIMIT
from nexlet_functions.runner.agent import Refused
from tests.support.agent import GREET, AgentBench, agent_bench, request, workers_of


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        yield made


async def test_all_that_is_wrong_with_a_request_is_said_at_once(bench: AgentBench) -> None:
    bad = request(bench.url, source="x", trigers=["a"], limits={"timeout": "-1s", "memory": "lots"}, name="a b")
    other = bad.request.model_copy(update={"workload_lifecycle": "job", "workload_type": "native"})
    with pytest.raises(Refused) as refused:
        await bench.agent.start_workload("W1", bad.model_copy(update={"request": other}), existing=False)
    for expected in ("trigers", "limits.timeout", "limits.memory", "name 'a b'", "lifecycle", "type 'python'"):
        assert expected in refused.value.text
    assert refused.value.status == 400


@pytest.mark.parametrize("subject", ["a..b", "a b", "a.>.b", ">", "$SYS.>", "*.a", "_INBOX.x", "$NEX.FEED.>"])
async def test_a_subject_that_is_none_or_not_ours(bench: AgentBench, subject: str) -> None:
    refused = await bench.refusal(triggers=["fine", subject])
    assert "triggers[1]" in refused.text
    assert refused.status == 400


async def test_a_namespace_gets_what_it_may_have_and_no_more(nats_server: EmbeddedServer) -> None:
    rules = {"big": {"max_functions": 9}}
    async with agent_bench(nats_server, defaults={"max_functions": 2}, namespaces=rules) as bench:
        outcomes = await asyncio.gather(
            *(bench.start(f"W{number}", triggers=[f"t{number}"]) for number in range(5)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        assert [error.status for error in refused] == [429] * 3
        assert "of 2 that it may have" in refused[0].text
        await bench.start("W8", namespace="big", triggers=["t8"])
        await bench.agent.stop_workload("W0", "acme")
        await bench.start("W9", triggers=["t9"])


async def test_secrets_are_looked_at_in_a_request_that_is_refused_for_something_else(bench: AgentBench) -> None:
    bench.services.secrets["acme", "THERE"] = "hunter2"
    environment = {"A": "secret://MISSING", "B": "secret://THERE", "C": "plain"}
    refused = await bench.refusal(triggers=["a b"], environment=environment)
    assert "triggers[0]" in refused.text
    assert "secret://MISSING cannot be had" in refused.text
    assert "THERE" not in refused.text
    assert "hunter2" not in refused.text


async def test_what_the_operator_permits_to_import_is_not_refused_with_something_else(
    nats_server: EmbeddedServer,
) -> None:
    source = "from colorsys import rgb_to_hsv\n" + GREET
    async with agent_bench(nats_server, modules={"colorsys": ["rgb_to_hsv"]}) as bench:
        faults: list[dict[str, Any]] = [{"triggers": ["a b"]}, {"environment": {"A": "secret://MISSING"}}]
        for wrong in faults:
            assert "colorsys" not in (await bench.refusal(source=source, **wrong)).text


async def test_a_request_and_its_source_are_refused_in_one_go(bench: AgentBench) -> None:
    with pytest.raises(Refused) as refused:
        await bench.start(source="import os\ndef handle(event):\n    pass\n", limits={"timeout": "-1s"}, nosuch=1)
    text = refused.value.text
    for part in ("limits.timeout", "unknown key 'nosuch'", "import of 'os'", "no handler named 'handler'"):
        assert part in text
    assert refused.value.status == 400
    assert workers_of(bench.zygote) == []


async def test_what_is_in_order_of_a_request_is_held_to_the_rules(bench: AgentBench) -> None:
    limits = {"timeout": "1h", "memory": "lots", "nosuch": 1}
    files = {"a b.py": "", "prices.py": "import os\n"}
    refused = await bench.refusal(limits=limits, sandbox="unsafe-dev", files=files, triggers=["a..b"])
    assert refused.text.splitlines()[0] == "greet refused: 7 problems"
    for part in (
        "limits.timeout  1h0m0s is more than",
        "limits.memory  'lots'",
        "limits.nosuch",
        "sandbox  the profile 'unsafe-dev' is not allowed",
        'files["a b.py"]',
        "prices.py:1:1",
        "triggers[0]",
    ):
        assert part in refused.text


async def test_a_problem_is_told_once(bench: AgentBench) -> None:
    odd: dict[str, Any] = {"a b": 1, 'c"d': 2}
    refused = await bench.refusal(source="", files={"no module.py": "", "function.py": ""}, **odd)
    assert refused.text.splitlines()[0] == "greet refused: 5 problems"
    refused = await bench.refusal(source=GREET, limits={"timeout": "1h"})
    assert refused.text.splitlines()[0] == "greet refused: 1 problem"


@pytest.mark.parametrize("run_request", ["", "[]", "{", "[" * 100_000, '{"source": 1, "triggers": {"a": 1e999}}'])
async def test_what_nothing_can_be_made_of_is_refused_all_the_same(bench: AgentBench, run_request: str) -> None:
    asked = request(bench.url)
    bad = asked.request.model_copy(update={"run_request": run_request})
    with pytest.raises(Refused) as refused:
        await bench.agent.start_workload("W1", asked.model_copy(update={"request": bad}), existing=False)
    assert refused.value.status == 400


async def test_a_refused_request_does_not_have_its_source_run(bench: AgentBench) -> None:
    source = "raise ValueError('this ran')\ndef handler(event, context):\n    pass\n"
    with pytest.raises(Refused) as refused:
        await bench.start(source=source, nosuch=1)
    assert "this ran" not in refused.value.text


async def test_a_source_that_a_node_may_forget_is_said_to_the_operator(bench: AgentBench) -> None:
    with structlog.testing.capture_logs() as logs:
        await bench.start("W1", name="small", triggers=["small"])
        await bench.start("W2", name="large", triggers=["large"], source=GREET + "#" * KV_LIMIT)
    (told,) = [line for line in logs if line["event"] == "inline source may be too large for the node's state"]
    assert (told["workload_id"], told["name"], told["log_level"]) == ("W2", "large", "warning")
    assert told["size"] > told["limit"] == KV_LIMIT
