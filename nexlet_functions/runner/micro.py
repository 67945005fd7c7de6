"""A NATS micro service over one of our connections: endpoints, discovery, statistics.

- `Request`, `Answer`, `Failure`: what a handler is given, returns and raises.
- `Endpoint`: a subject, its queue group and its handler.
- `MicroService`: serves them, and `$SRV.PING`, `$SRV.INFO`, `$SRV.STATS` (for all, by name, by id).

nats-py has a micro service, too. It handles one request at a time on each endpoint, belongs to one client and ends with
it, and answers a handler's bug with the bug's text. Here each request runs in a task of its own, within a bound, gets
exactly one answer whatever happens, and the subscriptions outlive reconnections.

Source of the discovery messages: NATS ADR-32, https://github.com/nats-io/nats-architecture-and-design.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.protocol import encode_headers
from nexlet_functions.natsio.subscriptions import Subscription
from nexlet_models.base import timestamp

__all__ = ["Answer", "Endpoint", "Failure", "MicroService", "Request", "error_headers", "new_id"]

_MAX_HEADER_TEXT = 1024
"""Characters of an error that go into a header; a body holds the rest."""
_ALPHABET = string.digits + string.ascii_letters

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


def new_id() -> str:
    """22 characters nobody else has, in the look of NATS's own ids."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(22))


