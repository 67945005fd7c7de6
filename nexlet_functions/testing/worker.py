"""A function under test in a worker of its own, without NATS: the same process, policy and limits as on a node.

`WorkerHome` is where `load_function` keeps a function unless it is told to deploy it (`deployed`).
"""

from __future__ import annotations

import asyncio
import json as json_
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from nexlet_functions.functions import requests
from nexlet_functions.functions.deadlines import deadline_ns
from nexlet_functions.nexfile import FunctionFolder, FunctionRefused
from nexlet_functions.rules import Ceilings
from nexlet_functions.testing.granted import Double, Provided, header_block
from nexlet_functions.testing.invocation import Invocation, LogLine, Message
from nexlet_models.problems import Problem
from nexlet_models.start_request import SECRET_PREFIX, GrantsRequest, StartRequest
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.launching import Launched
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.worker.event import parse_headers
from nexlet_sandboxes.zygote import Zygote

__all__ = ["RecordingSink", "WorkerHome", "limits_of", "program_of", "resolve"]

WORKLOAD_ID = "test"
"""What `context.workload_id` says in a test."""


class WorkerHome:
    """A pool of workers for one program. Made by `open`."""

    def __init__(self, zygote: Zygote, pool: Pool, sink: RecordingSink, double: Double) -> None:
        self._zygote = zygote
        self._pool = pool
        self._sink = sink
        self._double = double

    @classmethod
    async def open(
        cls,
        name: str,
        program: Program,
        limits: Limits,
        profile: str,
        launched: Launched | None,
        *,
        grants: GrantsRequest,
        provided: Provided,
    ) -> WorkerHome:
        """Load a program.

        Args:
            name: what the function is called.
            launched: a zygote that is on its way already.
            grants: what it may touch: a double of
            provided: that.

        Raises:
            FunctionRefused: with what is wrong with it.
            SandboxError: no worker could be made.
        """
        zygote = await Zygote.start(modules=program.modules, short_lived=True, launched=launched)
        sink, double = RecordingSink(), Double(grants, provided)
        pool = Pool(zygote, program, limits, sink, profile=profile, answerer=double if grants else None)
        try:
            await pool.start()
        except LoadRefused as refused:
            await zygote.close()
            raise FunctionRefused(name, refused.problems) from None
        except BaseException:
            await zygote.close()
            raise
        return cls(zygote, pool, sink, double)

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        """What the module printed while it was loaded."""
        return tuple(self._sink.logs.get(0, ()))

    async def run(self, messages: Sequence[Message]) -> list[Invocation]:
        """These messages, all at once, to the end of each."""
        now = time.monotonic_ns()
        calls = [_call(message, now) for message in messages]
        results = await self._sink.run(self._pool, calls)
        return [self._invocation(call, result) for call, result in zip(calls, results, strict=True)]

    def _invocation(self, call: Call, result: Result) -> Invocation:
        return Invocation(
            outcome=result.outcome,
            code=result.code,
            data=result.body,
            headers=parse_headers(b"NATS/1.0\r\n" + result.headers),
            error=result.error,
            traceback=result.traceback,
            logs=tuple(self._sink.logs.pop(call.id, ())),
            metrics=tuple(self._sink.metrics.pop(call.id, ())),
            invocation_id=self._pool.invocation_id(call),
            duration_ms=result.run_ns / 1e6,
            cpu_ms=result.cpu_ns / 1e6,
            queue_ms=result.queue_ns / 1e6,
            peak_memory_bytes=result.peak_memory_bytes,
            published=tuple(self._double.published.pop(call.id, ())),
            requested=tuple(self._double.requested.pop(call.id, ())),
            called=tuple(self._double.called.pop(call.id, ())),
        )

    async def kv(self, bucket: str) -> dict[str, bytes]:
        """What is in a bucket."""
        return dict(self._double.kv[bucket])

    async def objects(self, bucket: str) -> dict[str, bytes]:
        """What is in an object store."""
        return dict(self._double.objects[bucket])

    async def close(self) -> None:
        """End everything."""
        await self._pool.close()
        await self._zygote.close()


class RecordingSink:
    """Takes what the pool gives back, by invocation."""

    def __init__(self) -> None:
        self.logs: dict[int, list[LogLine]] = {}
        self.metrics: dict[int, list[Mapping[str, Any]]] = {}

    async def run(self, pool: Pool, calls: Sequence[Call]) -> list[Result]:
        """Have calls run, all of which come at once."""
        loop = asyncio.get_running_loop()
        ended: list[asyncio.Future[Result]] = [loop.create_future() for _ in calls]
        for call, future in zip(calls, ended, strict=True):
            call.tag = future
            pool.enqueue(call)
        pool.flush()
        return await asyncio.gather(*ended)

    def finished(self, call: Call, result: Result) -> None:
        ended = call.tag
        assert isinstance(ended, asyncio.Future)
        if not ended.done():  # whoever waited may have been cancelled
            ended.set_result(result)

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        self.logs.setdefault(call_id, []).append(LogLine(stream, line.decode("utf-8", "replace")))

    def measured(self, call_id: int, data: bytes) -> None:
        self.metrics.setdefault(call_id, []).append(json_.loads(data))

    def flush(self) -> None:
        pass  # nothing is held back

    def changed(self) -> None:
        pass  # a test has no heartbeat


def _call(message: Message, now: int) -> Call:
    block = header_block(message.headers)
    return Call(
        message.subject.encode(),
        message.payload,
        reply=message.reply.encode(),
        headers=block,
        pattern=message.pattern,
        received_ns=now,
        attempt=message.attempt,
        deadline_ns=deadline_ns(block, now),
    )


def program_of(
    folder: FunctionFolder, *, environment: Mapping[str, str], modules: Mapping[str, tuple[str, ...]] | None = None
) -> Program:
    """What a worker is given of a folder.

    Args:
        environment: what `context.env` shows.
        modules: further modules that an operator permits.

    Raises:
        FunctionRefused: the source is an artifact elsewhere.
    """
    start = folder.start
    if start.source is None:
        problem = Problem(
            "the source is an artifact, which is not fetched here",
            "start_request.uri",
            advice="keep the source in the folder: 'source_file: function.py'",
            code="source-elsewhere",
        )
        raise FunctionRefused(folder.name, [problem])
    return Program(
        source=start.source,
        filename=folder.source_name,
        files=start.files,
        handler=start.handler,
        environment=environment,
        workload_id=WORKLOAD_ID,
        name=folder.name,
        namespace="test",
        patterns=tuple(trigger.pattern for trigger in start.triggers) or (WORKLOAD_ID,),
        modules=modules or {},
        batch=start.batch,
    )


def limits_of(start: StartRequest) -> Limits:
    """The limits of a start request, where an operator left the ceilings as they are."""
    limits = requests.limits_of(start, Ceilings.model_validate({}))
    return limits if start.limits.max_reply is None else replace(limits, max_reply=start.limits.max_reply)


def resolve(
    environment: Mapping[str, SecretStr], given: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """The environment with its secrets.

    Raises:
        KeyError: one of them was not given.
    """
    resolved = {name: value.get_secret_value() for name, value in environment.items()} | dict(given)
    for name, value in resolved.items():
        if value.startswith(SECRET_PREFIX):
            key = value.removeprefix(SECRET_PREFIX)
            if key not in secrets:
                raise KeyError(f"{name} is {value}: give it with secrets={{{key!r}: ...}}")
            resolved[name] = secrets[key]
    return resolved
