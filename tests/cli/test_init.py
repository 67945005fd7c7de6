"""`nexfn init` as a process: what it makes passes its own test, the check, and a deployment's sample."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from nexlet_functions.cli.init import TEMPLATES
from tests.support.cli import environment, nexfn


async def test_every_template_passes_its_own_tests_and_the_check(tmp_path: Path) -> None:
    names = [f"my-{template}" for template in TEMPLATES]
    for template, name in zip(TEMPLATES, names, strict=True):
        (record,) = (await nexfn("init", name, "--template", template, cwd=tmp_path)).records
        assert (record["type"], record["name"], record["template"]) == ("created", name, template)
        made = {str(each.relative_to(tmp_path / name)) for each in (tmp_path / name).rglob("*") if each.is_file()}
        assert made == set(record["files"])
        assert {"function.py", "Nexfile", f"test_my_{template}.py", ".vscode/settings.json"} <= made
        assert not [file for file in made if "@NAME@" in (tmp_path / name / file).read_text()]
    checked = await nexfn("check", tmp_path)
    assert (checked.code, [record["events"] for record in checked.records]) == (0, [2] * len(names)), checked.out
    # Beside each other, with nothing set up: the plugin comes with the package.
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path, env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await ran.communicate()
    assert ran.returncode == 0, out.decode()
    assert b"12 passed" in out


async def test_the_editors_task_finds_the_places_in_what_check_says(tmp_path: Path) -> None:
    assert (await nexfn("init", "demo", cwd=tmp_path)).code == 0
    (task,) = json.loads((tmp_path / "demo" / ".vscode" / "tasks.json").read_text())["tasks"]
    assert (task["command"], task["args"][:2]) == ("nexfn", ["check", "--watch"])
    (tmp_path / "demo" / "function.py").write_text("x = 1\nimport os\n\ndef handler(event, context):\n    pass\n")
    arguments = [each for each in task["args"] if each != "--watch"]
    said = (await nexfn(*arguments, cwd=tmp_path / "demo")).out
    pattern = task["problemMatcher"]["pattern"]["regexp"]
    assert re.findall(pattern, said, re.M) == [("function.py", "2", "1", "import of 'os' is not allowed here")]


async def test_a_folder_that_is_empty_may_be_there(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    ended = await nexfn("init", ".", "--text", cwd=folder)
    assert ended.code == 0, ended.err
    assert "name: here\n" in (folder / "Nexfile").read_text()
    assert "cd " not in ended.out


async def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("mine", "file"):
        ended = await nexfn("init", name, cwd=tmp_path)
        assert (ended.code, ended.out, ended.error["code"]) == (2, "", "folder-not-empty")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes"]
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "name-missing"),
        (["a b"], "invalid-name"),
        (["orders.eu"], "invalid-name"),
        (["x", "--template", "nothing"], "unknown-template"),
    ],
)
async def test_what_cannot_be_made_is_said_before_anything_is(tmp_path: Path, arguments: list[str], code: str) -> None:
    ended = await nexfn("init", *arguments, cwd=tmp_path)
    assert (ended.code, ended.error["code"]) == (2, code)
    assert ended.error["advice"]
    assert list(tmp_path.iterdir()) == []


async def test_the_templates_are_listed() -> None:
    records = (await nexfn("init", "--list")).records
    assert [record["name"] for record in records] == list(TEMPLATES)
    assert all(record["description"] for record in records)
