"""How functions fare, in `nexfn dev`: a table on a terminal, lines in a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

from nexlet_functions.cli.devloop.spool import Spool
from nexlet_functions.cli.watching import _Crowd
from tests.cli.test_dev_saves import save, write
from tests.support.cli import nexfn, start_nexfn
from tests.support.documents import Background
from tests.support.live import StartLive
from tests.support.load import Load
from tests.support.terminal import terminal

FAILS = 'def handler(event, context):\n    print("seen")\n    raise ValueError("oh dear")\n'


async def test_a_table_on_a_terminal_with_the_log_below_it(tmp_path: Path) -> None:
    root = tmp_path / "functions"
    root.mkdir()
    greet = write(root / "greet", "1")
    write(root / "other", "1", name="other", subject="other.ask")
    async with terminal("dev", root, "-p", "0", "--text", lines=24) as screen:
        await screen.until("ready: 2 functions")
        await screen.until(r"NAME +STATE +RATE/S +P50 +P99 +ERRORS +IN FLIGHT +WORKERS +LAST")
        url = (await screen.until(r"nats://127\.0\.0\.1:\d+"))[0]
        assert (await nexfn("invoke", "-s", url, "greet.hello")).code == 0
        # The table, and below it what happened.
        row = r"greet +running +[\d.]+ +[\d.]+ ms +[\d.]+ ms +0 +0 +1/\d +ok (?:now|\d+ s ago) *\n"
        await screen.until(row + r"(?:.*\n){1,20}?.*ok +greet +greet\.hello")
        save(greet / "function.py", FAILS)
        await screen.until(r"redeployed greet in \d+ ms")
        assert (await nexfn("invoke", "-s", url, "greet.hello")).code == 1
        await screen.until(r"greet +running .* 1 +0 +1/\d +error (?:now|\d+ s ago): ValueError: oh dear")
        await screen.until("stdout +greet +seen")
        assert "?1049h" not in screen.raw, "what scrolled by stays in the terminal's own history"
        assert await screen.end() == 0
        await screen.until("stopping")
        assert screen.raw.count("\x1b[?25h") == screen.raw.count("\x1b[?25l"), "the cursor is given back"


HALF = """
def handler(event, context):
    print('{"level":"info","message":"half \\\\ud800","word":"\\\\ud800"}')
    return ""
