"""Durations in buckets of powers of two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.histogram import BUCKETS, Histogram

_DURATIONS = st.lists(st.integers(0, 2**63 - 1), max_size=30)


def of(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(_DURATIONS)
def test_every_duration_is_in_the_bucket_that_its_microseconds_belong_to(durations: list[int]) -> None:
    histogram = of(durations)
    assert (histogram.count, histogram.sum_ns) == (len(durations), sum(durations))
    for edge in range(BUCKETS):
        below = sum(duration // 1000 < 1 << edge for duration in durations)
        assert sum(histogram.buckets[: edge + 1]) == below


@given(_DURATIONS, _DURATIONS)
def test_what_came_since_is_what_was_added(earlier: list[int], later: list[int]) -> None:
    then = of(earlier)
    now = then + of(later)
    since = now - then
    assert (since.buckets, since.sum_ns) == (of(later).buckets, sum(later))
    assert (then.buckets, then.sum_ns) == (of(earlier).buckets, sum(earlier)), "a copy is left alone"


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_within_a_factor_of_two_of_the_true_one(durations: list[int], share: float) -> None:
    exact = sorted(durations)[max(0, -(-int(share * 1000) * len(durations) // 1000) - 1)] / 1e9
    estimated = of(durations).quantile(share)
    # Where `share` falls between two of them either may be meant.
    further = sorted(durations)[min(len(durations) - 1, int(share * len(durations)))] / 1e9
    assert exact / 2 - 1e-6 <= estimated <= further * 2 + 2e-6


def test_of_none_there_is_no_quantile_and_a_negative_one_is_none() -> None:
    assert Histogram().quantile(0.99) == 0.0
    histogram = Histogram()
    histogram.add(-5)
    assert (histogram.buckets[0], histogram.sum_ns) == (1, 0)
