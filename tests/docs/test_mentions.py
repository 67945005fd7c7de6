"""What documents mention within a line is there: commands and their options, targets of make, modules, files, links."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.cli.app import COMMANDS, load_command
from nexlet_functions.settings import PREFIX, Settings
from tests.support.documents import ROOT, blocks, pages

PAGES = pages()
PACKAGES = [ROOT / "nexlet_functions", ROOT / "models", ROOT / "sandboxes"]
_FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def ident(page: Path) -> str:
    return str(page.relative_to(ROOT))


def spans(page: Path) -> Iterator[str]:
    """What stands between backquotes, in a line of its own or within one, but for blocks."""
    for span in _SPAN.findall(_FENCED.sub("", page.read_text())):
        yield " ".join(span.split())


def module_at(path: str) -> bool:
    """Whether one of the packages has a file of that path, said from where it is clear."""
    return any(list(folder.glob(f"**/{path}")) for folder in PACKAGES)


def anchor(heading: str) -> str:
    """What a heading is linked to as."""
    text = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower())
    return re.sub(r"\s", "-", text.strip())


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text()), re.M)}


def options(command: Any) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_commands_and_their_options_are_there(page: Path) -> None:
    unknown = []
    for span in spans(page):
        words = re.match(r"(?:nexfn|nexlet-functions) ([a-z]+)\b(.*)", span)
        if words is None:
            continue
        if words[1] not in COMMANDS:
            unknown.append(span)
            continue
        known = options(load_command(words[1]))
        unknown += [
            f"{span}: {each}" for each in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", words[2]) if each not in known
        ]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_variables_are_those_of_settings_or_commands(page: Path) -> None:
    of_commands = {
        name
        for command in COMMANDS
        for each in load_command(command).params
        for name in ([each.envvar] if isinstance(each.envvar, str) else each.envvar or ())
    }
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = {name for span in spans(page) for name in re.findall(r"\bNEXFN_[A-Z_]*[A-Z]\b", span)}
    assert named - of_commands - settings - {"NEXFN_HEADER"} == set()


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_targets_modules_and_files_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = {block.file for block in blocks(page.read_text())}
    missing = []
    for span in spans(page):
        if span in shown or (page.parent / span).exists():
            continue
        if target := re.match(r"make ([a-z]+)", span):
            missing += [span] * (target[1] not in targets)
        elif module := re.match(r"python -m ((?:nexlet_|tests\.|benchmarks)[\w.]*)", span):
            missing += [span] * (importlib.util.find_spec(module[1]) is None)
        elif re.fullmatch(r"(tests|models|sandboxes|nexlet_functions|samples|deploy|benchmarks)/[\w./*-]*", span):
            missing += [span] * (not list(ROOT.glob(span.rstrip("/"))) and not module_at(span))
        elif re.fullmatch(r"\w+/[\w/]+\.py", span):
            missing += [span] * (not module_at(span))
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_links_lead_somewhere(page: Path) -> None:
    missing = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, place = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (place and place not in anchors(target)):
            missing.append(link)
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text()) if "://" not in link}
    assert [ident(page) for page in PAGES if page != index and page.resolve() not in linked] == []