"""
"""JSON may say half of a surrogate pair, which no encoding can write."""


async def test_no_line_of_a_function_ends_it(tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    (greet / "function.py").write_text(HALF)
    async with terminal("dev", greet, "-p", "0", "--text") as screen:
        await screen.until("ready: 1 function")
        url = (await screen.until(r"nats://127\.0\.0\.1:\d+"))[0]
        assert (await nexfn("invoke", "-s", url, "greet.hello")).code == 0
        await screen.until(r"info +greet +half \ufffd  word=\ufffd")
        assert (await nexfn("invoke", "-s", url, "greet.hello")).code == 0
        assert await screen.end() == 0


async def test_more_than_fits_is_left_out_and_said(tmp_path: Path) -> None:
    root = tmp_path / "functions"
    root.mkdir()
    for number in range(12):
        write(root / f"f{number}", "1", name=f"f{number}", subject=f"f.{number}")
    async with terminal("dev", root, "-p", "0", "--text", lines=20) as screen:
        await screen.until("and 5 more that are less busy")
        assert await screen.end() == 0


async def test_without_colour_nothing_is_coloured(tmp_path: Path) -> None:
    async with terminal("dev", write(tmp_path / "greet", "1"), "-p", "0", "--text", NO_COLOR="1") as screen:
        await screen.until("NAME +STATE")
        assert "\x1b[3" not in screen.raw
        assert await screen.end() == 0


async def test_a_terminal_that_cannot_be_steered_gets_lines(tmp_path: Path) -> None:
    folder = write(tmp_path / "greet", "1")
    async with terminal("dev", folder, "-p", "0", "--text", "--interval", "50ms", TERM="dumb") as screen:
        await screen.until("ready: 1 function")
        url = (await screen.until(r"nats://127\.0\.0\.1:\d+"))[0]
        await nexfn("invoke", "-s", url, "greet.hello")
        await screen.until(r"activity +greet +\d.*/s")
        assert "\x1b" not in screen.raw
        assert await screen.end() == 0


async def test_lines_in_a_pipe(live: StartLive, tmp_path: Path) -> None:
    folder = write(tmp_path / "greet", "1")
    dev = Background(await start_nexfn("dev", folder, "-p", "0", "--text", "--interval", "50ms"))
    await dev.until("...ready: 1 function...What happens, as it does:\n...")
    url = next(word for word in dev.out.split() if word.startswith("nats://"))
    await nexfn("invoke", "-s", url, "greet.hello")
    await dev.until("...\nactivity  greet  .../s  p50 ... ms  p99 ... ms  errors 0  in flight 0  last ok ...\n...")
    assert "\x1b" not in dev.out
    assert await dev.end() == 0

    programs = await live("dev", folder, "-p", "0", "--interval", "50ms")
    url = (await programs.until("ready"))["url"]
    await nexfn("invoke", "-s", url, "greet.hello")
    row = await programs.until("activity")
    assert (row["name"], row["last_outcome"], row["invocations"], row["errors"]) == ("greet", "ok", 1, 0)
    assert await programs.end() == 0


async def test_what_others_deploy_has_its_name_as_well(live: StartLive, tmp_path: Path) -> None:
    dev = await live("dev", write(tmp_path / "greet", "1"), "-p", "0", "--interval", "50ms")
    url = (await dev.until("ready"))["url"]
    elsewhere = write(tmp_path / "elsewhere", "2", name="theirs", subject="theirs.ask")
    deployed = await nexfn("deploy", "-s", url, "-n", "demo", "--nodes", "1", elsewhere)
    assert deployed.code == 0
    await nexfn("invoke", "-s", url, "theirs.ask")
    assert (await dev.until("activity", name="theirs"))["id"] == deployed.records[0]["id"]
    assert await dev.end() == 0


async def test_more_than_can_be_read_is_left_out_for_people_alone(live: StartLive, tmp_path: Path) -> None:
    folder = write(tmp_path / "greet", "1")
    dev = Background(await start_nexfn("dev", folder, "-p", "0", "--text", "--interval", "1h"))
    await dev.until("...ready: 1 function...What happens, as it does:\n...")
    url = next(word for word in dev.out.split() if word.startswith("nats://"))
    async with Load(url, "greet.hello", at_once=32) as load:
        await load.more(400)
        await dev.until("... more invocations, too many to be read\n...")
    assert await dev.end() == 0

    programs = await live("dev", folder, "-p", "0")
    url = (await programs.until("ready"))["url"]
    async with Load(url, "greet.hello", at_once=32) as load:
        await load.more(400)
    assert await programs.end() == 0
    assert len(programs.of("invocation")) == load.answered


def test_a_crowd_is_let_through_by_the_second() -> None:
    crowd = _Crowd()
    assert [crowd.admit("log", 0.5) for _ in range(60)] == [(True, 0)] * 50 + [(False, 0)] * 10
    assert crowd.admit("invocation", 0.5) == (True, 0), "each kind by itself"
    assert crowd.admit("log", 1.6) == (True, 10)
    assert crowd.admit("log", 9.0) == (True, 0)


async def test_who_does_not_read_holds_up_no_function(live: StartLive, tmp_path: Path) -> None:
    dev = await live("dev", write(tmp_path / "greet", "1"), "-p", "0")
    url = (await dev.until("ready"))["url"]
    async with Load(url, "greet.hello", at_once=16) as load:
        await load.more(3_000)  # some 700 KB of lines, ten times what a pipe and its reader hold
    assert await dev.end() == 0
    assert len(dev.of("invocation")) == load.answered, "and they are there for whoever reads later"


async def test_without_anybody_who_reads_it_ends(tmp_path: Path) -> None:
    process = await start_nexfn("dev", write(tmp_path / "greet", "1"), "-p", "0", "--interval", "1h")
    assert process.stdout is not None
    while b'"ready"' not in (line := await process.stdout.readline()):
        assert line
    url = json.loads(line)["url"]
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head` does it
    await nexfn("invoke", "-s", url, "greet.hello")
    async with asyncio.timeout(30):
        assert await process.wait() == 0


def test_what_nobody_reads_has_a_bound() -> None:
    reading, writing = os.pipe()
    closed = threading.Event()
    with Spool(writing, left_out=lambda count: f"{count} left out\n", on_closed=closed.set, most=100) as spool:
        for _ in range(20_000):
            spool.put("0123456789\n")
        got = b""
        while b" left out\n" not in got:
            spool.put("more\n")  # with the first that finds room comes how many did not
            got = got[-40:] + os.read(reading, 1 << 16)
        os.close(reading)
        while not closed.wait(0.01):
            spool.put("nobody reads this\n")
    os.close(writing)
