"""What the regression gate calls a fall, and how a floor is made: figures in, verdicts out, nothing is measured here.

A figure is a ratio: what the nexlet did, as a share of what a bare responder did beside it in the same run. A faster or
slower machine is in both, so that it cancels out; what does not cancel out is how a machine shares its cores between
processes, of which the nexlet has one more. That is why a floor is made from figures under several conditions (see
`gate`), lies a good part below the lowest of them, and is the same for every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.spread import Spread

__all__ = ["DEVIATIONS", "LEAST_SPREAD", "MARGIN", "Verdict", "floor_of"]

DEVIATIONS: Final = 3.0
"""A ratio is red when it is under its floor by more than so many median absolute deviations of that run."""

LEAST_SPREAD: Final = 0.02
"""The median absolute deviation counts as at least this part of the floor: that of five pairs can come out as next to
nothing by chance."""

MARGIN: Final = 0.25
"""How far a floor lies under the lowest ratio that was recorded, as a part of it.

What is recorded is of one machine. Between it quiet and crowded, and between one core and two, medians of five pairs
were seen to differ by about as much (docs/performance.md has the figures): a machine that was never seen may be that
much worse again. What is to be caught is a hot path that got a task, a timer or a system call for each message,
and each of these costs more than that.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cell's figure beside its floor.

    Attributes:
        cell: as the record calls it.
        floor: the ratio it is held to.
        seen: the median of the pairs' ratios in this run, and their median absolute deviation.
    """

    cell: str
    floor: float
    seen: Spread

    @property
    def least(self) -> float:
        """The lowest ratio that this run would have let pass: the more its pairs differ, the lower."""
        return self.floor - DEVIATIONS * max(self.seen.mad, LEAST_SPREAD * self.floor)

    @property
    def red(self) -> bool:
        """Whether it fell."""
        return self.seen.median < self.least


def floor_of(ratios: Iterable[float]) -> float:
    """The floor of a cell that was seen to have these ratios, rounded down to a hundredth.

    Raises:
        ValueError: there are none.
    """
    return int(min(ratios) * (1 - MARGIN) * 100) / 100
