"""What one function has counted, as a table that adds up and subtracts: for totals, and for what came in an interval.

A key is a metric's name (`catalog`) and the values of its labels but those of a function. Everything is read on the
event loop, without waiting for anything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from nexlet_functions.functions.function import Function
from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.outcomes import Outcome

__all__ = ["Counts", "Key", "counts_of", "gauges_of", "numbers_of"]

_NOT_RUN: Final = (Outcome.REJECTED, Outcome.EXPIRED, Outcome.UNAVAILABLE)

Key = tuple[str, ...]
"""A metric's name, and the values of its labels; those of a function (`catalog.FUNCTION_LABELS`) are left out."""


@dataclass(slots=True)
class Counts:
    """What only grows, of one function or of several.

    Attributes:
        numbers: counters.
        spreads: histograms.
    """

    numbers: Counter[Key] = field(default_factory=Counter)
    spreads: dict[str, Histogram] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Count `other` in."""
        self.numbers.update(other.numbers)
        for name, spread in other.spreads.items():
            mine = self.spreads.get(name)
            self.spreads[name] = spread.copy() if mine is None else mine + spread

    def since(self, earlier: Counts) -> Counts:
        """What came after `earlier`."""
        numbers = Counter({key: now - earlier.numbers[key] for key, now in self.numbers.items()})
        spreads = {
            name: spread - earlier.spreads[name] if name in earlier.spreads else spread.copy()
            for name, spread in self.spreads.items()
        }
        return Counts(numbers, spreads)


def counts_of(function: Function) -> Counts:
    """What a function has counted so far."""
    return Counts(numbers_of(function), _spreads_of(function))


def numbers_of(function: Function) -> Counter[Key]:
    """The counters alone."""
    counts, pool = function.counts, function.pool
    if counts is None or pool is None:
        return Counter()
    stats = pool.stats()
    numbers: Counter[Key] = Counter()
    for outcome, count in counts.outcomes.items():
        numbers["nexlet_function_invocations_total", outcome] = count
    for reason, count in stats.deaths.items():
        numbers["nexlet_function_worker_deaths_total", reason] = count
    for verdict, count in function.schedules.counts.items():
        numbers["nexlet_function_schedule_runs_total", verdict] = count
    for verdict, count in function.streams.counts().items():
        numbers["nexlet_function_stream_messages_total", verdict] = count
    for (kind, outcome), count in function.calls.items():
        numbers["nexlet_function_calls_total", kind, outcome] = count
    numbers[("nexlet_function_cold_starts_total",)] = stats.cold_starts
    numbers[("nexlet_function_log_lines_dropped_total",)] = stats.log_lines_dropped
    numbers[("nexlet_function_replies_withheld_total",)] = counts.replies_withheld
    numbers["nexlet_function_messages_dropped_total", "reply"] = counts.replies_dropped
    numbers["nexlet_function_messages_dropped_total", "event"] = counts.events_dropped
    return numbers


def _spreads_of(function: Function) -> dict[str, Histogram]:
    counts, pool = function.counts, function.pool
    if counts is None or pool is None:
        return {}
    ran, queued = counts.ran.copy(), counts.queued.copy()
    # On the hot path every invocation counts, so that nothing is decided there. Here those without a duration go.
    ran.buckets[0] = max(0, ran.buckets[0] - sum(counts.outcomes[outcome] for outcome in _NOT_RUN))
    queued.buckets[0] = max(0, queued.buckets[0] - counts.outcomes[Outcome.REJECTED])
    return {
        "nexlet_function_duration_seconds": ran,
        "nexlet_function_queue_seconds": queued,
        "nexlet_cold_start_seconds": pool.start_times.copy(),
        "nexlet_deadline_lateness_seconds": pool.lateness.copy(),
    }


def gauges_of(function: Function) -> Counter[Key]:
    """What a function is at now."""
    stats = function.stats
    if stats is None:
        return Counter()
    return Counter(
        {
            ("nexlet_function_in_flight",): stats.in_flight,
            ("nexlet_function_pending",): stats.pending,
            ("nexlet_function_pending_bytes",): stats.pending_bytes,
            ("nexlet_function_workers", "busy"): stats.busy,
            ("nexlet_function_workers", "idle"): stats.workers - stats.busy,
            ("nexlet_function_workers", "starting"): stats.starting,
        }
    )
