"""`nexfn dev` as a process: what it shows, and that it leaves nothing."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest

from nexlet_functions.cli.devloop import equipment
from nexlet_functions.cli.exits import CommandFailed
from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.cli import environment, nexfn
from tests.support.processes import descendants, none_left

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"

StartLive = Callable[..., Awaitable[Any]]


async def test_once_deploys_and_invokes_every_sample(live: StartLive, temporary: Path) -> None:
    dev = await live("dev", SAMPLES, "--once", "--port", "0")
    await dev.until("deployed")
    processes = descendants(dev.process.pid)
    assert await dev.ended() == 0, dev.errors
    names = sorted(path.parent.name for path in SAMPLES.glob("*/Nexfile"))
    assert sorted(record["name"] for record in dev.of("deployed")) == names
    samples = dev.of("sample")
    assert sorted(record["name"] for record in samples) == names
    assert all(record["as_expected"] and record["duration_ms"] > 0 for record in samples), samples
    assert next(record["json"] for record in samples if record["name"] == "greet") == {"greeting": "Hello, Ada!"}
    assert next(record["logs"] for record in samples if record["name"] == "audit")
    assert dev.of("summary") == [{"type": "summary", "deployed": len(names), "refused": 0, "failed": 0}]
    assert "Not for production" in dev.of("development")[0]["warning"]
    await none_left(processes)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("development", signal.SIGINT),
        ("deployed", signal.SIGINT),
        ("ready", signal.SIGINT),
        ("ready", signal.SIGTERM),
        ("ready", signal.SIGHUP),
    ],
)
async def test_a_signal_ends_all_of_it_at_any_time(
    live: StartLive, temporary: Path, moment: str, number: signal.Signals
) -> None:
    dev = await live("dev", SAMPLES / "greet", "--port", "0")
    await dev.until(moment)
    processes = descendants(dev.process.pid)
    assert processes
    assert await dev.end(number) == 0, dev.errors
    await none_left(processes)
    assert list(temporary.iterdir()) == []


async def test_bytes_are_shown_as_a_sample_event_has_them(live: StartLive) -> None:
    dev = await live("dev", SAMPLES / "telemetry", SAMPLES / "identicon", "--once", "-p", "0")
    assert await dev.ended() == 0, dev.errors
    payloads = {record["name"]: record["payload"] for record in dev.of("sample")}
    assert payloads == {"telemetry": "AQEAEWlVuQD+Pi4v", "identicon": "ada@example.com"}


async def test_what_it_proposes_to_send_can_be_sent(live: StartLive, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "textstats", tmp_path / "textstats")
    shutil.rmtree(tmp_path / "textstats" / "events")
    dev = await live("dev", tmp_path / "textstats", "-p", "0")
    ready = await dev.until("ready")
    assert ready["commands"][0] == f"nexfn invoke -s {ready['url']} texts.any.any '{{}}'"
    answer = await nexfn(*shlex.split(ready["commands"][0])[1:])
    assert (answer.code, answer.records[0]["code"]) == (1, 422), "it came to the function"
    assert await dev.end() == 0


async def test_it_stays_and_shows_what_happens(live: StartLive) -> None:
    dev = await live("dev", SAMPLES / "greet", SAMPLES / "webhook", "-p", "0")
    ready = await dev.until("ready")
    assert ready["functions"] == 2
    assert ready["commands"][0] == f"""nexfn invoke -s {ready["url"]} greet.hello '{{"name":"Ada"}}'"""

    answer = await nexfn("invoke", "-s", ready["url"], "greet.hello", '{"name": "Grace"}')
    assert answer.records[0]["json"] == {"greeting": "Hello, Grace!"}
    line = await dev.until("log", name="greet")
    assert json.loads(line["text"])["name"] == "Grace"
    invocation = await dev.until("invocation", name="greet")
    assert (invocation["outcome"], invocation["subject"]) == ("ok", "greet.hello")

    refused = await nexfn("invoke", "-s", ready["url"], "webhooks.shop", "{}")
    assert (refused.code, refused.records[0]["code"]) == (1, 401)
    invocation = await dev.until("invocation", name="webhook")
    assert invocation["outcome"] == "rejected_by_function"
    assert await dev.end() == 0


async def test_text_is_for_people() -> None:
    ended = await nexfn("dev", SAMPLES / "orders", "--once", "--text", "-p", "0", timeout=60)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("nexlet-functions dev: development equipment\n")
    assert "NATS      nats://127.0.0.1:" in ended.out
    assert "invoked   orders  orders.price" in ended.out
    assert "          info  priced  items=2  net=23.25" in ended.out
    assert '"total": "27.67"' in ended.out
    assert ended.out.endswith("1 deployed, 0 refused, 0 not as expected\n")


async def test_what_is_refused_is_shown_and_does_not_hold_up_the_rest(live: StartLive, tmp_path: Path) -> None:
    for name in ("good", "raises", "unpacked"):
        nexfile = shutil.copytree(SAMPLES / "greet", tmp_path / "functions" / name) / "Nexfile"
        nexfile.write_text(nexfile.read_text().replace("name: greet", f"name: {name}"))
    (tmp_path / "functions" / "raises" / "function.py").write_text(
        "limit = 1 / 0\n\ndef handler(event, context):\n    pass\n"
    )
    (tmp_path / "functions" / "unpacked" / "Nexfile").write_text("name: x\n")
    dev = await live("dev", tmp_path / "functions", "--once", "-p", "0")
    assert await dev.ended() == 1
    assert [record["type"] for record in dev.records].count("refused") == 2
    raised = next(record for record in dev.of("refused") if "ZeroDivisionError" in record["text"])
    assert "function.py:1" in raised["text"]
    assert "limit = 1 / 0" in raised["text"]
    assert dev.of("summary") == [{"type": "summary", "deployed": 1, "refused": 2, "failed": 0}]


async def test_a_sample_that_differs_fails(live: StartLive, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "greet", tmp_path / "greet")
    event = {"json": {"name": "Ada"}, "expect": {"json": {"greeting": "Hi, Ada!"}}}
    (tmp_path / "greet" / "events" / "a-first.json").write_text(json.dumps(event))
    dev = await live("dev", tmp_path / "greet", "--once", "-p", "0")
    assert await dev.ended() == 1
    (sample,) = dev.of("sample")
    assert sample["differences"] == ['json.greeting: expected "Hi, Ada!", got "Hello, Ada!"']


async def test_a_port_that_is_taken_is_said(nats_server: EmbeddedServer, temporary: Path) -> None:
    port = nats_server.url.rpartition(":")[2]
    ended = await nexfn("dev", SAMPLES / "greet", "--port", port, env=environment(TMPDIR=str(temporary)))
    assert (ended.code, ended.error["code"]) == (1, "nats-server-failed")
    assert "address already in use" in ended.error["message"]
    assert list(temporary.iterdir()) == []


async def test_a_port_that_is_taken_meanwhile_is_another_one(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = int(nats_server.url.rpartition(":")[2])
    looks = iter((taken, -1))  # free at the first look
    monkeypatch.setattr(equipment, "DEFAULT_PORT", taken)
    monkeypatch.setattr(equipment, "_choose", lambda port: next(looks))
    async with AsyncExitStack() as stack:
        url = await equipment.start_server(stack, None)
        assert url != nats_server.url
        await (await nats.connect(url)).close()
    looks = iter((taken,))
    async with AsyncExitStack() as stack:
        with pytest.raises(CommandFailed, match="address already in use"):
            await equipment.start_server(stack, taken)


async def test_a_folder_without_functions_is_said(tmp_path: Path) -> None:
    ended = await nexfn("dev", tmp_path)
    assert (ended.code, ended.error["problems"][0]["message"]) == (1, "no Nexfile here")


async def test_a_level_that_is_none_is_said() -> None:
    ended = await nexfn("dev", SAMPLES / "greet", "--log-level", "loud", "-p", "0")
    assert (ended.code, ended.error["code"]) == (2, "invalid-log-level")