def error_headers(code: int, text: str) -> dict[str, str]:
    """What says that an answer is an error: the first line of `text`, and a code as HTTP has them."""
    first = text.strip().partition("\n")[0][:_MAX_HEADER_TEXT]
    return {"Nats-Service-Error": first or "error", "Nats-Service-Error-Code": str(code)}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    subject: str
    payload: bytes
    reply: str
    headers: bytes

    def token(self, index: int) -> str:
        """A token of the subject, by its place, from 0."""
        return self.subject.split(".")[index]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Failure(Exception):
    """A request that is answered with an error.

    Attributes:
        code: as HTTP has them.
        text: what went wrong; its first line becomes the header.
        body: the body all the same.
    """

    def __init__(self, code: int, text: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.body = body
        self.headers = headers or {}

    def answer(self) -> Answer:
        return Answer(self.body, {**error_headers(self.code, self.text), **self.headers})


Handler = Callable[[Request], Awaitable[Answer | None]]
"""Returns the answer, or None where silence is the answer; raises `Failure`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where something is served.

    Attributes:
        name: shown by discovery.
        subject: may have wildcards.
        queue_group: one of its members gets each request; "" for every one.
    """

    name: str
    subject: str
    queue_group: str
    handler: Handler


class _Served:
    """An endpoint's subscription and its numbers; the sink of its requests."""

    def __init__(self, service: MicroService, endpoint: Endpoint) -> None:
        self.service = service
        self.endpoint = endpoint
        self.requests = self.errors = self.nanoseconds = 0
        self.last_error = ""

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        self.requests += 1
        self.service._begin(self, Request(subject, payload, reply, headers))

    def failed(self, failure: Failure) -> None:
        self.errors += 1
        self.last_error = f"{failure.code}:{failure.text.partition(chr(10))[0]}"


class _Discovery:
    """The sink of one of the `$SRV` verbs."""

    def __init__(self, connection: Connection, describe: Callable[[], dict[str, Any]]) -> None:
        self._connection = connection
        self._describe = describe

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        if reply:
            self._connection.publish(reply, orjson.dumps(self._describe()))


class MicroService:
    """A running service. `start` it, `stop` it.

    Attributes:
        id: this instance's.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        name: str,
        version: str,
        endpoints: Sequence[Endpoint],
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        max_requests: int = 512,
    ) -> None:
        """Nothing is subscribed yet.

        Args:
            max_requests: how many may be served at once, over all endpoints; one more is answered 429 at once.
        """
        self.id = new_id()
        self._connection = connection
        self._name = name
        self._version = version
        self._description = description
        self._metadata = dict(metadata or {})
        self._served = [_Served(self, endpoint) for endpoint in endpoints]
        self._max_requests = max_requests
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()
        self._started = timestamp()

    async def start(self, *, timeout: float = 10.0) -> None:
        """Subscribe to everything. When it returns, requests are served.

        Args:
            timeout: seconds, for a connection to be there and the server to answer.

        Raises:
            SubscriptionRefused, ConnectFailed, ConnectionLost, ConnectionClosed: see `Connection.subscribe`; nothing
                stays subscribed.
        """
        wanted: list[Any] = [
            self._connection.subscribe(one.endpoint.subject, queue=one.endpoint.queue_group, sink=one, timeout=timeout)
            for one in self._served
        ]
        for verb, describe in (("PING", self._ping), ("INFO", self.info), ("STATS", self.stats)):
            discovery = _Discovery(self._connection, describe)
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{self._name}", f"$SRV.{verb}.{self._name}.{self.id}"):
                wanted.append(self._connection.subscribe(subject, sink=discovery, timeout=timeout))
        results = await asyncio.gather(*wanted, return_exceptions=True)
        self._subscriptions = [one for one in results if isinstance(one, Subscription)]
        problem = next((one for one in results if isinstance(one, BaseException)), None)
        if problem is not None:
            await self._unsubscribe()
            raise problem

    async def stop(self, *, grace: float = 5.0) -> None:
        """Serve nothing new, give what runs `grace` seconds to end, and answer the rest 503."""
        await self._unsubscribe()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _unsubscribe(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(one.unsubscribe() for one in subscriptions))

    # --- serving -------------------------------------------------------------------------------------------------

    def _begin(self, served: _Served, request: Request) -> None:
        if len(self._running) >= self._max_requests:
            failure = Failure(429, f"busy: {self._max_requests} requests are being served")
            served.failed(failure)
            self._send(request, failure.answer())
            return
        task = asyncio.create_task(self._serve(served, request), name=f"serve-{served.endpoint.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, served: _Served, request: Request) -> None:
        began = time.perf_counter_ns()
        answer: Answer | None
        try:
            answer = await served.endpoint.handler(request)
        except Failure as failure:
            served.failed(failure)
            answer = failure.answer()
        except asyncio.CancelledError:
            self._send(request, Failure(503, "stopping").answer())
            raise
        except Exception as error:  # noqa: BLE001  # the requester gets an answer, the log the cause
            error_id = new_id()
            _log.error("a request failed", endpoint=served.endpoint.name, error_id=error_id, exc_info=error)
            bug = Failure(500, f"internal error {error_id}", _error_body("internal error", error_id))
            served.failed(bug)
            answer = bug.answer()
        finally:
            served.nanoseconds += time.perf_counter_ns() - began
        if answer is not None:
            self._send(request, answer)

    def _send(self, request: Request, answer: Answer) -> None:
        if not request.reply:
            return
        headers = encode_headers(answer.headers)
        largest = self._connection.max_payload
        if len(headers) + len(answer.body) > largest:
            text = f"the answer is {len(answer.body)} bytes; the server takes {largest}, headers included"
            answer = Failure(500, text, _error_body(text, new_id())).answer()
            headers = encode_headers(answer.headers)
        if not self._connection.publish(request.reply, answer.body, headers=headers):
            _log.warning("an answer was dropped, too much waits to be sent", subject=request.subject)

    # --- what it tells of itself -----------------------------------------------------------------------------------

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self._name,
            "id": self.id,
            "version": self._version,
            "metadata": self._metadata,
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def info(self) -> dict[str, Any]:
        """What `$SRV.INFO` answers."""
        return self._identity("info") | {
            "description": self._description,
            "endpoints": [
                {
                    "name": one.endpoint.name,
                    "subject": one.endpoint.subject,
                    "queue_group": one.endpoint.queue_group,
                    "metadata": None,
                }
                for one in self._served
            ],
        }

    def stats(self) -> dict[str, Any]:
        """What `$SRV.STATS` answers; times in nanoseconds."""
        return self._identity("stats") | {
            "started": self._started,
            "endpoints": [
                {
                    "name": one.endpoint.name,
                    "subject": one.endpoint.subject,
                    "queue_group": one.endpoint.queue_group,
                    "num_requests": one.requests,
                    "num_errors": one.errors,
                    "last_error": one.last_error,
                    "processing_time": one.nanoseconds,
                    "average_processing_time": one.nanoseconds // max(1, one.requests),
                }
                for one in self._served
            ],
        }


def _error_body(text: str, error_id: str) -> bytes:
    return orjson.dumps({"error": text, "error_id": error_id})
