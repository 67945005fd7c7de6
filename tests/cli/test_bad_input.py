"""What people get wrong: one message with its place and the next step, the same from every command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.testing import load_function
from tests.support.cli import PROGRAM, environment, nexfn

NEXFILE = """\
name: demo
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [demo.run]
"""


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A function that is fine."""
    return demo_in(tmp_path / "demo")


def demo_in(folder: Path) -> Path:
    (folder / "events").mkdir(parents=True)
    (folder / "Nexfile").write_text(NEXFILE)
    (folder / "function.py").write_text("def handler(event, context):\n    pass\n")
    return folder


def nexfile(old: str, new: str) -> tuple[str, str]:
    return "Nexfile", NEXFILE.replace(old, new)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a NATS server where a node and a nexlet take what is deployed."""
    folder = demo_in(tmp_path_factory.mktemp("running") / "demo")
    command = [sys.executable, str(PROGRAM), "dev", "--port", "0", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), start_new_session=True) as process:
        assert process.stdout is not None
        records = (json.loads(line) for line in process.stdout)
        yield next(record["url"] for record in records if record["type"] == "ready")
        process.terminate()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (nexfile("  source_file", "\tsource_file"), [(5, "a tab where YAML wants spaces", "indent with spaces")]),
        (
            nexfile("name: demo\n", "name: demo\nname: other\n"),
            [(2, "'name' stands here a second time; the first is on line 1", "keep one of the two")],
        ),
        (
            ("Nexfile", NEXFILE + "  trigger: x\ntimeout: 3s\nlabels: {}\n"),
            [(7, "unknown key 'trigger'", "did you mean triggers?"),
             (8, "unknown key 'timeout'", "'timeout' belongs below 'limits' of 'start_request'"),
             (9, "unknown key 'labels'", "known are:")],
        ),
        (nexfile("name: demo", "name: my demo"), [(1, "'my demo' cannot be a function's name: it has white", "use")]),
        (nexfile("name: demo", "name: größe"), [(1, "it has 'ö' in it", "use letters, digits, '-', '_' and '.'")]),
        (nexfile("name: demo", "name: 42"), [(1, "'name' is a number, not text", "put it in quotes")]),
        (nexfile("name: demo", "name:"), [(1, "'name' is nothing, not text", "what the function is called")]),
        (
            ("function.py", "def handler(event, context):\n    pass\n\ndef handler(event, context):\n    pass\n"),
            [(4, "'handler' is defined a second time; the first is on line 1", "keep one of them")],
        ),
    ],
    ids=["tab", "twice", "unknown", "name", "umlaut", "number", "nothing", "handlers"],
)  # fmt: skip
async def test_every_command_says_the_same(
    demo: Path, running: str, wrong: tuple[str, str], said: list[tuple[int, str, str]]
) -> None:
    name, text = wrong
    (demo / name).write_text(text)
    commands = [
        ("check", demo),
        ("invoke", "--local", demo),
        ("deploy", "-s", running, "-n", "demo", "--nodes", "1", demo),
    ]
    if name == "Nexfile":  # packing does not judge the source
        commands.append(("pack", demo))
    checked, *others = await asyncio.gather(*(nexfn(*command) for command in commands))
    problems: list[dict[str, Any]] = checked.records[0]["problems"]
    assert [(each["place"], each["line"]) for each in problems] == [(name, line) for line, _, _ in said]
    for problem, (_, message, advice) in zip(problems, said, strict=True):
        assert message in problem["message"]
        assert advice in problem["advice"]
    for ended in others:
        assert (ended.code, ended.out) == (1, "")
        assert ended.error.get("problems", problems) == problems
        assert_says(ended.error, problems)


def assert_says(error: Mapping[str, Any], problems: Sequence[Mapping[str, Any]]) -> None:
    """A node's refusal is one text; it has all that the problems have."""
    if "problems" not in error:
        for problem in problems:
            assert f"{problem['place']}:{problem['line']}:{problem['column']}  {problem['message']}" in error["message"]
            assert problem["advice"] in error["message"]


