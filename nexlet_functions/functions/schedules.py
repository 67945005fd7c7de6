"""The schedules of one function: its triggers that are times, kept by the nexlet's scheduler and run by its pool.

`FunctionSchedules` makes a `schedules.Schedule` of each, gives what is due to the pool as a call like any other, and is
told by the pool when that has ended. Nothing waits for its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.schedules.claims import Claim, Schedule
from nexlet_functions.schedules.ledger import Ledger, LedgerUnavailable, key_of
from nexlet_functions.schedules.scheduler import Scheduler
from nexlet_models.cron import NEVER, from_moment
from nexlet_models.errors import InvalidTimeZone
from nexlet_models.problems import Problem
from nexlet_models.scheduled import SCHEDULED_TIME
from nexlet_models.start_request import StartRequest, TimedTrigger
from nexlet_sandboxes.calls import Call, Result, Sink
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits

__all__ = ["FunctionSchedules"]

_MARGIN = 1.0
"""Seconds on top of what a run may wait and take, until another nexlet may take it for ended."""


class _EndsOfRuns:
    """Stands before a function's sink, which it leaves everything to, and tells of the runs that have ended."""

    def __init__(self, sink: Sink, scheduler: Scheduler) -> None:
        self._sink = sink
        self._scheduler = scheduler
        self.logged = sink.logged
        self.measured = sink.measured
        self.flush = sink.flush
        self.changed = sink.changed

    def finished(self, call: Call, result: Result) -> None:
        """See `Sink.finished`."""
        self._sink.finished(call, result)
        if isinstance(call.tag, Claim):
            self._scheduler.ended(call.tag)


class FunctionSchedules:
    """All schedules of one function; there may be none."""

    def __init__(self, scheduler: Scheduler, start: StartRequest) -> None:
        """Nothing is waited for yet."""
        self._scheduler = scheduler
        self._triggers = [
            (number, trigger) for number, trigger in enumerate(start.triggers) if isinstance(trigger, TimedTrigger)
        ]
        self._kept: list[Schedule] = []
        self._pool: Pool | None = None

    @property
    def texts(self) -> dict[int, str]:
        """When they are due, for people, by the number of the trigger."""
        return {number: trigger.text for number, trigger in self._triggers}

    @property
    def counts(self) -> Counter[str]:
        """What became of what was due, by `Verdict`."""
        counts: Counter[str] = Counter()
        for schedule in self._kept:
            counts.update(schedule.counts)
        return counts

    @property
    def counted(self) -> int:
        """All of `counts` together: another number whenever one of them is."""
        return sum(sum(schedule.counts.values()) for schedule in self._kept)

    def sink(self, sink: Sink) -> Sink:
        """What the function's pool is to tell, in place of `sink`."""
        return _EndsOfRuns(sink, self._scheduler) if self._triggers else sink

    async def begin(
        self,
        pool: Pool,
        connection: Connection,
        *,
        bucket: str,
        workload_id: str,
        namespace: str,
        name: str,
        limits: Limits,
    ) -> None:
        """Wait for all of them.

        Args:
            connection: by the workload's credentials; the function holds on to it.
            bucket: where the ledger is.

        Raises:
            Refusal: the ledger cannot be used.
        """
        if not self._triggers:
            return
        self._pool = pool
        ledger = Ledger(connection, bucket)
        made: list[Schedule] = []
        problems: list[Problem] = []
        for number, trigger in self._triggers:
            try:
                cadence = trigger.cadence()
            except InvalidTimeZone as error:
                problems.append(Problem(error.reason, f"triggers[{number}].timezone", advice=error.advice))
                continue
            made.append(
                Schedule(
                    cadence,
                    ledger,
                    key_of(namespace, name, f"{trigger.name} {trigger.text}"),
                    text=trigger.text,
                    owner=workload_id,
                    fire=lambda claim, number=number, trigger=trigger: self._fire(claim, number, trigger),  # type: ignore[misc]  # bound, not given
                    missed=trigger.missed,
                    overlap=trigger.overlap,
                    longest=limits.queue_timeout + limits.timeout + _MARGIN,
                )
            )
        if problems:
            raise Refusal(*problems)
        self._kept = made  # whatever becomes of it: `end` takes back what was added
        outcomes = await asyncio.gather(*map(self._scheduler.add, made), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, LedgerUnavailable):
                raise Refusal(self._refused(outcome, ledger, namespace))
            if outcome is not None:
                raise outcome

    def _refused(self, error: LedgerUnavailable, ledger: Ledger, namespace: str) -> Problem:
        return Problem(
            f"its schedule cannot be kept: {error.reason}",
            f"triggers[{self._triggers[0][0]}]",
            advice=f"{error.advice}; schedules publish on {' and '.join(ledger.permissions(namespace))}",
            code=error.code,
        )

    def _fire(self, claim: Claim, number: int, trigger: TimedTrigger) -> None:
        assert self._pool is not None, "nothing is waited for before there is a pool"
        due = from_moment(claim.due, claim.schedule.cadence.zone).isoformat()
        headers = f"NATS/1.0\r\n{SCHEDULED_TIME}: {due}\r\n\r\n"
        call = Call(
            trigger.pattern.encode(),
            b"",
            headers=headers.encode(),
            pattern=number,
            received_ns=time.monotonic_ns(),
            tag=claim,
        )
        self._pool.submit(call)

    async def end(self) -> None:
        """Wait for none of them any more. What was claimed by then is with the pool."""
        await asyncio.gather(*map(self._scheduler.remove, self._kept))

    def facts(self) -> dict[str, str]:
        """What is told of them in a list."""
        if not self._triggers:
            return {}
        facts = {"schedules": "; ".join(self.texts.values())}
        dues = [due for due in map(self._scheduler.next_due, self._kept) if 0 < due < NEVER]
        if dues:
            facts["schedule_next"] = from_moment(min(dues)).isoformat(timespec="seconds").replace("+00:00", "Z")
        facts |= {f"schedule_{verdict}": str(count) for verdict, count in sorted(self.counts.items()) if count}
        errors: Sequence[str] = [schedule.last_error for schedule in self._kept if schedule.last_error]
        if errors:
            facts["schedule_error"] = errors[0]
        return facts
