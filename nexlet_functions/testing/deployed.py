"""A function under test where it is in production: deployed by way of a node, triggered over NATS.

Server, node and nexlet are started for it, on this machine and for it alone: a nats-server on a port of its own choice,
the stand-in node of `nexfn dev`, and the nexlet itself, in this process. A message is published or requested on the
function's subjects by a client of the kind that anyone has; what the function printed, measured and took is read off
Nex's feeds, where everybody reads it. Nothing in the nexlet knows that it is a test.
"""

from __future__ import annotations

import asyncio
import json as json_
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import structlog
from nats.js.api import KeyValueConfig
from nats.js.errors import BucketNotFoundError, NoKeysError, NotFoundError

from nexlet_functions.control import ControlClient, ControlRefused
from nexlet_functions.devnode.buckets import make_buckets
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.devnode.streams import make_streams
from nexlet_functions.functions.deadlines import DEADLINE_HEADER
from nexlet_functions.functions.dispatch import OF_BATCH
from nexlet_functions.functions.hops import HOPS_HEADER
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.natsio.protocol import decode_headers, encode_headers
from nexlet_functions.nexfile import FunctionFolder, FunctionRefused
from nexlet_functions.nexlet import Nexlet
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_functions.shipping import workload_of
from nexlet_functions.testing.granted import Provided, Sent, answer_of
from nexlet_functions.testing.invocation import Invocation, LogLine, Message
from nexlet_models import subjects
from nexlet_models.durations import format_duration
from nexlet_models.events import INVOCATION_HEADER, EventName, WorkloadTriggeredEvent
from nexlet_models.problems import Problem
from nexlet_models.start_request import LimitsRequest, StartRequest, Trigger
from nexlet_models.subjects import matches
from nexlet_sandboxes.language import check
from nexlet_sandboxes.launching import Launched
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.probe import ADVICE
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote

__all__ = ["NAMESPACE", "NatsHome"]

NAMESPACE: Final = "test"
"""As in a worker without NATS."""

_PATIENCE: Final = 20.0
"""Seconds for what takes milliseconds, on a machine that is very busy, beside what the function's limits allow."""


_OURS: Final = frozenset(
    {"workload_id", "namespace", "error", "nats-service-error", "nats-service-error-code", INVOCATION_HEADER.lower()}
)
"""Headers of an answer that are not the function's, in small letters."""

_MESSAGE_ID: Final = "Nats-Msg-Id"

_DURATIONS: Final = ("timeout", "load_timeout", "queue_timeout", "idle", "wait")
_WORKERS: Final = {"min_workers": "min", "max_workers": "max", "wait": "wait"}


@dataclass(slots=True)
class _Heard:
    """What the feeds have told of one invocation so far."""

    logs: list[LogLine] = field(default_factory=list)
    metrics: list[Mapping[str, Any]] = field(default_factory=list)
    event: WorkloadTriggeredEvent | None = None


