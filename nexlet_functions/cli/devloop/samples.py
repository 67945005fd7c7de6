"""Sample events sent to what runs, and what came back: the answer, how it ended, and what was logged meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nexlet_functions.cli.devloop.deployments import Deployed
    from nexlet_functions.cli.watching import LogRecord, Watch
    from nexlet_functions.natsio import Connection
    from nexlet_functions.testing.events import SampleEvent
    from nexlet_models.events import WorkloadTriggeredEvent

__all__ = ["Played", "play"]

EVENT_TIMEOUT: Final = 10.0
"""Seconds from an answer to the event about it, on a machine that is very busy; it is sent with the answer."""


@dataclass(frozen=True, slots=True)
class Played:
    """A sample event that was sent.

    Attributes:
        deployed: to whom.
        event, subject: what, and where.
        answer: of `nexlet_functions.cli.invoke.answer_fields`; empty without an answer.
        triggered: what was told of the invocation; None where nothing was.
        seconds: from the message to the answer.
        differences: what is otherwise than the event expects, a line each.
        logs: what the function logged.
    """

    deployed: Deployed
    event: SampleEvent
    subject: str
    answer: dict[str, Any]
    triggered: WorkloadTriggeredEvent | None
    seconds: float
    differences: tuple[str, ...]
    logs: tuple[LogRecord, ...] = field(repr=False)


async def play(connection: Connection, watch: Watch, deployed: Deployed, event: SampleEvent) -> Played:
    """Send it, and wait until all that comes of it has come."""
    from nexlet_functions.cli.answers import answer_fields
    from nexlet_functions.natsio.errors import NatsioError
    from nexlet_functions.natsio.protocol import encode_headers

    subject = event.subject or deployed.subjects[0]
    limits = deployed.function.start.limits
    patience = limits.timeout + (limits.queue_timeout or limits.timeout) + EVENT_TIMEOUT
    ended = watch.invocation(deployed.workload_id, subject)
    watch.take_lines(deployed.workload_id)
    began = ended_at = time.perf_counter()
    fields: dict[str, Any] = {}
    body: bytes | None = None
    triggered: WorkloadTriggeredEvent | None = None
    try:
        if deployed.answers(subject):
            answer = await connection.request(
                subject, event.payload, headers=dict(event.headers) or None, timeout=patience
            )
            fields, body = answer_fields(answer), answer.payload
        else:
            headers = encode_headers(event.headers) if event.headers else b""
            connection.publish(subject, event.payload, headers=headers)
        ended_at = time.perf_counter()
        triggered = await asyncio.wait_for(ended, patience)
        if body is None:  # without an answer, the event is when it is known to have ended
            ended_at = time.perf_counter()
    except TimeoutError:
        differences = [f"nothing was heard of the invocation within {patience:g} s"]
    except NatsioError as error:
        ended_at = time.perf_counter()
        differences = [str(error)]
    else:
        differences = event.differences(
            outcome=triggered.outcome or "",
            code=fields.get("code"),
            data=body,
            headers=fields.get("headers"),
            error=triggered.error or "",
        )
    return Played(
        deployed,
        event,
        subject,
        fields,
        triggered,
        ended_at - began,
        tuple(differences),
        tuple(watch.take_lines(deployed.workload_id)),
    )
