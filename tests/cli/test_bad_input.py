"""What people get wrong: one message with its place and the next step, the same from every command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import nexfn

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
    folder = tmp_path / "demo"
    (folder / "events").mkdir(parents=True)
    (folder / "Nexfile").write_text(NEXFILE)
    (folder / "function.py").write_text("def handler(event, context):\n    pass\n")
    return folder


def nexfile(old: str, new: str) -> tuple[str, str]:
    return "Nexfile", NEXFILE.replace(old, new)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (nexfile("  source_file", "\tsource_file"), [(5, "a tab where YAML wants spaces", "indent with spaces")]),
        (
            nexfile("name: demo\n", "name: demo\nname: other\n"),
            [(2, "'name' stands here a second time; the first is on line 1", "keep one of the two")],
        ),
        (
            ("Nexfile", NEXFILE.replace("name: demo", "name: my demo") + "  trigger: x\ntimeout: 3s\n"),
            [(1, "has white space in it", "use letters"), (7, "unknown key 'trigger'", "did you mean triggers?"),
             (8, "unknown key 'timeout'", "known are:")],
        ),
        (
            ("function.py", "def handler(event, context):\n    pass\n\ndef handler(event, context):\n    pass\n"),
            [(4, "'handler' is defined a second time; the first is on line 1", "keep one of them")],
        ),
    ],
    ids=["tab", "twice", "unknown", "handlers"],
)  # fmt: skip
async def test_every_command_says_the_same(
    demo: Path, wrong: tuple[str, str], said: list[tuple[int, str, str]]
) -> None:
    name, text = wrong
    (demo / name).write_text(text)
    commands = [("check", demo), ("invoke", "--local", demo)]
    if name == "Nexfile":  # packing does not judge the source
        commands.append(("pack", demo))
    checked, *others = await asyncio.gather(*(nexfn(*command) for command in commands))
    problems: list[dict[str, Any]] = checked.records[0]["problems"]
    assert [(each["place"], each["line"]) for each in problems] == [(name, line) for line, _, _ in said]
    for problem, (_, message, advice) in zip(problems, said, strict=True):
        assert message in problem["message"]
        assert advice in problem["advice"]
    for ended in others:
        assert (ended.code, ended.out, ended.error["problems"]) == (1, "", problems)


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