class NatsHome:
    """One deployed function, and everything around it. Made by `open`. A `MessageSink` of the feeds."""

    def __init__(self, folder: FunctionFolder, patience: float) -> None:
        self._silent = frozenset(
            number for number, trigger in enumerate(folder.start.triggers) if not _answers(trigger)
        )
        self._patience = patience
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._heard: dict[str, _Heard] = {}
        self._more = asyncio.Condition()
        self._told: set[asyncio.Task[None]] = set()
        self._published: dict[str, dict[str, Sent]] = {}
        """By who published them, an invocation or a message of a stream (see `Dispatcher.identity`), and their ids."""
        self._requested: list[Sent] = []
        self._nexlet: Nexlet | None = None
        self._url = ""
        self._asking = 0
        """Requests under way; -1 while a message is, for which nobody gets an answer."""

    @classmethod
    async def open(
        cls,
        folder: FunctionFolder,
        program: Program,
        limits: Limits,
        changed: Mapping[str, Any],
        profile: str | None,
        launched: Launched | None,
        provided: Provided,
    ) -> NatsHome:
        """Start everything, and deploy the function.

        Args:
            program, limits: as in a worker without NATS: environment, secrets and modules are in the program.
            changed: those of the limits that are not the Nexfile's.
            profile: None is the nexlet's default.
            launched: a zygote that is on its way already.
            provided: what of the things that it was granted is there.

        Raises:
            FunctionRefused: the node or the nexlet does not take it.
            ServerNotFound: there is no nats-server.
            ValueError: a limit that cannot be said in a start request.
        """
        try:
            request = _request(folder, program, changed, profile)
        except ValueError:
            if launched is not None:
                launched.end()
            raise
        home = cls(folder, limits.timeout + limits.queue_timeout + _PATIENCE)
        try:
            await home._start(program, launched)
            await home._provide(folder.start, provided)
            await home._deploy(folder, program, request)
        except BaseException:
            await home.close()
            raise
        return home

    async def _start(self, program: Program, launched: Launched | None) -> None:
        stack = self._stack
        if not structlog.is_configured():
            # Nobody has said where logs go, and by default they all go between a test's own output.
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
            stack.callback(structlog.reset_defaults)
        # First of all, before anything here is connected to anything.
        zygote = asyncio.ensure_future(Zygote.start(modules=program.modules, short_lived=True, launched=launched))
        await asyncio.sleep(0)
        server = EmbeddedServer()
        stack.push_async_callback(server.stop)
        try:
            await server.start()
            self._url = server.url
            node = await stack.enter_async_context(await DevNode.start(server.url))
        except BaseException:
            await (await zygote).close()
            raise
        settings = Settings.model_validate(
            {
                "servers": (server.url,),
                "no_state": True,
                "grace": 0.5,
                "modules": program.modules,
                "permit_missing_layers": tuple(ADVICE),  # on whatever machine someone runs their tests
                "defaults": {"profiles": tuple(name for name in PROFILES if name != "unsafe-dev")},
            }
        )
        nexlet = await stack.enter_async_context(await Nexlet.start(SettingsHolder(settings), zygote=zygote))
        self._nexlet = nexlet
        connection = await Connection.open(Credentials(servers=(server.url,), name="test"))
        self._connection = connection
        stack.push_async_callback(connection.close)
        for feeds in (subjects.all_events(), subjects.all_logs(), subjects.all_metrics()):
            await connection.subscribe(feeds, sink=self)
        await nexlet.wait_registered()
        # A node takes a nexlet for healthy from its first heartbeat on, and tells nobody when that has come.
        async with asyncio.timeout(_PATIENCE):
            while not node.registrations.healthy(settings.register_type):  # noqa: ASYNC110  # as just said
                await asyncio.sleep(0.002)

    async def _provide(self, start: StartRequest, provided: Provided) -> None:
        """Streams, buckets, stores and answers as the test wants them, and an ear for what is published."""
        assert self._connection is not None
        connection, grants = self._connection, start.grants
        await make_streams(connection.client, start)
        if start.timed_triggers:
            await make_buckets(self._url, Settings.model_fields["schedules_bucket"].default)
        jetstream = connection.client.jetstream()
        for bucket, values in provided.buckets(grants, "kv").items():
            made = await jetstream.create_key_value(KeyValueConfig(bucket=bucket))
            for key, value in values.items():
                await made.put(key, value)
        for bucket, values in provided.buckets(grants, "objects").items():
            store = await jetstream.create_object_store(bucket)
            for name, value in values.items():
                await store.put(name, value)
        for pattern in grants.publish:
            await connection.subscribe(pattern, sink=_Ear(self._hear_published))
        for pattern in provided.replies:
            await connection.subscribe(pattern, sink=_Ear(partial(self._answer, provided, pattern)))

    def _hear_published(self, subject: str, _: str, payload: bytes, headers: bytes) -> None:
        said = decode_headers(headers) if headers else {}
        named = said.get(_MESSAGE_ID, "")
        invocation = named.rpartition(":")[0].removesuffix(OF_BATCH)
        if invocation:  # what is published by others says nothing of an invocation
            # Under its name, since grants that overlap have it heard more than once.
            self._published.setdefault(invocation, {})[named] = Sent(subject, payload, _own(said))

    def _answer(self, provided: Provided, pattern: str, subject: str, reply: str, payload: bytes, block: bytes) -> None:
        if next(each for each in provided.replies if matches(each, subject)) != pattern:
            return  # an earlier one answers
        sent = Sent(subject, payload, _own(decode_headers(block)))
        self._requested.append(sent)
        headers, data = answer_of(provided.replies[pattern], sent)
        assert self._connection is not None
        self._connection.publish(reply, data, headers=encode_headers(headers) if headers else b"")

    async def kv(self, bucket: str) -> dict[str, bytes]:
        """What is in a bucket."""
        assert self._connection is not None
        try:
            found = await self._connection.client.jetstream().key_value(bucket)
        except BucketNotFoundError:
            raise KeyError(bucket) from None
        try:
            keys = await found.keys()
        except NoKeysError:
            return {}
        return {key: (await found.get(key)).value or b"" for key in sorted(keys)}

    async def objects(self, bucket: str) -> dict[str, bytes]:
        """What is in an object store."""
        assert self._connection is not None
        try:
            found = await self._connection.client.jetstream().object_store(bucket)
        except BucketNotFoundError:
            raise KeyError(bucket) from None
        try:
            told = await found.list()
        except NotFoundError:
            return {}
        return {each.name: (await found.get(each.name)).data or b"" for each in told if each.name and not each.deleted}

    async def _deploy(self, folder: FunctionFolder, program: Program, request: Mapping[str, Any]) -> None:
        assert self._connection is not None
        workload = workload_of(folder, NAMESPACE).model_copy(
            update={"run_request": json_.dumps(request, ensure_ascii=False), "workload_type": "python", "tags": {}}
        )
        try:
            await ControlClient(self._connection.client, NAMESPACE, nodes=1).start(workload)
        except ControlRefused as refused:
            raise _refused(folder, program, refused) from None

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        """What the module printed while it was loaded."""
        return tuple(self._heard.get("", _Heard()).logs)

    async def run(self, messages: Sequence[Message]) -> list[Invocation]:
        """These messages, all at once, to the end of each. Those that nobody is answered are sent one by one.

        Raises:
            ValueError: see `_run`.
        """
        return await asyncio.gather(*(self._run(message) for message in messages))

    async def _run(self, message: Message) -> Invocation:
        """One message, to its end.

        Raises:
            ValueError: it says what is not a test's to say here: which delivery it is, its number in its stream, or
                when a schedule has it due.
        """
        if message.scheduled:
            raise ValueError("over NATS a schedule runs by the clock: test it with nats=False")
        if message.attempt != 1:
            raise ValueError("over NATS the attempt is counted where messages are kept: leave it out")
        if message.sequence is not None:
            raise ValueError("over NATS a stream numbers its messages: leave sequence out")
        if message.stream:
            return await self._keep(message)
        if message.reply and message.pattern not in self._silent:
            return await self._ask(message)
        return await self._tell(message)

    async def _ask(self, message: Message) -> Invocation:
        assert self._connection is not None
        async with self._more:  # not beside a message that is known by being the only one
            await self._more.wait_for(lambda: self._asking >= 0)
            self._asking += 1
        asked_before = len(self._requested)
        try:
            answer = await self._connection.request(
                message.subject,
                message.payload,
                headers={INVOCATION_HEADER: "?", **message.headers},
                timeout=self._patience,
            )
            headers = {name.lower(): value for name, value in answer.headers.items()}
            heard = await self._until(lambda: headers[INVOCATION_HEADER.lower()])
        finally:
            await self._now(-1)
        return self._invocation(
            heard,
            asked_before,
            code=int(headers.get("nats-service-error-code", "200")),
            data=answer.payload,
            headers={name: value for name, value in answer.headers.items() if name.lower() not in _OURS},
        )

    async def _tell(self, message: Message) -> Invocation:
        """Publish, and wait for the one invocation that then is heard of: nothing else is under way meanwhile."""
        assert self._connection is not None
        async with self._more:
            await self._more.wait_for(lambda: self._asking == 0)
            self._asking = -1
        try:
            before, asked_before = set(self._heard), len(self._requested)
            block = encode_headers(message.headers) if message.headers else b""
            self._connection.publish(message.subject, message.payload, headers=block)
            heard = await self._until(
                lambda: next(
                    (
                        one
                        for one, heard in self._heard.items()
                        if one not in before and heard.event is not None and heard.event.stream is None
                    ),
                    None,
                )
            )
            await self._hear_all()
        finally:
            await self._now(+1)
        return self._invocation(heard, asked_before, code=0, data=b"", headers={}, answered=False)

    async def _keep(self, message: Message) -> Invocation:
        """Have the stream keep it, and wait for the first attempt at it."""
        assert self._connection is not None
        async with self._more:  # not beside a message that is known by being the only one
            await self._more.wait_for(lambda: self._asking >= 0)
            self._asking += 1
        asked_before = len(self._requested)
        try:
            kept = await self._connection.client.jetstream().publish(
                message.subject, message.payload, stream=message.stream, headers=dict(message.headers) or None
            )
            first = (message.stream, kept.seq, 1)
            heard = await self._until(
                lambda: next(
                    (
                        one
                        for one, heard in self._heard.items()
                        if (event := heard.event) is not None and (event.stream, event.sequence, event.attempt) == first
                    ),
                    None,
                )
            )
            await self._hear_all()
        finally:
            await self._now(-1)
        return self._invocation(heard, asked_before, code=0, data=b"", headers={}, answered=False)

    async def _hear_all(self) -> None:
        """No answer came behind what it published: that is here once each has told the other all it had to say."""
        assert self._nexlet is not None
        assert self._connection is not None
        for connection in (*self._nexlet.runner.connections, self._connection):
            await connection.flush(self._patience)

    def _invocation(self, heard: _Heard, asked_before: int, **answer: Any) -> Invocation:
        assert heard.event is not None
        return replace(
            _invocation(heard, **answer),
            published=tuple(self._published_in(heard.event)),
            requested=tuple(self._requested[asked_before:]),
        )

    def _published_in(self, event: WorkloadTriggeredEvent) -> list[Sent]:
        published = self._published.pop(event.invocation_id or "", {})
        # What is published for a message of a stream is named after that, the same at every attempt at it.
        for name in [one for one in self._published if event.stream is not None and _is_of(one, event)]:
            published |= self._published.pop(name)
        return list(published.values())

    async def _now(self, change: int) -> None:
        async with self._more:
            self._asking += change
            self._more.notify_all()

    async def _until(self, which: Callable[[], str | None]) -> _Heard:
        """What was heard of an invocation, once its event has come: lines and metrics come before that."""
        async with asyncio.timeout(self._patience), self._more:
            await self._more.wait_for(
                lambda: (found := self._heard.get(which() or "")) is not None and found.event is not None
            )
            return self._heard.pop(which() or "")

    async def close(self) -> None:
        """End everything."""
        await self._stack.aclose()

    # --- the feeds -------------------------------------------------------------------------------------------------

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        tokens = subject.split(".")
        invocation = decode_headers(headers).get(INVOCATION_HEADER, "") if headers else ""
        if tokens[3] == "logs":
            self._of(invocation).logs.append(LogLine(tokens[-1], payload.decode("utf-8", "replace")))
        elif tokens[3] == "metrics" and invocation:
            self._of(invocation).metrics.append(json_.loads(payload))
        elif tokens[-1] == EventName.WORKLOAD_TRIGGERED:
            event = WorkloadTriggeredEvent.from_json(payload)
            self._of(event.invocation_id or "").event = event
            task = asyncio.get_running_loop().create_task(self._now(0))
            self._told.add(task)
            task.add_done_callback(self._told.discard)

    def _of(self, invocation: str) -> _Heard:
        return self._heard.setdefault(invocation, _Heard())


