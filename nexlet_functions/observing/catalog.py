"""Every metric that the nexlet offers to Prometheus: its name, kind, labels and meaning, said once.

What is counted (`figures`), what is served (`prometheus`) and what is documented (`reference`) all go by this table.
Labels are bounded: by what is written here, and for `namespace` and `name` by the functions that are here now. Series
of a function end when it goes; the totals over all functions go on counting.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["CATALOG", "EDGES", "FUNCTION_LABELS", "Kind", "Metric"]

EDGES: Final = range(6, 29)
"""The buckets of every histogram end at 2^n microseconds for these n: from 64 microseconds to 268 seconds, each twice
the one before. A deadline is five minutes at most (unless an operator says otherwise), and nothing of interest takes
less than the first."""

FUNCTION_LABELS: Final = ("namespace", "name")


class Kind(enum.StrEnum):
    """How a metric is to be read, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as a query names it; of a counter with its `_total`.
        kind: how to read it.
        help: one line.
        labels: the names of its labels, in order.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _function(name: str, kind: Kind, text: str, *labels: str) -> Metric:
    return Metric(f"nexlet_function_{name}", kind, text, FUNCTION_LABELS + labels)


_METRICS: Final = (
    Metric(
        "nexlet_build_info",
        Kind.GAUGE,
        "What runs here; always 1.",
        ("version", "python", "nats_py"),
    ),
    Metric(
        "nexlet_ready",
        Kind.GAUGE,
        "1 where /readyz answers 200.",
    ),
    Metric(
        "nexlet_phase",
        Kind.GAUGE,
        "1 for the phase it is in: starting, running, lameduck, stopping, ended.",
        ("phase",),
    ),
    Metric(
        "nexlet_registrations_total",
        Kind.COUNTER,
        "How often a node took it in, resumed registrations included.",
    ),
    Metric(
        "nexlet_restore_failures_total",
        Kind.COUNTER,
        "Attempts to start again what ran before that failed.",
    ),
    Metric(
        "nexlet_zygote_restarts_total",
        Kind.COUNTER,
        "How often the process that makes workers had to be started again.",
    ),
    Metric(
        "nexlet_functions",
        Kind.GAUGE,
        "Functions by state: starting, running, warm, error, stopping.",
        ("state",),
    ),
    Metric(
        "nexlet_function_starts_total",
        Kind.COUNTER,
        "Starts of functions by how they ended: started, restored, refused (its author can mend it), failed "
        "(ours), stopped.",
        ("result",),
    ),
    Metric(
        "nexlet_invocations_total",
        Kind.COUNTER,
        "Invocations of all functions by outcome, those that are gone included.",
        ("outcome",),
    ),
    Metric(
        "nexlet_worker_deaths_total",
        Kind.COUNTER,
        "Workers of all functions that ended before their time, by reason: timeout, memory, crash, load.",
        ("reason",),
    ),
    Metric(
        "nexlet_reserve_workers",
        Kind.GAUGE,
        "Workers that are locked and wait for a function that needs one.",
    ),
    Metric(
        "nexlet_workers_begun_total",
        Kind.COUNTER,
        "Workers that functions got, by where they came from: reserve (one that waited), forked (for want of one).",
        ("origin",),
    ),
    Metric(
        "nexlet_cold_start_seconds",
        Kind.HISTOGRAM,
        "From asking for a worker until its program was loaded.",
    ),
    Metric(
        "nexlet_deadline_lateness_seconds",
        Kind.HISTOGRAM,
        "How long after its deadline an invocation was ended that was over its time.",
    ),
    Metric(
        "nexlet_connections",
        Kind.GAUGE,
        "Connections to NATS by use (nexlet, agent, workloads) and state.",
        ("use", "state"),
    ),
    Metric(
        "nexlet_reconnections_total",
        Kind.COUNTER,
        "Connections made again after they were lost.",
        ("use",),
    ),
    Metric(
        "nexlet_messages_published_total",
        Kind.COUNTER,
        "Messages put in line to be sent: replies, events, logs.",
        ("use",),
    ),
    Metric(
        "nexlet_messages_dropped_total",
        Kind.COUNTER,
        "Messages that did not arrive: full (too much waited), oversized (larger than the server takes), "
        "refused (by the server), unconfirmed (on their way when a connection was lost, so that they may have).",
        ("use", "reason"),
    ),
    Metric(
        "nexlet_messages_unconfirmed_total",
        Kind.COUNTER,
        "Messages that were on their way when a connection was lost, and may not have arrived.",
        ("use",),
    ),
    Metric(
        "nexlet_connection_moves_total",
        Kind.COUNTER,
        "How often a connection went to another server without a gap.",
        ("use",),
    ),
    Metric(
        "nexlet_sink_errors_total",
        Kind.COUNTER,
        "Messages that could not be handled for a fault of ours; the log has each.",
        ("use",),
    ),
    Metric(
        "nexlet_outgoing_bytes",
        Kind.GAUGE,
        "Bytes that wait to be sent.",
        ("use",),
    ),
    Metric(
        "nexlet_subscriptions",
        Kind.GAUGE,
        "Subscriptions by standing: live, refused (by the server, after they were allowed).",
        ("use", "standing"),
    ),
    _function(
        "invocations_total",
        Kind.COUNTER,
        "Invocations by outcome.",
        "outcome",
    ),
    _function(
        "duration_seconds",
        Kind.HISTOGRAM,
        "How long invocations ran; those that were not run are left out.",
    ),
    _function(
        "queue_seconds",
        Kind.HISTOGRAM,
        "How long invocations waited to begin, or to be given up; those refused at once are left out.",
    ),
    _function(
        "in_flight",
        Kind.GAUGE,
        "Invocations that workers have and have not answered.",
    ),
    _function(
        "pending",
        Kind.GAUGE,
        "Invocations that wait in the queue.",
    ),
    _function(
        "pending_bytes",
        Kind.GAUGE,
        "Bytes of their payloads.",
    ),
    _function(
        "workers",
        Kind.GAUGE,
        "Workers by state: busy, idle, starting.",
        "state",
    ),
    _function(
        "cold_starts_total",
        Kind.COUNTER,
        "Workers that were started.",
    ),
    _function(
        "worker_deaths_total",
        Kind.COUNTER,
        "Workers that ended before their time, by reason: timeout, memory, crash, load.",
        "reason",
    ),
    _function(
        "schedule_runs_total",
        Kind.COUNTER,
        "What was due by schedule, by what became of it: run, taken (by a clone), overlapped and missed (both left "
        "out).",
        "verdict",
    ),
    _function(
        "stream_messages_total",
        Kind.COUNTER,
        "Messages of streams, by what became of them: done, again (after a pause), returned (unfinished, when the "
        "function stopped), buried (a dead letter), dropped (given up without one), unkept (a dead letter that no "
        "stream took) and repeated (handed out twice, and not run for that).",
        "verdict",
    ),
    _function(
        "calls_total",
        Kind.COUNTER,
        "Calls to what was granted, by kind (publish, request, kv, objects, http) and by what the function got: ok, or "
        "not_found, conflict, denied, timed_out, too_large, unavailable.",
        "kind",
        "outcome",
    ),
    _function(
        "log_lines_dropped_total",
        Kind.COUNTER,
        "Lines of output over the limit log_rate.",
    ),
    _function(
        "replies_withheld_total",
        Kind.COUNTER,
        "Messages whose reply subject may not be answered: NATS's or Nex's own, or a trigger of the function.",
    ),
    _function(
        "messages_dropped_total",
        Kind.COUNTER,
        "Replies and events that the connection did not take.",
        "kind",
    ),
)

CATALOG: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _METRICS}
"""By name, in the order in which they are served and documented."""
