"""What repetitions say together, and what share of times stayed within which."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.spread import Spread, percentile, ratios, spread

TIMES = st.lists(st.integers(0, 10**12), min_size=1, max_size=300).map(sorted)


def test_one_disturbed_repetition_moves_neither() -> None:
    assert spread([10.0, 11.0, 12.0, 11.0, 500.0]) == Spread(11.0, 1.0)
    assert spread([3.0]) == Spread(3.0, 0.0)
    with pytest.raises(statistics.StatisticsError):
        spread([])


def test_ratios_are_those_of_neighbours() -> None:
    # Twice as fast in each pair, on a machine that becomes ten times as slow meanwhile.
    assert ratios([200.0, 100.0, 20.0], [100.0, 50.0, 10.0]) == Spread(2.0, 0.0)
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


@given(TIMES, st.integers(0, 1000))
def test_a_percentile_is_the_smallest_that_so_many_stay_within(times: list[int], thousandths: int) -> None:
    found = percentile(times, thousandths / 1000)
    assert found in times
    assert sum(time <= found for time in times) * 1000 >= thousandths * len(times)
    assert sum(time < found for time in times) * 1000 < max(thousandths * len(times), 1)


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
