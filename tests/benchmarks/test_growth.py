"""The curves of growth: told, kept and drawn as they were measured."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.growth import Curve, Growth, Point
from benchmarks.kinds import Pictured

SVG = "{http://www.w3.org/2000/svg}"


def point(at: int, cpu_us: float, bare_cpu_us: float = 10.0) -> Point:
    return Point(at, 1000.0, 2000.0, 0.5, 0.01, cpu_us, 0.2, bare_cpu_us)


GROWTH = Growth(
    [
        Curve("functions deployed", "functions", [point(1, 10), point(10, 11), point(1000, 25)]),
        Curve("bytes of a message", "bytes", [point(16, 10), point(900 * 1024, 400, 300)]),
    ]
)


def test_growth_is_told_as_a_multiple_of_the_first_beside_the_bare_responder_s() -> None:
    functions, payload = GROWTH.curves
    assert (functions.grown, functions.bare_grown) == (2.5, 1.0)
    assert (payload.grown, payload.bare_grown) == (40.0, 30.0)
    lines = GROWTH.table()
    assert any("times 2.50, of the bare responder times 1.00" in line for line in lines)
    assert sum(len(curve.points) for curve in GROWTH.curves) == sum(line.lstrip()[0].isdigit() for line in lines)


def test_what_was_written_is_read_as_it_was() -> None:
    again = Growth.from_json(json.loads(json.dumps(GROWTH.as_json())))
    assert again.as_json() == GROWTH.as_json()
    assert again.picture() == GROWTH.picture()


def test_each_curve_has_a_panel_with_every_point_of_ours_and_of_the_bare_responder() -> None:
    assert isinstance(GROWTH, Pictured)
    root = ET.fromstring(GROWTH.picture())
    assert len(list(root.iter(f"{SVG}circle"))) == 2 * 5
    said = [one.text for one in root.iter(f"{SVG}text")]
    assert {"functions deployed", "bytes of a message", "1,000", "16 B", "900 KiB"} <= set(said)


@pytest.mark.parametrize("missing", ["ratio", "cpu_us"])
def test_a_record_without_a_figure_is_refused(missing: str) -> None:
    told = json.loads(json.dumps(GROWTH.as_json()))
    del told[0]["points"][0][missing]
    with pytest.raises(TypeError, match=missing):
        Growth.from_json(told)
