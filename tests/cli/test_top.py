"""`nexfn top` as a process: functions that are invoked while it watches, on a pipe and on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.cli import PROGRAM, environment, nexfn, start_nexfn
from tests.support.live import StartLive
from tests.support.nexlets import NAMESPACE, NexletBench, deploy, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.terminal import terminal

WORKS = """
def handler(event, context):
    if event.text == "fail":
        raise ValueError("oh dear")
    return event.text
"""


def options(bench: NexletBench, *more: str) -> tuple[str, ...]:
    return ("top", "-s", bench.server.url, "-n", NAMESPACE, "--nodes", "1", "--interval", "200ms", *more)


async def test_functions_fare_as_they_are_invoked(bench: NexletBench, live: StartLive) -> None:
    works = await deploy(bench.control, WORKS, name="works", triggers=["works"])
    idle = await deploy(bench.control, WORKS, name="idle", triggers=["idle"])
    top = await live(*options(bench))
    await top.until("function", id=works)
    for _ in range(5):
        await bench.ask("works", b"fine")
    await bench.ask("works", b"fail")
    row = await top.until("function", id=works, invocations=6, last_outcome="error")
    assert (row["name"], row["namespace"], row["state"]) == ("works", NAMESPACE, "running")
    assert (row["errors"], row["failed"], row["in_flight"], row["workers"]) == (1, 1, 0, 1)
    assert row["rate"] > 0
    assert row["p99_ms"] >= row["p50_ms"] > 0
    assert row["last_error"] == "ValueError: oh dear"
    quiet = await top.until("function", id=idle)
    assert (quiet["rate"], quiet["errors"]) == (0.0, 0)
    assert "last_outcome" not in quiet

    # What comes is shown, and what goes is not.
    await bench.control.stop(idle)
    late = await deploy(bench.control, WORKS, name="late", triggers=["late"])
    await top.until("function", id=late, name="late")
    seen = len(top.records)
    await top.until("function", id=late)
    await top.until("function", id=late)
    assert idle not in {record["id"] for record in top.records[seen:]}
    assert await top.end() == 0


async def test_once_for_people_and_for_programs(bench: NexletBench) -> None:
    works = await deploy(bench.control, WORKS, name="works", triggers=["works"])
    other = await deploy(bench.control, WORKS, name="other", triggers=["other"])
    shown = await nexfn(*options(bench, "--once", "--text"))
    assert shown.code == 0, shown.err
    headline, head, *rows = shown.out.splitlines()
    assert headline.endswith(f"namespace {NAMESPACE}: 2 functions, 0.0/s, no errors in the last minute")
    assert head.split() == ["NAME", "ID", "STATE", "RATE/S", "P50", "P99", "ERRORS", "IN", "FLIGHT", "WORKERS", "LAST"]
    assert [row.split()[:4] for row in rows] == [["other", other, "running", "0"], ["works", works, "running", "0"]]
    for more in (("--format", "json"), ("--json",), ()):
        named = await nexfn(*options(bench, "--once", "works", *more))
        assert [(record["type"], record["id"]) for record in named.records] == [("function", works)]
    unknown = await nexfn(*options(bench, "--once", "work"))
    assert (unknown.code, unknown.error["code"]) == (1, "unknown-workload")
    assert "did you mean works?" in unknown.error["message"]


async def test_a_terminal_that_cannot_be_steered_gets_lines(bench: NexletBench) -> None:
    await deploy(bench.control, WORKS, name="works", triggers=["works"])
    async with terminal(*options(bench, "--text"), TERM="dumb") as screen:
        await screen.until(r"1 function, .*\n.*NAME(?:.*\n.*works.*\n)")
        assert await screen.end() == 0


@pytest.mark.parametrize("how", ["--json", "--text"])
async def test_without_anybody_who_reads_it_ends(bench: NexletBench, how: str) -> None:
    await deploy(bench.control, WORKS, name="works", triggers=["works"])
    process = await start_nexfn(*options(bench, how))
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head` does it
    async with asyncio.timeout(30):
        assert await process.stderr.read() == b""
        assert await process.wait() == 1


async def test_on_a_terminal_it_draws_a_table_and_gives_the_terminal_back(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node) as bench:
            await deploy(bench.control, WORKS, name="works", triggers=["works"])
            ours, its = pty.openpty()
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(PROGRAM), *options(bench, "--text"),
                stdin=its, stdout=its, stderr=subprocess.PIPE, env=environment(TERM="xterm", COLUMNS="130"),
                start_new_session=True,
            )  # fmt: skip
            os.close(its)
            screen = bytearray()
            shown = asyncio.Event()

            def read() -> None:
                try:
                    screen.extend(os.read(ours, 65536))
                except OSError:  # how Linux says that the other end is closed
                    asyncio.get_running_loop().remove_reader(ours)
                if screen.count(b"works") >= 2:
                    shown.set()

            asyncio.get_running_loop().add_reader(ours, read)
            async with asyncio.timeout(60):
                await shown.wait()
                process.send_signal(signal.SIGINT)
                _, err = await process.communicate()
            asyncio.get_running_loop().remove_reader(ours)
            os.close(ours)
            assert (process.returncode, err) == (0, b"")
            assert b"IN FLIGHT" in screen
            assert b"\x1b[?1049h" in screen, "it takes a screen of its own"
            assert b"\x1b[?1049l" in screen, "and gives the other one back"
    finally:
        await node.stop()


NO_EVENTS = """
authorization { users: [
  { user: all, password: p }
  { user: eve, password: p, permissions: { publish: [">"], subscribe: ["_INBOX.>"] } }
  { user: own, password: p, permissions: { publish: [">"], subscribe: ["_INBOX.>", "$NEX.FEED.acme.>"] } }
] }
"""


async def test_without_events_the_nexlets_own_counts_are_shown(tmp_path: Path) -> None:
    async with EmbeddedServer(config=NO_EVENTS, jetstream=False) as server:
        url = server.url.replace("//", "//all:p@")
        node = StandIn(url, tmp_path)
        await node.start()
        try:
            async with nexlet_bench(server, node, url=url, servers=url) as bench:
                works = await deploy(bench.control, WORKS, name="works", triggers=["works"])
                await bench.ask("works", b"fine")
                for user, errors in (("eve", False), ("own", True)):
                    env = environment(NATS_URL=server.url.replace("//", f"//{user}:p@"))
                    arguments = ("top", "-n", NAMESPACE, "--nodes", "1", "--interval", "100ms", "--once")
                    seen = await nexfn(*arguments, env=env)
                    assert seen.code == 0, seen.err
                    assert seen.records[0] | {"time": ""} == seen.records[0] | {
                        "type": "function", "id": works, "invocations": 1, "in_flight": 0, "time": "",
                    }  # fmt: skip
                    incomplete = [record["reason"] for record in seen.records if record["type"] == "incomplete"]
                    assert bool(incomplete) is not errors
        finally:
            await node.stop()
