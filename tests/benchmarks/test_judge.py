"""The regression gate's judge, with figures that were made up: what it calls red, and what it never does."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.judge import DEVIATIONS, LEAST_SPREAD, MARGIN, Verdict, floor_of
from benchmarks.spread import Spread, spread

shares = st.floats(0.01, 3.0)
pairs = st.lists(shares, min_size=1, max_size=20)


def verdict(floor: float, ratios: list[float]) -> Verdict:
    return Verdict("a cell", floor, spread(ratios))


@given(shares, pairs)
def test_a_median_at_the_floor_or_above_is_never_red(floor: float, ratios: list[float]) -> None:
    if statistics.median(ratios) >= floor:
        assert not verdict(floor, ratios).red


@given(shares, st.lists(st.floats(0.95, 1.05), min_size=5, max_size=20))
def test_a_clear_fall_is_always_red(floor: float, noise: list[float]) -> None:
    """Pairs within five percent of each other, three quarters of the floor: 3 deviations of at most a tenth of that."""
    assert verdict(floor, [0.7 * floor * one for one in noise]).red


@given(shares, pairs)
def test_red_is_under_the_floor_by_three_deviations(floor: float, ratios: list[float]) -> None:
    seen = spread(ratios)
    deviations = DEVIATIONS * max(seen.mad, LEAST_SPREAD * floor)
    assert verdict(floor, ratios).red == (seen.median < floor - deviations)


@given(shares, pairs, st.floats(0.1, 1.0))
def test_slower_by_the_same_share_in_every_pair_is_never_greener(floor: float, ratios: list[float], by: float) -> None:
    if verdict(floor, ratios).red:
        slower = spread(ratios)
        assert Verdict("a cell", floor, Spread(slower.median * by, slower.mad * by)).red


@given(st.lists(shares, min_size=5, max_size=5), st.integers(0, 4), st.floats(0.001, 0.01))
def test_one_pair_that_was_disturbed_makes_nothing_red(ratios: list[float], which: int, disturbed: float) -> None:
    ratios = [1.0 + one / 100 for one in ratios]
    ratios[which] = disturbed
    assert not verdict(0.98, ratios).red


@given(pairs)
def test_the_pairs_that_made_a_floor_are_well_above_it(ratios: list[float]) -> None:
    floor = floor_of(ratios)
    assert floor <= (1 - MARGIN) * min(ratios)
    assert floor > (1 - MARGIN) * min(ratios) - 0.0100001


def test_what_nobody_saw_has_no_floor() -> None:
    with pytest.raises(ValueError):
        floor_of([])
