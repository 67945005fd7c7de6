"""The samples beside a node: each of their messages over NATS, the pipeline from end to end, and that all are told of.

Their own tests, in their folders, run them in a worker without NATS.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.nexfile import FunctionFolder, read_function
from nexlet_functions.testing import SampleEvent, sample_events
from nexlet_models.subjects import matches
from tests.support.documents import ROOT
from tests.support.live import Live, live, temporary

__all__ = ["live", "temporary"]

SAMPLES = ROOT / "samples"
NAMES = sorted(file.parent.name for file in SAMPLES.glob("*/Nexfile"))
BY_SCHEDULE = "$SCHEDULE."
"""Subjects of runs by schedule: there are no messages on them, and the sample's own tests stand for the clock."""
FRAME = next(event for event in sample_events(SAMPLES / "telemetry") if event.name == "frosty")


@pytest.fixture
async def dev(live: Callable[..., Awaitable[Live]]) -> AsyncIterator[Live]:
    """All samples, deployed."""
    running = await live("dev", SAMPLES, "-p", "0")
    await running.until("ready")
    yield running
    assert await running.end() == 0


@pytest.fixture
async def client(dev: Live) -> AsyncIterator[Client]:
    connected = await nats.connect(dev.of("ready")[0]["url"])
    yield connected
    await connected.close()


def answers(function: FunctionFolder, subject: str) -> bool:
    if any(matches(each.pattern, subject) for each in function.start.stream_triggers):
        return False
    return all(each.reply for each in function.start.subject_triggers if matches(each.subject, subject))


def first_pattern(name: str) -> str:
    start = read_function(SAMPLES / name).start
    if start.subject_triggers:
        return start.subject_triggers[0].pattern
    return start.stream_triggers[0].pattern


async def played(client: Client, dev: Live, function: FunctionFolder, event: SampleEvent) -> list[str]:
    """How what came back differs from what the event expects."""
    subject = event.subject or function.start.subject_triggers[0].subject
    headers = dict(event.headers) or None
    compared: dict[str, Any] = {}
    if answers(function, subject):
        reply = await client.request(subject, event.payload, timeout=30, headers=headers)
        given = reply.headers or {}
        compared = {"data": reply.data, "headers": given, "code": int(given.get("Nats-Service-Error-Code", "200"))}
    else:
        await client.publish(subject, event.payload, headers=headers)
    ended = await dev.until("invocation", name=function.name, subject=subject)
    if "error" in event.expect:
        compared["error"] = ended["error"]
    return event.differences(outcome=ended["outcome"], **compared)


async def test_every_message_of_every_sample_is_answered_as_it_says(client: Client, dev: Live) -> None:
    differences = {}
    for name in NAMES:
        function = read_function(SAMPLES / name)
        for event in sample_events(function.path):
            if event.subject.startswith(BY_SCHEDULE):
                continue
            differences[name, event.name] = await played(client, dev, function, event)
    assert {which: found for which, found in differences.items() if found} == {}
    assert {name for name, _ in differences} == set(NAMES)


async def test_the_answer_of_one_function_is_the_message_of_the_next(client: Client, dev: Live) -> None:
    await client.publish(FRAME.subject, FRAME.payload, reply="readings.orchard")
    await dev.until("invocation", name="telemetry", outcome="ok")
    warnings = [json.loads((await dev.until("log", name="climate"))["text"]) for _ in range(2)]
    assert [each["message"] for each in warnings] == ["frost", "change the battery"]
    assert (warnings[0]["sensor"], warnings[0]["celsius"]) == (17, -4.5)
    await dev.until("invocation", name="climate", outcome="ok", subject="readings.orchard")

    await client.publish(FRAME.subject, FRAME.payload[:3], reply="readings.orchard")
    await dev.until("invocation", name="telemetry", outcome="rejected_by_function")
    refused = json.loads((await dev.until("log", name="climate"))["text"])
    assert (refused["message"], refused["reason"]) == ("no reading", "a frame is 12 bytes, this one has 3")
    await dev.until("invocation", name="climate", outcome="ok")


def test_every_sample_is_in_every_table() -> None:
    table = (SAMPLES / "README.md").read_text()
    assert len(NAMES) >= 8
    told = dict(re.findall(r"^\| \[(\w+)\]\(\1/function\.py\) \| `(\S+)`", table, re.M))
    assert told == {name: first_pattern(name) for name in NAMES}
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"\(samples/(\w+)/function\.py\)", readme)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_all_that_a_function_has(name: str) -> None:
    folder: Path = SAMPLES / name
    assert (folder / "test_function.py").is_file()
    function = read_function(folder)
    assert function.name == name
    assert (folder / "function.py").read_text().startswith('"""')
    assert f"**{name}**" in (SAMPLES / "README.md").read_text()
    first, *_ = sample_events(folder)
    assert first.expect.get("outcome", "ok") == "ok", "the first one is what `nexfn dev` sends: it shows what it does"


def test_the_command_of_the_pipeline_sends_the_sample_frame() -> None:
    shown = re.search(r"echo (\S+) \| base64 -d \| nats pub (\S+) --reply (\S+)", (SAMPLES / "README.md").read_text())
    assert shown is not None
    event = json.loads((SAMPLES / "telemetry" / "events" / "frosty.json").read_text())
    assert (shown[1], shown[2]) == (event["base64"], event["subject"])
    assert matches(read_function(SAMPLES / "climate").start.subject_triggers[0].subject, shown[3])
