"""Each function's figures on Nex's metrics feed, `$NEX.FEED.NAMESPACE.metrics.WORKLOAD`, beside its own.

What a function gives to `context.metrics` goes there as it comes. From time to time the nexlet adds one message of its
own, a JSON object whose `kind` is `nexlet`, with what came since the last one: so whoever may read a namespace's feeds
sees its functions without access to the nexlet's port. A function with which nothing happens is not told about.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from nexlet_functions.functions.function import Function
from nexlet_functions.observing.counts import Counts, Key, counts_of, gauges_of
from nexlet_functions.runner.services import Services
from nexlet_functions.turns import in_turns
from nexlet_models.base import timestamp
from nexlet_sandboxes.histogram import Histogram

__all__ = ["MetricsFeed"]

_SHARES: Final = {"p50": 0.5, "p99": 0.99}


class MetricsFeed:
    """Tells of functions. `run` it, say which of them are `gone`."""

    def __init__(self, services: Services, functions: Callable[[], Iterable[Function]], *, interval: float) -> None:
        """Nothing is told yet.

        Args:
            functions: those that are here.
            interval: seconds between two messages about one function.
        """
        self._services = services
        self._functions = functions
        self._interval = interval
        self._told: dict[Function, tuple[object, Counts]] = {}
        self._untold: set[Function] = set()  # in the round of the moment
        self._looked = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            began = asyncio.get_running_loop().time()
            self._untold = here = set(self._functions())
            known = self._told.keys() - here
            async for function in in_turns(here):
                if function in self._untold:  # else it went while others were told of, and has had its last word
                    self._tell(function)
            for function in known:
                self._told.pop(function, None)  # its start failed: nobody says that it is gone
            self._looked = began

    def gone(self, function: Function) -> None:
        """Tell what came since the last time, the last of it."""
        self._tell(function)
        self._told.pop(function, None)
        self._untold.discard(function)

    def _tell(self, function: Function) -> None:
        stamp, known = function.stamp, self._told.get(function)
        if known is not None and known[0] == stamp and not function.busy:
            return  # of a thousand functions most are idle: nothing is counted, copied or subtracted for them
        now = asyncio.get_running_loop().time()
        then, before = (now - self._interval, Counts()) if known is None else (self._looked, known[1])
        counts = counts_of(function)
        since = counts.since(before)
        self._told[function] = stamp, counts
        gauges = gauges_of(function)
        if not function.busy and not any(since.numbers.values()):
            return
        told = {
            "kind": "nexlet",
            "id": function.workload_id,
            "namespace": function.namespace,
            "name": function.name,
            "agent_id": self._services.agent_id,
            "time": timestamp(),
            "interval_ms": round((now - then) * 1000),
            "invocations": _of(since.numbers, "invocations_total"),
            "duration_ms": _shares(since.spreads.get("nexlet_function_duration_seconds")),
            "queue_ms": _shares(since.spreads.get("nexlet_function_queue_seconds")),
            "in_flight": gauges[("nexlet_function_in_flight",)],
            "pending": gauges[("nexlet_function_pending",)],
            "pending_bytes": gauges[("nexlet_function_pending_bytes",)],
            "workers": _of(gauges, "workers", zeros=True),
            "cold_starts": since.numbers[("nexlet_function_cold_starts_total",)],
            "worker_deaths": _of(since.numbers, "worker_deaths_total"),
            "calls": _by_kind(since.numbers),
            "log_lines_dropped": since.numbers[("nexlet_function_log_lines_dropped_total",)],
            "replies_withheld": since.numbers[("nexlet_function_replies_withheld_total",)],
            "messages_dropped": _of(since.numbers, "messages_dropped_total"),
        }
        self._services.emit_metrics(function.workload_id, function.namespace, orjson.dumps(told))


def _of(numbers: Counter[Key], metric: str, *, zeros: bool = False) -> dict[str, int]:
    """The values of a metric by its one label."""
    return {
        labels[0]: number
        for (name, *labels), number in numbers.items()
        if name == f"nexlet_function_{metric}" and (number or zeros)
    }


def _by_kind(numbers: Counter[Key]) -> dict[str, dict[str, int]]:
    """Calls to what was granted: by kind, and then by outcome."""
    calls: dict[str, dict[str, int]] = {}
    for (name, *labels), number in numbers.items():
        if name == "nexlet_function_calls_total" and number:
            calls.setdefault(labels[0], {})[labels[1]] = number
    return calls


def _shares(spread: Histogram | None) -> dict[str, Any]:
    if spread is None or not spread.count:
        return {}
    return {name: round(spread.quantile(share) * 1000, 3) for name, share in _SHARES.items()}
