"""Sums over all functions, for heartbeats: kept, and brought up to date by those with which something happened.

A heartbeat goes out every few seconds, and for each function that starts or stops. Of a thousand functions most are
idle, and to add up what all of them have counted would be most of what a nexlet does that has nothing to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from nexlet_functions.turns import in_turns

if TYPE_CHECKING:
    from nexlet_functions.functions.function import Function

__all__ = ["Tally"]


class _Part(NamedTuple):
    """What one function has in the sums, and its stamp as of then."""

    stamp: tuple[object, ...]
    namespace: str
    state: str
    workers: int
    pending: int
    outcomes: tuple[tuple[str, int], ...]


class Tally:
    """The sums, as of the last look.

    Attributes:
        namespaces: functions by namespace.
        states: functions by state.
        outcomes: ended invocations by outcome.
        workers, pending: as in `PoolStats`.
    """

    def __init__(self) -> None:
        """Nothing was looked at."""
        self.namespaces: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.workers = self.pending = 0
        self._parts: dict[Function, _Part] = {}

    async def look(self, functions: Collection[Function]) -> None:
        """Have the sums be those over these functions, each as it is when it has its turn."""
        parts, here = self._parts, frozenset(functions)
        async for function in in_turns(here):
            stamp, known = function.stamp, parts.get(function)
            if known is not None:
                if known.stamp == stamp:
                    continue
                self._change(known, -1)
            part = parts[function] = _part(function, stamp)
            self._change(part, 1)
        for gone in parts.keys() - here:
            self._change(parts.pop(gone), -1)

    def _change(self, part: _Part, sign: int) -> None:
        """Count a part in (1), or out again (-1)."""
        for numbers, key in ((self.namespaces, part.namespace), (self.states, part.state)):
            numbers[key] += sign
            if not numbers[key]:
                del numbers[key]
        for outcome, count in part.outcomes:
            self.outcomes[outcome] += sign * count
        self.workers += sign * part.workers
        self.pending += sign * part.pending


def _part(function: Function, stamp: tuple[object, ...]) -> _Part:
    counts, stats, state = function.counts, function.stats, function.state.value
    if counts is None or stats is None:
        return _Part(stamp, function.namespace, state, 0, 0, ())
    return _Part(stamp, function.namespace, state, stats.workers, stats.pending, tuple(counts.outcomes.items()))
