"""What a nexlet has counted, read where it is counted: its functions, its connections, its runner.

`NexletFigures` makes the whole of it, with totals that do not fall when a function or a connection goes. Everything is
read on the event loop, which does whatever else there is to do between two functions.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nexlet_functions.functions.function import Function
from nexlet_functions.natsio.connection import Connection, ConnectionState, ConnectionStats
from nexlet_functions.observing.counts import Counts, Key, counts_of, gauges_of
from nexlet_functions.runner.runner import Phase, Runner
from nexlet_functions.turns import in_turns
from nexlet_models.workloads import WorkloadState
from nexlet_sandboxes.histogram import Histogram
from nexlet_sandboxes.zygote import Zygote

if TYPE_CHECKING:
    from nexlet_functions.functions.agent import FunctionAgent

__all__ = ["Figures", "NexletFigures", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of what is served: a metric, the values of its labels, and its value."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


Figures = list[Sample]
"""In no order."""

_TOTALS: Final[Mapping[str, str]] = {
    "nexlet_function_invocations_total": "nexlet_invocations_total",
    "nexlet_function_worker_deaths_total": "nexlet_worker_deaths_total",
}
"""What is counted of each function and told for all of them, too."""

_TOTAL_SPREADS: Final = ("nexlet_cold_start_seconds", "nexlet_deadline_lateness_seconds")
"""What is told for all of them alone."""


class NexletFigures:
    """Reads one nexlet."""

    def __init__(self, runner: Runner, zygote: Zygote) -> None:
        self._runner = runner
        self._zygote = zygote
        self._gone = Counts()
        self._seen: dict[Connection, str] = {}
        self._connections_gone: Counter[tuple[str, ...]] = Counter()
        runner.on_workload_connection_closed(self._closed)

    def gone(self, function: Function) -> None:
        """A function is gone: what it counted stays in the totals."""
        self._gone.add(counts_of(function))

    def _closed(self, connection: Connection) -> None:
        """It may have come and gone between two looks: what it counted stays all the same."""
        self._seen.pop(connection, None)
        self._connections_gone.update(_connection_counts("workloads", connection.stats()))

    async def read(self, *, agent: FunctionAgent | None, ready: bool) -> Figures:
        """All of it, each function as it is when it has its turn.

        Args:
            agent: None before the runner has made it.
            ready: see `health`.
        """
        runner = self._runner
        samples = [
            Sample("nexlet_build_info", _build(), 1),
            Sample("nexlet_ready", (), int(ready)),
            Sample("nexlet_registrations_total", (), runner.registrations),
            Sample("nexlet_restore_failures_total", (), runner.restore_failures),
            Sample("nexlet_zygote_restarts_total", (), self._zygote.restarts),
            *(Sample("nexlet_phase", (phase,), int(runner.phase is phase)) for phase in Phase),
            *self._connections(),
        ]
        functions = agent.functions if agent is not None else []
        states = Counter(function.state for function in functions)
        samples += [Sample("nexlet_functions", (state,), states[state]) for state in _STATES]
        starts = agent.starts if agent is not None else {}
        samples += [Sample("nexlet_function_starts_total", (result,), count) for result, count in starts.items()]
        if agent is not None:
            samples.append(Sample("nexlet_reserve_workers", (), agent.reserve.waiting))
            samples += [
                Sample("nexlet_workers_begun_total", (origin,), count) for origin, count in agent.reserve.taken.items()
            ]
        samples += await self._functions(functions)
        return samples

    async def _functions(self, functions: list[Function]) -> Figures:
        # Two workloads of one name are one function as far as anybody who looks at its name is concerned.
        by_name: dict[tuple[str, str], tuple[Counts, Counter[Key]]] = {}
        totals = Counts()
        totals.add(self._gone)  # now: who goes while others are read is among `functions`, and not in these
        async for function in in_turns(functions):
            counts, gauges = by_name.setdefault((function.namespace, function.name), (Counts(), Counter()))
            now = counts_of(function)
            counts.add(now)
            totals.add(now)
            gauges.update(gauges_of(function))
        samples: Figures = []
        async for names, (counts, gauges) in in_turns(by_name.items()):
            for (name, *labels), number in (*counts.numbers.items(), *gauges.items()):
                samples.append(Sample(name, (*names, *labels), number))
            for name, spread in counts.spreads.items():
                if name not in _TOTAL_SPREADS:
                    samples.append(Sample(name, names, spread))
        for (name, *labels), number in totals.numbers.items():
            if name in _TOTALS:
                samples.append(Sample(_TOTALS[name], tuple(labels), number))
        samples += [Sample(name, (), totals.spreads.get(name) or Histogram()) for name in _TOTAL_SPREADS]
        return samples

    def _connections(self) -> Iterator[Sample]:
        by_use = self._runner.connections_by_use
        states: Counter[tuple[str, str]] = Counter({(use, state): 0 for use in by_use for state in _CONNECTION_STATES})
        numbers: Counter[tuple[str, ...]] = Counter()
        for use, connections in by_use.items():
            numbers["nexlet_outgoing_bytes", use] = 0
            for connection in connections:
                states[use, connection.state] += 1
                self._seen[connection] = use
        for connection, use in list(self._seen.items()):
            counted = _connection_counts(use, connection.stats())
            if connection.state is ConnectionState.CLOSED:
                del self._seen[connection]
                self._connections_gone.update(counted)
                continue
            numbers.update(counted)
            stats = connection.stats()
            numbers["nexlet_outgoing_bytes", use] += stats.outgoing_bytes
            numbers["nexlet_subscriptions", use, "live"] += stats.subscriptions - stats.refused
            numbers["nexlet_subscriptions", use, "refused"] += stats.refused
        numbers.update(self._connections_gone)
        for (use, state), count in states.items():
            yield Sample("nexlet_connections", (use, state), count)
        for (name, *labels), number in numbers.items():
            yield Sample(name, tuple(labels), number)


_STATES: Final = [state for state in WorkloadState if state is not WorkloadState.STOPPED]
_CONNECTION_STATES: Final = [state for state in ConnectionState if state is not ConnectionState.CLOSED]


def _connection_counts(use: str, stats: ConnectionStats) -> Counter[tuple[str, ...]]:
    return Counter(
        {
            ("nexlet_reconnections_total", use): max(0, stats.connects - 1),
            ("nexlet_connection_moves_total", use): stats.moves,
            ("nexlet_messages_published_total", use): stats.published,
            ("nexlet_messages_unconfirmed_total", use): stats.unconfirmed,
            ("nexlet_sink_errors_total", use): stats.sink_errors,
            ("nexlet_messages_dropped_total", use, "full"): stats.dropped,
            ("nexlet_messages_dropped_total", use, "oversized"): stats.oversized,
            ("nexlet_messages_dropped_total", use, "refused"): stats.publish_violations,
            ("nexlet_messages_dropped_total", use, "unconfirmed"): stats.unconfirmed,
        }
    )


def _build() -> tuple[str, ...]:
    return (
        importlib.metadata.version("nexlet-functions"),
        platform.python_version(),
        importlib.metadata.version("nats-py"),
    )