class _Ear:
    """A `MessageSink` of one callable."""

    def __init__(self, hear: Callable[[str, str, bytes, bytes], None]) -> None:
        self._hear = hear

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        """See `nexlet_functions.natsio.MessageSink`."""
        self._hear(subject, reply, payload, headers)


def _is_of(name: str, event: WorkloadTriggeredEvent) -> bool:
    """Whether something was published for the message of this event: `NAMESPACE:STREAM:CONSUMER:SEQUENCE:TIME` says."""
    whose, *numbers = name.rsplit(":", 2)
    return whose.startswith(f"{NAMESPACE}:{event.stream}:") and numbers[:1] == [str(event.sequence)]


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that the function gave to a message of its own; the rest the nexlet did."""
    return {name: value for name, value in headers.items() if name not in (_MESSAGE_ID, HOPS_HEADER, DEADLINE_HEADER)}


def _answers(trigger: object) -> bool:
    """Whether a requester hears of the function: on a subject that a stream keeps it is the stream that answers."""
    return isinstance(trigger, Trigger) and trigger.reply


def _request(
    folder: FunctionFolder, program: Program, changed: Mapping[str, Any], profile: str | None
) -> dict[str, Any]:
    """The start request, with what the test wants otherwise. The environment is complete: no secret is left to find."""
    request = {**folder.request, "environment": dict(program.environment)}
    if profile is not None:
        request["sandbox"] = profile
    limits, workers = dict(request.get("limits") or {}), dict(request.get("workers") or {})
    for name, value in changed.items():
        said = format_duration(value) if name in _DURATIONS else value
        if name in _WORKERS:
            workers[_WORKERS[name]] = said
        elif name in LimitsRequest.model_fields:
            limits[name] = said
        else:
            raise ValueError(f"the limit {name} is none that a node can be told")
    return request | ({"limits": limits} if limits else {}) | ({"workers": workers} if workers else {})


def _refused(folder: FunctionFolder, program: Program, refused: ControlRefused) -> FunctionRefused:
    """What `check` says, where it says something: the node's word is one text, without places for programs."""
    problems = check(program)
    return FunctionRefused(folder.name, problems or [Problem(refused.text or refused.headline, code="node-refused")])


