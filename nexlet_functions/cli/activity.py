"""How functions fare, made of what is heard of them: invocations off the event feed, and lists off the control API.

`Activity` is what stands behind the tables of `top` and `dev`; `activity_table` shows it. An event tells of each
invocation as it ends, a list of what a nexlet counts: state, workers, what is in flight. Neither needs the other. Where
an operator has events published for failures only, or more come than are read in time, the nexlet's own count of
invocations goes before what was heard.

What is kept has a bound: of each function the last minute by seconds and its latest runs, and of functions the ones
last heard of.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from nexlet_functions.cli.nodes import workload_fields
from nexlet_sandboxes.outcomes import Outcome

if TYPE_CHECKING:
    from nexlet_models.events import WorkloadStoppedEvent, WorkloadTriggeredEvent
    from nexlet_models.workloads import WorkloadSummary

__all__ = ["NO_FAULT", "Activity", "Row"]

RATE_SECONDS: Final = 10
"""Seconds over which a rate is taken."""

SECONDS: Final = 60
"""Seconds over which errors are counted and quantiles are taken."""

KEPT_RUNS: Final = 1024
"""The latest runs of a function, of which quantiles are taken: as many as make the 99th percentile ten of them."""

KEPT_FUNCTIONS: Final = 4096
"""Functions that are remembered. Whoever may publish on a feed can name any number of them."""

NO_FAULT: Final = frozenset({Outcome.OK.value, Outcome.REJECTED_BY_FUNCTION.value})
"""Outcomes that are no errors: what a function refuses with `Reject` is an answer of its own."""

_NOT_RUN: Final = frozenset({Outcome.REJECTED.value, Outcome.EXPIRED.value, Outcome.UNAVAILABLE.value})
_MISSED: Final = 0.9
"""Heard less than this share of what the nexlet counted, and it is the nexlet's count that is shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One function at a moment. What is not known is None, or "" where it is text.

    Attributes:
        id, name, namespace, state: of the workload; its id for a name that is not known.
        rate: invocations a second, over the last ten.
        p50_ms, p99_ms: of the run times of the last minute, in milliseconds; those that were not run are left out.
        errors: of the last minute, without what the function itself refused.
        in_flight, pending, workers, max_workers: as its nexlet told last.
        invocations, failed: in all, as its nexlet counts them; `failed` is all that did not end `ok`.
        last_outcome, last_error: of the latest invocation.
        last_seconds: how long ago that ended.
    """

    id: str
    name: str
    namespace: str
    state: str
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    in_flight: int | None
    pending: int | None
    workers: int | None
    max_workers: int | None
    invocations: int | None
    failed: int | None
    last_outcome: str
    last_error: str
    last_seconds: float | None

    def fields(self) -> dict[str, Any]:
        """For programs."""
        fields = asdict(self)
        for name in ("rate", "p50_ms", "p99_ms", "last_seconds"):
            if fields[name] is not None:
                fields[name] = round(fields[name], 3)
        return {name: value for name, value in fields.items() if value is not None and value != ""}


class _Function:
    """What is remembered of one."""

    __slots__ = (
        "began", "count_rate", "counted", "heard", "heard_at", "id", "known", "last_error", "last_outcome", "name",
        "namespace", "runs", "seconds", "state", "told",
    )  # fmt: skip

    def __init__(self, workload_id: str, namespace: str, now: float) -> None:
        self.id = self.name = workload_id
        self.namespace = namespace
        self.state = ""
        self.known = False  # whether its name is
        self.began = now
        self.runs: deque[tuple[float, float]] = deque(maxlen=KEPT_RUNS)  # when it ended, milliseconds
        self.seconds: deque[list[int]] = deque(maxlen=SECONDS)  # which, invocations, errors
        self.heard = 0  # since the last list
        self.heard_at: float | None = None
        self.counted: tuple[float, int] | None = None
        self.count_rate: float | None = None
        self.last_outcome = self.last_error = ""
        self.told: dict[str, Any] = {}

    def observe(self, event: WorkloadTriggeredEvent, now: float) -> None:
        outcome = event.outcome or ""
        second = math.floor(now)
        if not self.seconds or self.seconds[-1][0] != second:
            self.seconds.append([second, 0, 0])
        self.seconds[-1][1] += 1
        self.seconds[-1][2] += outcome not in NO_FAULT
        if outcome not in _NOT_RUN:
            self.runs.append((now, event.duration))
        self.heard += 1
        self.heard_at = now
        self.last_outcome, self.last_error = outcome, event.error or ""

    def learn(self, fields: dict[str, Any], now: float) -> None:
        self.name, self.namespace = fields["name"] or self.id, fields["namespace"] or self.namespace
        self.state, self.known, self.told = fields["state"], True, fields
        count: int | None = fields["invocations"]
        self.count_rate = None
        if count is not None and self.counted is not None and now > self.counted[0]:
            more = count - self.counted[1]
            if self.heard < more * _MISSED - 1:
                self.count_rate = more / (now - self.counted[0])
        if count is not None:
            self.counted = now, count
        self.heard = 0

    def row(self, now: float) -> Row:
        second = math.floor(now)
        lately = sum(count for at, count, _ in self.seconds if at > second - RATE_SECONDS)
        # Since the beginning of the oldest second that is counted, or since it is watched.
        span = max(1.0, min(now - (second - RATE_SECONDS + 1), now - self.began))
        runs = sorted(duration for at, duration in self.runs if at > now - SECONDS)
        told = self.told
        return Row(
            id=self.id,
            name=self.name,
            namespace=self.namespace,
            state=self.state,
            rate=lately / span if self.count_rate is None else self.count_rate,
            p50_ms=_quantile(runs, 0.5),
            p99_ms=_quantile(runs, 0.99),
            errors=sum(errors for at, _, errors in self.seconds if at > second - SECONDS),
            in_flight=told.get("in_flight"),
            pending=told.get("pending"),
            workers=told.get("workers"),
            max_workers=told.get("max_workers"),
            invocations=told.get("invocations"),
            failed=told.get("failed"),
            last_outcome=self.last_outcome,
            last_error=self.last_error,
            last_seconds=None if self.heard_at is None else max(0.0, now - self.heard_at),
        )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest of them that at least `share` of them do not exceed; None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Activity:
    """How all functions fare that something was heard of. Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._functions: OrderedDict[str, _Function] = OrderedDict()  # those last heard of at the end

    def observe(self, event: WorkloadTriggeredEvent, now: float) -> None:
        """An invocation has ended."""
        self._of(event.id, event.namespace, now).observe(event, now)

    def stopped(self, event: WorkloadStoppedEvent, now: float) -> None:
        """A function has ended; it is shown until the next list."""
        function = self._functions.get(event.id)
        if function is not None:
            function.state = "stopped" if event.error is None else "error"
            function.last_error = event.error.message if event.error is not None else function.last_error

    def named(self, workload_id: str, name: str, namespace: str, now: float, *, state: str = "running") -> None:
        """A function was deployed, by whoever asks: it has a name before there is a list."""
        function = self._of(workload_id, namespace, now)
        function.name, function.state, function.known = name, state, True

    def forget(self, workload_id: str) -> None:
        """A function is of no interest any more."""
        self._functions.pop(workload_id, None)

    def learn(self, summaries: Sequence[WorkloadSummary], now: float) -> None:
        """A list of all that runs has come: it tells of each, and what is not in it is gone.

        Something that was heard of within the last seconds stays: it may be newer than the list.
        """
        listed = {one.id: one for one in summaries}
        for workload_id, summary in listed.items():
            self._of(workload_id, summary.namespace or "", now).learn(workload_fields(summary), now)
        for function in list(self._functions.values()):
            new = function.heard_at is not None and now - function.heard_at < RATE_SECONDS and not function.known
            if function.id not in listed and not new:
                del self._functions[function.id]

    @property
    def unknown(self) -> bool:
        """Whether something was heard of a function whose name is not known: a list would tell."""
        return any(not function.known for function in self._functions.values())

    def rows(self, now: float) -> list[Row]:
        """All of them, by namespace, name and id."""
        rows = [function.row(now) for function in self._functions.values()]
        return sorted(rows, key=lambda row: (row.namespace, row.name, row.id))

    def _of(self, workload_id: str, namespace: str, now: float) -> _Function:
        function = self._functions.get(workload_id)
        if function is None:
            if len(self._functions) >= KEPT_FUNCTIONS:
                self._functions.popitem(last=False)
            function = self._functions[workload_id] = _Function(workload_id, namespace, now)
        else:
            self._functions.move_to_end(workload_id)
        return function