async def test_dev_says_it_for_each_and_goes_on(tmp_path: Path) -> None:
    wrong = {
        "tab": nexfile("  source_file", "\tsource_file"),
        "twice": nexfile("name: demo\n", "name: demo\nname: other\n"),
        "handlers": ("function.py", "def handler(event, context):\n    pass\n\ndef handler(a, b):\n    pass\n"),
    }
    for name in (*wrong, "event"):
        # Each with a name of its own: two of one name are refused for that.
        manifest = demo_in(tmp_path / name) / "Nexfile"
        manifest.write_text(manifest.read_text().replace("name: demo", f"name: {name}"))
    for name, (file, text) in wrong.items():
        (tmp_path / name / file).write_text(text.replace("name: demo", f"name: {name}"))
    (tmp_path / "event" / "events" / "a.json").write_text("{'json': 1}")
    checked = await nexfn("check", tmp_path)
    ended = await nexfn("dev", "--once", "--port", "0", tmp_path)
    assert ended.code == 1
    told = "\n".join(record["text"] for record in ended.records if record["type"] == "refused")
    for record in checked.records:
        for problem in record["problems"]:
            assert f"{problem['place']}:{problem['line']}:{problem['column']}  {problem['message']}" in told
            assert problem["advice"] in told
    assert [record["deployed"] for record in ended.records if record["type"] == "summary"] == [1]


RESULTS = """\
import datetime

def endless():
    a = []
    a.append(a)
    return a

def handler(event, context):
    return {
        "a set": lambda: {1, 2},
        "a date": lambda: [datetime.date(2024, 1, 1)],
        "NaN": lambda: {"a": float("nan")},
        "a generator": lambda: (n for n in [1]),
        "itself": lambda: handler,
        "what holds itself": endless,
        "bytes within": lambda: {"a": b"1"},
    }[event.text]()
"""
SAID = {
    "a set": "holds a set, which is not JSON; return a list: sorted(value)",
    "a date": "holds a datetime.date, which is not JSON; return value.isoformat()",
    "NaN": "holds nan, which is not JSON; return None or a text instead",
    "a generator": "holds a generator, which is not JSON; return a list: list(value)",
    "itself": "holds a function, which is not JSON; return None, bytes, str, or what JSON can say",
    "what holds itself": "holds itself, or is nested more than",
    "bytes within": "holds a bytes, which is not JSON; inside JSON bytes need a text form",
}


async def test_what_cannot_be_an_answer_is_said_wherever_it_is_asked_for(demo: Path, running: str) -> None:
    (demo / "function.py").write_text(RESULTS)
    async with load_function(demo) as function:
        told = {what: await function.invoke(data=what) for what in SAID}
    for what, said in SAID.items():
        assert said in told[what].error
        assert (told[what].outcome, told[what].code) == ("error", 500)
    deployed = await nexfn("deploy", "-s", running, "-n", "demo", "--nodes", "1", demo)
    assert deployed.code == 0, deployed.err
    ways = (("--local", demo, "demo.run"), ("-s", running, "demo.run"))
    asked = [("invoke", *how, what) for what in ("a set", "itself") for how in ways]
    for command, ended in zip(asked, await asyncio.gather(*(nexfn(*each) for each in asked)), strict=True):
        (answer,) = ended.records
        assert (ended.code, answer["code"], answer["error"]) == (1, 500, told[str(command[-1])].error)


async def test_events_that_are_not_json_are_all_told_at_once(demo: Path) -> None:
    (demo / "events" / "a.json").write_text("{'json': 1}")
    (demo / "events" / "b.json").write_text('{\n  "json": 1,\n}')
    (demo / "events" / "c.json").write_text('{"json": NaN}')
    (demo / "events" / "d.json").write_text("hello")
    checked, invoked = await asyncio.gather(nexfn("check", demo), nexfn("invoke", "--local", demo, "--event", "c"))
    problems = checked.records[0]["problems"]
    assert [(each["place"], each["line"], each["column"], each["advice"]) for each in problems] == [
        ("events/a.json", 1, 2, "JSON has double quotes"),
        ("events/b.json", 2, 12, "take the comma away"),
        ("events/c.json", 1, 10, "JSON has no NaN: write null, or a text"),
        ("events/d.json", 1, 1, 'an event is written as {"json": {...}}'),
    ]
    assert invoked.error["problems"] == [problems[2]]


async def test_what_is_printed_cannot_steer_the_terminal(demo: Path) -> None:
    (demo / "function.py").write_text(
        "def handler(event, context):\n    print(b'\\xff')\n    print('\\x1b[31mred \\ud800')\n"
        "    return b'\\x1b\\xff'\n"
    )
    ended = await nexfn("invoke", "--local", demo, "--text")
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out
    assert ended.out.splitlines()[:2] == ["G/8=", "stdout   b'\\xff'"]
