"""The middle of repetitions and how far they lay apart, and the percentiles of times."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Spread", "percentile", "ratios", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """What repetitions of one measurement say together.

    Attributes:
        median: of them.
        mad: the median of their distances from it (median absolute deviation): one repetition that was disturbed moves
            neither.
    """

    median: float
    mad: float

    def __str__(self) -> str:
        return f"{self.median:.2f} +- {self.mad:.2f}"


def spread(values: Iterable[float]) -> Spread:
    """Of these repetitions.

    Raises:
        statistics.StatisticsError: there are none.
    """
    kept = list(values)
    median = statistics.median(kept)
    return Spread(median, statistics.median(abs(value - median) for value in kept))


def ratios(ours: Iterable[float], floor: Iterable[float]) -> Spread:
    """Of ours to the floor, each repetition beside the one that was measured next to it.

    Raises:
        ValueError: there are not as many of the one as of the other.
    """
    return spread(one / other for one, other in zip(ours, floor, strict=True))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of these values, which are sorted, that at least `share` (0 to 1) of them do not exceed.

    Raises:
        ValueError: there are none.
    """
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    # Rounded up: 0.5 of three values is the second. First to the 1e-9th, since 0.07 * 100 is a little over 7.
    return ordered[max(math.ceil(round(share * len(ordered), 9)), 1) - 1]
