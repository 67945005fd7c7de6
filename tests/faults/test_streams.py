"""A stream of twenty thousand messages, while workers, nexlet and server are killed: nothing is lost, nothing doubled.

Each message leads to one result in another stream, or to a dead letter; some of them fail whenever they are tried. What
is killed, and when, follows from a seed, which is printed with the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors
import orjson
import pytest
from nats.aio.client import Client

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.streams.letters import PREFIX
from tests.support.cli import PROGRAM, environment
from tests.support.nexlets import deploy
from tests.support.polling import eventually
from tests.support.processes import descendants

MESSAGES = 20_000
POISON = 400
"""One of so many fails whenever it is tried."""

FAULTS = 14
SOURCE = f"""
def handler(event, context):
    number = int(event.text)
    if number % {POISON} == 0:
        raise ValueError(f"cannot do {{number}}")
    context.publish(f"out.{{number}}", event.data)
"""
TRIGGER = {
    "stream": "IN",
    "ack_wait": "2s",
    "max_deliver": 4,
    "backoff": ["100ms"],
    "dead_letter": "dead.in",
}


@pytest.mark.faults
@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_message_has_one_end(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)  # so that a failure can be seen again
    killed: Counter[str] = Counter()
    async with (
        EmbeddedServer() as server,
        await DevNode.start(server.url) as node,
        _nexlets(server, tmp_path) as start,
    ):
        client = await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_quiet)
        await _make_streams(client)
        up = await start()
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="a nexlet has registered")
        await _publish(client)
        control = ControlClient(client, "demo", nodes=1)
        await deploy(control, SOURCE, name="work", triggers=[TRIGGER], grants={"publish": ["out.*"]})
        began = time.monotonic()
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            what = chance.choices(("worker", "nexlet", "server"), (4, 3, 2))[0]
            killed[what] += 1
            if what == "worker":
                _kill_worker(up, chance)
            elif what == "server":
                await server.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                await server.start()
            else:
                up.kill()
                await up.wait()
                up = await start()
        await _all_ended(client)
        took = time.monotonic() - began
        results, letters = await _results(client), await _letters(client)
        await client.close()
        up.terminate()
        assert await up.wait() == 0
    both = [number for number in results if number in letters]
    print(
        f"seed {seed}: {MESSAGES} messages in {took:.0f} s, killed: {dict(killed)}; "
        f"{len(results)} with a result, {len(letters)} dead letters, {len(both)} with both, "
        f"{sum(letters.values()) - len(letters)} letters twice"
    )
    missing = [number for number in range(MESSAGES) if number not in results and number not in letters]
    assert missing == [], "each has a result or a letter"
    assert [number for number, count in results.items() if count != 1] == [], "none has two results"
    assert set(range(0, MESSAGES, POISON)) <= set(letters), "what always fails is a letter"
    assert not set(range(0, MESSAGES, POISON)) & set(results)
    assert [number for number, count in letters.items() if count != 1] == [], "and none is two"


async def _quiet(error: Exception) -> None:
    """A client whose server is killed has errors."""


async def _make_streams(client: Client) -> None:
    stream = client.jetstream()
    for name, subject in (("IN", "in"), ("OUT", "out.*"), ("DEAD", "dead.*")):
        await stream.add_stream(name=name, subjects=[subject], duplicate_window=1800)


async def _publish(client: Client) -> None:
    stream = client.jetstream()
    for first in range(0, MESSAGES, 500):
        await asyncio.gather(*(stream.publish("in", b"%d" % n) for n in range(first, first + 500)))


@contextlib.asynccontextmanager
async def _nexlets(
    server: EmbeddedServer, folder: Path
) -> AsyncIterator[Callable[[], Awaitable[asyncio.subprocess.Process]]]:
    """Starts a nexlet that goes on with what the one before it ran. It may be killed before it has come to that."""
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        with (folder / "nexlet.log").open("ab") as log:
            command = [str(PROGRAM), "up", "-s", server.url, "--state-dir", str(folder / "state")]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _kill_worker(up: asyncio.subprocess.Process, chance: random.Random) -> None:
    """One of the zygote's children; there may be none at the moment."""
    zygotes = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    workers = sorted(one for zygote in zygotes for one in descendants(int(zygote)))
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers)[0], signal.SIGKILL)


async def _asked(client: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """An answer of JetStream, however long the server takes to have its streams back."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(nats.errors.Error):
                answer = await client.request(f"$JS.API.{subject}", orjson.dumps(body), timeout=5)
                said: dict[str, Any] = orjson.loads(answer.data)
                if "error" not in said:
                    return said
            await asyncio.sleep(0.1)


async def _all_ended(client: Client) -> None:
    async with asyncio.timeout(240):
        while True:
            info = await _asked(client, "CONSUMER.INFO.IN.demo-work", {})
            if not info["num_pending"] and not info["num_ack_pending"]:
                return
            await asyncio.sleep(0.2)


async def _results(client: Client) -> dict[int, int]:
    """How many results each message has."""
    counts: dict[int, int] = {}
    offset = 0
    while True:
        said = await _asked(client, "STREAM.INFO.OUT", {"subjects_filter": ">", "offset": offset})
        subjects = said["state"].get("subjects") or {}
        counts |= {int(subject.partition(".")[2]): count for subject, count in subjects.items()}
        offset += len(subjects)
        if not subjects or offset >= said["state"]["num_subjects"]:
            return counts


async def _letters(client: Client) -> dict[int, int]:
    """How many dead letters each message has."""
    stream = client.jetstream()
    last = (await stream.stream_info("DEAD")).state.last_seq
    found: Counter[int] = Counter()
    for sequence in range(1, last + 1):
        message = await stream.get_msg("DEAD", sequence)
        assert message.headers is not None
        assert message.headers[f"{PREFIX}Stream"] == "IN"
        found[int(message.data or b"")] += 1
    return dict(found)
