"""The registry of kinds, what they are asked for, and what a cell of a grid is allowed to have under way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cells import Shape
from benchmarks.feed import Counter
from benchmarks.grid import ALLOWED, PAYLOADS, SHAPES
from benchmarks.kinds import Kind, Options
from benchmarks.registry import KINDS
from nexlet_functions.settings import Settings
from nexlet_sandboxes.backlog import MAX_BYTES
from nexlet_sandboxes.profiles import PROFILES


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_is_told_in_a_line(kind: Kind) -> None:
    assert 0 < len(kind.summary) <= 90
    assert "\n" not in kind.summary
    assert kind.name == kind.name.lower().replace(" ", "")


def test_what_the_command_line_does_not_say_is_the_kinds_own() -> None:
    async def measure(options: Options) -> object:
        raise AssertionError

    kind = Kind("one", "of them", measure, seconds=0.25, rounds=3)  # type: ignore[arg-type]
    assert kind.options() == Options(seconds=0.25, rounds=3, payload=128)
    assert kind.options(seconds=2.0, rounds=1, payload=0) == Options(seconds=2.0, rounds=1, payload=0)


def test_the_grid_has_everything_once() -> None:
    assert len(set(SHAPES)) == len(SHAPES)
    assert {shape.profile for shape in SHAPES} == set(PROFILES) - {"unsafe-dev"}
    for published in (False, True):
        assert {one.payload for one in SHAPES if one.published is published} == set(PAYLOADS)
        assert any(one.heard for one in SHAPES if one.published is published)
    assert any(one.public for one in SHAPES)


def test_the_grids_nexlet_allows_every_profile_that_the_grid_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(ALLOWED))
    assert {shape.profile for shape in SHAPES} == set(Settings.read({"settings_file": file}).profiles("bench"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_cell_never_fills_a_functions_queue(shape: Shape) -> None:
    under_way = shape.requests * (shape.quiet + 1)
    assert 1 <= under_way <= 1024, "max_pending, by default"
    assert under_way * shape.payload <= MAX_BYTES


@given(st.lists(st.integers(0, 300)), st.integers(1, 64))
def test_events_are_counted_however_they_are_cut(sizes: list[int], piece: int) -> None:
    subject = "$NEX.FEED.bench.events.WORKLOADTRIGGERED"
    stream = b"".join(b"MSG %b 1 %d\r\n%b\r\n" % (subject.encode(), size, b"M" * size) for size in sizes)
    counter = Counter(subject)
    for at in range(0, len(stream), piece):
        counter.add(stream[at : at + piece])
    assert counter.count == len(sizes)