def _invocation(
    heard: _Heard, *, code: int, data: bytes, headers: Mapping[str, str], answered: bool = True
) -> Invocation:
    event = heard.event
    assert event is not None
    outcome = Outcome(event.outcome or "")
    error = event.error or ""
    logs, traceback = _without_our_words(heard.logs, event, outcome)
    return Invocation(
        outcome=outcome,
        code=code,
        data=data,
        headers=headers,
        error=error,
        traceback=traceback,
        logs=tuple(logs),
        metrics=tuple(heard.metrics),
        invocation_id=event.invocation_id or "",
        duration_ms=event.duration,
        cpu_ms=event.cpu_ms or 0.0,
        queue_ms=event.queue_ms or 0.0,
        peak_memory_bytes=event.peak_memory_bytes or 0,
        answered=answered,
    )


def _without_our_words(
    logs: Sequence[LogLine], event: WorkloadTriggeredEvent, outcome: Outcome
) -> tuple[Sequence[LogLine], str]:
    """The function's own lines, and the traceback: the nexlet ends what it has heard of a failure with its own word."""
    if outcome is Outcome.OK or not logs or logs[-1].stream != "stderr":
        return logs, ""
    last = logs[-1].text
    if last == f"invocation {event.invocation_id}: {outcome.value}: {event.error}":
        return logs[:-1], ""
    if outcome is Outcome.ERROR and last.startswith("Traceback"):
        return logs[:-1], last
    return logs, ""
