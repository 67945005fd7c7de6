"""The pictures of docs/architecture.md: made anew they are the same, and they show the packages as they are."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import grimp
import pytest

from tests.support.documents import ROOT
from tests.support.pictures import LAYERS, PICTURES, drawn

PACKAGES = ("nexlet_models", "nexlet_sandboxes", "nexlet_functions")
HERE = {"nexlet_models": "nexlet_models", "pool, link, zygote": "nexlet_sandboxes"}
"""What stands for the modules of a package that are in none of its subpackages."""


def placed() -> dict[str, int]:
    """The import name of each box, and its row from the top."""
    found: dict[str, int] = {}
    row = 0
    for title, rows in LAYERS.items():
        package = title.partition(":")[0]
        for boxes in rows:
            found |= {HERE.get(name, f"{package}.{name}"): row for name in boxes}
            row += 1
    return found


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.name)
def test_a_picture_is_what_it_is_made_from(file: Path) -> None:
    assert file.read_text() == drawn(file), "run: python -m tests.support.pictures"
    ET.fromstring(drawn(file))
    assert f"]({file.relative_to(ROOT / 'docs')})" in (ROOT / "docs" / "architecture.md").read_text()


def test_every_subpackage_is_in_the_picture_and_nothing_else() -> None:
    graph = grimp.build_graph(*PACKAGES)
    there = {each for package in PACKAGES for each in graph.find_children(package) if graph.find_children(each)}
    assert set(placed()) - set(HERE.values()) == there, "give it a place in LAYERS of tests/support/pictures.py"


def test_imports_go_down_or_to_the_neighbour() -> None:
    graph, row = grimp.build_graph(*PACKAGES), placed()
    flat = set(HERE.values())
    upwards = [
        (importer, imported)
        for importer in row
        for imported in row
        if row[importer] > row[imported] and importer not in flat and imported not in flat
        if graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
    ]
    assert upwards == []
    for importer in row:
        for package in PACKAGES[PACKAGES.index(importer.partition(".")[0]) + 1 :]:
            assert not graph.direct_import_exists(importer=importer, imported=package, as_packages=True)
