"""The pictures of figures: well-formed, with everything inside of its panel and in its place."""

from __future__ import annotations

import datetime
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pictures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Panel, Series, svg

SVG = "{http://www.w3.org/2000/svg}"

positive = st.floats(min_value=1e-6, max_value=1e12)
anything = st.floats(min_value=-1e9, max_value=1e9)


def drawn(panel: Panel) -> ET.Element:
    return ET.fromstring(svg("a picture", [panel]))


def places(root: ET.Element) -> list[tuple[float, float]]:
    """Where the points are."""
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in root.iter(f"{SVG}circle")]


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def panel(points: list[tuple[float, float]], *, log: bool, spread: list[float] | None = None) -> Panel:
    axes = Axis("x", log=log), Axis("y", log=log)
    return Panel("a panel", *axes, [Series("ours", points, spread or ())])


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=8))
def test_points_of_logarithmic_axes_are_within_the_plot_in_order(points: list[tuple[float, float]]) -> None:
    root = drawn(panel(points, log=True, spread=[y / 2 for _, y in points]))
    _in_place(points, places(root))


@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=8))
def test_points_of_even_axes_are_within_the_plot_in_order(points: list[tuple[float, float]]) -> None:
    _in_place(points, places(drawn(panel(points, log=False, spread=[abs(y) for _, y in points]))))


def test_what_lies_next_to_nothing_apart_is_drawn() -> None:
    points = [(0.0, 0.0), (5e-324, 5e-324)]
    _in_place(points, places(drawn(panel(points, log=False))))


def _in_place(points: list[tuple[float, float]], found: list[tuple[float, float]]) -> None:
    assert len(found) == len(points)
    for x, y in found:
        assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    for (x, y), (px, py) in zip(points, found, strict=True):
        for (other_x, other_y), (other_px, other_py) in zip(points, found, strict=True):
            assert x <= other_x or px >= other_px, "further right is more"
            assert y <= other_y or py <= other_py, "and further up"


def test_equal_factors_are_equally_far_apart_on_a_logarithmic_axis() -> None:
    (x1, y1), (x2, y2), (x3, y3) = places(drawn(panel([(1, 1), (100, 10), (10_000, 100)], log=True)))
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)


def test_axes_are_marked_at_round_numbers_from_zero_on_unless_told_otherwise() -> None:
    points = [(3.0, 0.91), (17.0, 0.96)]
    said = texts(drawn(panel(points, log=False)))
    assert {"0", "5", "10", "15", "20", "0.2", "0.8", "1"} <= set(said)
    near = Panel("near", Axis("x"), Axis("y", zero=False), [Series("ours", points)])
    assert {"0.91", "0.96"} <= set(texts(drawn(near)))
    assert {"1", "10", "100", "1,000", "10,000"} <= set(texts(drawn(panel([(1, 1), (9_000, 2)], log=True))))


def test_marks_may_be_given_and_read_as_what_they_are() -> None:
    days = [datetime.date(2026, 3, day).toordinal() for day in (1, 15, 29)]
    x = Axis("date", ticks=days, zero=False, shown=lambda at: datetime.date.fromordinal(int(at)).isoformat())
    root = drawn(Panel("history", x, Axis("ratio"), [Series("64", [(day, 0.9) for day in days])]))
    assert {"2026-03-01", "2026-03-15", "2026-03-29"} <= set(texts(root))
    first, *_, last = [at for at, _ in places(root)]
    assert (first, last) == (LEFT, WIDTH - RIGHT)


def test_names_may_have_any_characters_and_every_curve_is_named() -> None:
    series = [Series(f"<{number}> & co", [(1, number), (2, number)]) for number in range(6)]
    series.append(Series("a bound", [(1, 3), (2, 3)], dashed=True))
    root = drawn(Panel("a < b & c", Axis("x"), Axis("y"), series))
    assert {"a < b & c", "a bound", *(one.name for one in series)} <= set(texts(root))
    curves = list(root.iter(f"{SVG}polyline"))
    looks = {(one.attrib["class"], one.attrib.get("stroke-dasharray")) for one in curves}
    assert len(looks) == len(curves) == 7, "no two look the same"
    assert len(places(root)) == 12, "a bound is no measurement"


def test_colours_follow_the_page_and_nothing_is_fetched_or_run() -> None:
    text = svg("a picture", [panel([(1, 1)], log=False)] * 3)
    assert "prefers-color-scheme: dark" in text
    assert "script" not in text
    assert text.count("http") == 1, "the name space alone"
    assert ET.fromstring(text).attrib["height"] == str(2 * HEIGHT)


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        svg("a picture", [panel([(0, 1)], log=True)])
    with pytest.raises(ValueError, match="no point"):
        svg("a picture", [panel([], log=True)])
    with pytest.raises(ValueError, match="a spread for 1"):
        Series("ours", [(1, 1), (2, 2)], [1])


def test_a_spread_that_reaches_below_nothing_is_cut_on_a_logarithmic_axis() -> None:
    root = drawn(panel([(1, 10), (2, 20)], log=True, spread=[12, 1]))
    bars = [one for one in root.iter(f"{SVG}line") if "spread" in one.attrib["class"]]
    assert all(math.isfinite(float(one.attrib[end])) for one in bars for end in ("y1", "y2"))
    (_, y), *_ = places(root)
    assert float(bars[0].attrib["y1"]) == y
