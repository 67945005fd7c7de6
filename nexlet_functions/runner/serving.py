"""Triggers for simple agents: an async function for each message, and everything around it done.

`serve_triggers` subscribes, runs the handler for each message (a bounded number at once, a bounded number waiting),
answers with the headers that Nex's clients look for, and publishes one event for each invocation. For an agent that
needs more than that, `Services.register_trigger` takes any sink.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.protocol import clean_header_value, decode_headers, encode_headers
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.micro import error_headers, new_id
from nexlet_functions.runner.services import Services, TriggerSpec
from nexlet_models.connection import NatsConnectionData
from nexlet_models.events import EventName, WorkloadTriggeredEvent

__all__ = ["ServedTriggers", "TriggerMessage", "serve_triggers"]

_MAX_TEXT = 1024
"""Characters of an error in headers and events."""


@dataclass(frozen=True, slots=True)
class TriggerMessage:
    """One message on a trigger's subject."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    reply: str


Handler = Callable[[TriggerMessage], Awaitable[bytes | None]]
"""Returns the answer. What it raises is answered as an error: an `AgentError` with its status, anything else as 500."""


async def serve_triggers(
    services: Services,
    workload_id: str,
    namespace: str,
    creds: NatsConnectionData,
    triggers: Sequence[TriggerSpec | str],
    handler: Handler,
    *,
    at_once: int = 64,
    waiting: int = 1024,
) -> ServedTriggers:
    """Subscribe a workload to its triggers and serve them. When this returns, the subscriptions are live.

    Args:
        triggers: subjects, or whole specifications where a queue group is wanted.
        at_once: how many messages are handled side by side.
        waiting: how many more may wait; one more is answered 429 at once.

    Raises:
        TriggerRefused, AgentError: see `Services.register_trigger`.
    """
    served = ServedTriggers(services, workload_id, namespace, handler, at_once=at_once, waiting=waiting)
    specs = [TriggerSpec(one) if isinstance(one, str) else one for one in triggers]
    await services.register_trigger(workload_id, namespace, creds, specs, served, on_connection=served.answer_on)
    return served


class ServedTriggers:
    """The sink of one workload's messages."""

    def __init__(
        self, services: Services, workload_id: str, namespace: str, handler: Handler, *, at_once: int, waiting: int
    ) -> None:
        self._services = services
        self._workload_id = workload_id
        self._namespace = namespace
        self._handler = handler
        self._slots = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._running: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._ours = {"workload_id": workload_id, "namespace": namespace}

    def answer_on(self, connection: Connection) -> None:
        """Where the messages come from is where the answers go."""
        self._connection = connection

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """One message (`MessageSink`)."""
        message = TriggerMessage(subject, payload, decode_headers(headers), reply)
        now = time.perf_counter()
        if len(self._running) >= self._most:
            self._end(message, now, now, None, AgentError("too many messages are waiting", status=429), "rejected")
            return
        task = asyncio.create_task(self._handle(message, now), name=f"trigger-{self._workload_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self, grace: float) -> None:
        """Take no more messages, give what runs `grace` seconds, answer the rest 503."""
        await self._services.unregister_trigger(self._workload_id)
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _handle(self, message: TriggerMessage, came: float) -> None:
        began = came
        try:
            async with self._slots:
                began = time.perf_counter()
                answer = await self._handler(message)
            self._end(message, came, began, answer, None, "ok")
        except asyncio.CancelledError:
            self._end(message, came, began, None, AgentError("the workload is stopping", status=503), "unavailable")
            raise
        except AgentError as error:
            outcome = "rejected_by_function" if error.status < 500 else "error"
            self._end(message, came, began, None, error, outcome)
        except Exception as error:  # noqa: BLE001  # the workload's failure is the requester's answer
            text = f"{type(error).__name__}: {error}"
            self._end(message, came, began, None, AgentError(text), "error")

    def _end(
        self,
        message: TriggerMessage,
        came: float,
        began: float,
        answer: bytes | None,
        error: AgentError | None,
        outcome: str,
    ) -> None:
        """One answer where one is awaited, one event in any case."""
        headers = dict(self._ours)
        text = ""
        if error is not None:
            text = clean_header_value(error.text.partition("\n")[0])[:_MAX_TEXT]
            headers |= {"error": text, **error_headers(error.status, error.text)}
        if message.reply and self._connection is not None:
            self._connection.publish(message.reply, answer or b"", headers=encode_headers(headers))
        self._services.emit_event(
            self._namespace,
            EventName.WORKLOAD_TRIGGERED,
            WorkloadTriggeredEvent(
                id=self._workload_id,
                namespace=self._namespace,
                duration=round((time.perf_counter() - began) * 1000, 3),
                invocation_id=new_id(),
                subject=message.subject,
                outcome=outcome,
                error=text or None,
                queue_ms=round((began - came) * 1000, 3),
                attempt=1,
            ),
        )
