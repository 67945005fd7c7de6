"""Nothing is shown that nothing looks at: each fenced block of each document is run, read, generated, or named here.

The second word of a block's info string says what reads it:

| kind | |
|---|---|
| `handler` | the source of a function: a worker loads it |
| `nexfile` | a Nexfile: read as `nexfn check` reads it |
| `settings` | a settings file, or a part of one |
| `event` | a sample event: the sample of `of=NAME` has to answer it as it says |
| `shape` | none of these: `SHOWN` has it by `of=NAME`, and the test that sees to it |

`console` blocks and files are for `test_walks.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexlet_functions.nexfile import read_function
from nexlet_functions.settings import Settings
from nexlet_functions.testing import load_function
from nexlet_functions.testing.events import read_event
from nexlet_sandboxes.profiles import PROFILES
from tests.support import session
from tests.support.documents import ROOT, Shown, blocks, pages

GENERATED = {
    "docs/language.md": "tests/sandboxes/language/test_constructs.py",
    "docs/modules.md": "tests/sandboxes/language/test_modules.py",
    "docs/cli.md": "tests/cli/test_commands.py",
    "docs/reference/settings.md": "tests/functions/test_settings_reference.py",
    "docs/reference/start-request.md": "tests/models/test_reference.py",
    "docs/performance.md": "tests/benchmarks/test_performance.py",
    str(session.PAGE.relative_to(ROOT)): "tests/docs/test_session.py",
}
"""Pages that are made, and the test that compares each with what it is made from (and runs what it shows)."""

SHOWN = {
    ("docs/local-loop.md", "redeployed"): "tests/docs/test_local_loop.py saves, and sees it",
    ("docs/local-loop.md", "recorded"): "tests/docs/test_local_loop.py records the same",
    ("docs/local-loop.md", "differs"): "tests/docs/test_local_loop.py makes it differ",
    ("docs/observing.md", "readyz"): "tests/docs/test_observing.py compares its fields with those that are told",
    ("docs/observing.md", "feed"): "tests/docs/test_observing.py compares its fields with those that are told",
    ("docs/operations.md", "nex.json"): "tests/docs/test_operations.py reads it as the node's settings",
    ("docs/operations.md", "unit"): "tests/docs/test_operations.py holds it against the unit in deploy/",
}
"""What is shown in another form, by page and the block's `of=`, and who sees to it."""

HANDLER_FOLDER = "name: shown\ntype: python\nlifecycle: function\nstart_request:\n  source_file: function.py\n"
EVERY = [(page, block) for page in pages() for block in blocks(page.read_text())]
KINDS = {"handler", "nexfile", "settings", "event", "shape"}


def ident(value: object) -> str:
    if isinstance(value, Path):
        return str(value.relative_to(ROOT))
    return str(value.line) if isinstance(value, Shown) else str(value)


def of_kind(*kinds: str) -> list[tuple[Path, Shown]]:
    return [(page, block) for page, block in EVERY if block.kind in kinds]


def unseen(page: Path, block: Shown) -> Iterator[str]:
    """Why nothing looks at a block; nothing where something does."""
    name = str(page.relative_to(ROOT))
    if name in GENERATED or block.commands:
        return
    if block.kind == "shape":
        if (name, block.options.get("of")) not in SHOWN:
            yield "no test is named for it in SHOWN"
    elif block.kind:
        if block.kind not in KINDS:
            yield f"nothing reads '{block.kind}'"
    elif not block.file:
        yield "it is neither run nor read"
    if block.file and not block.kind:
        others = [each for _, each in EVERY if _ == page]
        first = block.file.partition("/")[0]
        if not any(first in command.line for each in others for command in each.commands):
            yield f"no command uses {block.file}"


def test_every_block_is_run_or_read() -> None:
    found = [f"{page.relative_to(ROOT)}:{block.line}: {why}" for page, block in EVERY for why in unseen(page, block)]
    assert found == []


def test_the_exceptions_are_still_there() -> None:
    shapes = {(str(page.relative_to(ROOT)), block.options["of"]) for page, block in of_kind("shape")}
    assert shapes == set(SHOWN)
    for test in [*GENERATED.values(), *(who.split()[0] for who in SHOWN.values())]:
        assert (ROOT / test).is_file(), test
    assert set(GENERATED) <= {str(page.relative_to(ROOT)) for page in pages()}


@pytest.mark.parametrize(("page", "block"), of_kind("handler"), ids=ident)
def test_a_handler_is_one(page: Path, block: Shown, tmp_path: Path) -> None:
    (tmp_path / "Nexfile").write_text(HANDLER_FOLDER)
    (tmp_path / "function.py").write_text(block.text)
    with load_function(tmp_path) as function:
        assert function.load_logs == ()


@pytest.mark.parametrize(("page", "block"), of_kind("nexfile"), ids=ident)
def test_a_nexfile_is_one(page: Path, block: Shown, tmp_path: Path) -> None:
    (tmp_path / "Nexfile").write_text(block.text)
    (tmp_path / "function.py").write_text("def handler(event, context):\n    return None\n")
    assert read_function(tmp_path).start.triggers


@pytest.mark.parametrize(("page", "block"), of_kind("settings"), ids=ident)
def test_settings_are_settings(page: Path, block: Shown, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    # Folders and files that are named have to be there.
    file.write_text(re.sub(r"/(?:srv|etc)/[\w/.-]+", lambda path: f"{tmp_path}/{Path(path[0]).name}", block.text))
    for named in re.findall(r"/(?:srv|etc)/[\w/.-]+", block.text):
        Path(tmp_path, Path(named).name).touch() if "." in Path(named).name else Path(
            tmp_path, Path(named).name
        ).mkdir()
    assert Settings.read({"settings_file": file}) != Settings()


@pytest.mark.parametrize(("page", "block"), of_kind("event"), ids=ident)
def test_an_event_is_one(page: Path, block: Shown, tmp_path: Path) -> None:
    file = tmp_path / "events" / "shown.json"
    file.parent.mkdir()
    file.write_text(block.text)
    event = read_event(file)
    with load_function(ROOT / "samples" / block.options["of"]) as function:
        assert function.invoke(event).differences(event) == []


def test_what_is_shown_as_json_is_json() -> None:
    for page, block in of_kind("shape"):
        if block.text.startswith("{"):
            assert json.loads(block.text), page


def test_the_settings_file_of_the_guide_says_what_the_guide_says(tmp_path: Path) -> None:
    (block,) = [block for block in blocks((ROOT / "docs" / "operations.md").read_text()) if block.file]
    file = tmp_path / block.file
    file.write_text(block.text.replace("/srv/functions", str(tmp_path)))
    settings = Settings.read({"settings_file": file})
    assert settings.rules("acme").subjects == ("{namespace}.>",)
    assert settings.rules("internal").ceilings.timeout == 300.0
    assert settings.rules("internal").ceilings.memory == 256 * 1024 * 1024


def test_the_readme_names_every_profile_there_is() -> None:
    said = re.search(r"\*\*Sandbox profiles in this version: (.*?)\.\*\*", (ROOT / "README.md").read_text())
    assert said is not None
    assert re.findall(r"`([a-z-]+)`", said[1]) == list(PROFILES)
