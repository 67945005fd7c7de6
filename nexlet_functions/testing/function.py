"""A function's folder, loaded into a real worker: `load_function`, and what an invocation gives back.

The worker is the one that runs functions in production: same process, same policy, same limits. What is missing is the
way to it: no NATS, no nexlet, no node. An invocation that fails is a value with its outcome, not an exception.
"""

from __future__ import annotations

import asyncio
import json as json_
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from nexlet_functions.functions import requests
from nexlet_functions.functions.deadlines import deadline_ns
from nexlet_functions.nexfile import FunctionFolder, FunctionRefused, read_function
from nexlet_functions.rules import Ceilings
from nexlet_functions.testing.events import SampleEvent
from nexlet_models.problems import Problem
from nexlet_models.start_request import SECRET_PREFIX, StartRequest
from nexlet_models.subjects import matches
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.launching import Launched, launch_early
from nexlet_sandboxes.outcomes import LoadRefused, Outcome
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.profiles import DEFAULT
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.worker.event import parse_headers
from nexlet_sandboxes.zygote import Zygote

__all__ = ["AsyncFunction", "Function", "Invocation", "LogLine", "load_function"]

WORKLOAD_ID = "test"
"""What `context.workload_id` says in a test."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output.

    Attributes:
        stream: "stdout" or "stderr".
        text: as it goes out on the log feed; a line of `context.log` is JSON.
    """

    stream: str
    text: str

    def json(self) -> Any:
        """A line of `context.log`, as an object: `level`, `message` and the fields.

        Raises:
            ValueError: it was printed, and is not JSON.
        """
        return json_.loads(self.text)


@dataclass(frozen=True, slots=True)
class Invocation:
    """How one invocation ended.

    Attributes:
        outcome: `Outcome.OK`, or what went wrong.
        code: what the requester reads, as HTTP's: 200, 400, 500, 504.
        data: the reply's body.
        headers: the reply's headers, those that the function set.
        error: one line; "" where all went well.
        traceback: of an exception, the function's own lines; "" where there is none.
        logs: what it printed and logged.
        metrics: what it gave to `context.metrics`.
        invocation_id: as the function saw it.
        duration_ms, cpu_ms, queue_ms: what it took.
        peak_memory_bytes: the worker's, so far.
    """

    outcome: Outcome
    code: int
    data: bytes
    headers: Mapping[str, str]
    error: str
    traceback: str
    logs: tuple[LogLine, ...] = field(repr=False)
    metrics: tuple[Mapping[str, Any], ...] = field(repr=False)
    invocation_id: str = field(repr=False)
    duration_ms: float = field(repr=False)
    cpu_ms: float = field(repr=False)
    queue_ms: float = field(repr=False)
    peak_memory_bytes: int = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.outcome is Outcome.OK

    @property
    def text(self) -> str:
        """The reply as UTF-8."""
        return self.data.decode()

    def json(self) -> Any:
        """The reply as JSON.

        Raises:
            AssertionError: the function did not return; the text says how it ended.
            ValueError: what it returned is not JSON.
        """
        if not self.ok:
            raise AssertionError(f"the function ended {self.outcome} ({self.code}): {self.error}\n{self.traceback}")
        return json_.loads(self.data)

    def differences(self, event: SampleEvent) -> list[str]:
        """What came back otherwise than the event expects, a line each: `assert not result.differences(event)`."""
        return event.differences(
            outcome=self.outcome.value, code=self.code, data=self.data, headers=self.headers, error=self.error
        )


class load_function:  # reads as the function it is used as: `with load_function("samples/greet") as greet`
    """A function in a worker of its own, for a `with` or an `async with` block."""

    def __init__(
        self,
        folder: str | Path,
        *,
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        profile: str | None = None,
        limits: Mapping[str, Any] | None = None,
        settings_file: str | Path | None = None,
        launched: Launched | None = None,
    ) -> None:
        """Nothing is read or started yet.

        Args:
            folder: the function's folder.
            environment: values in place of, or beside, those of the Nexfile.
            secrets: values for what the Nexfile's environment names as `secret://KEY`, by KEY.
            profile: sandbox profile; None: the Nexfile's.
            limits: fields of `nexlet_sandboxes.program.Limits` in place of the Nexfile's, such as `timeout=0.5`.
            settings_file: an operator's settings file: the function may import what its `modules` permit. They have to
                be installed here as well.
            launched: a zygote that is on its way already (see `nexlet_sandboxes.launching`), for who wants it sooner.

        Raises, when the block is entered:
            FunctionRefused: what `nexlet-functions check` would say as well.
            KeyError: the environment names a secret that was not given.
            SettingsRefused: the settings file cannot be read.
            ZygoteError: a module that it permits cannot be imported here.
        """
        self._folder = Path(folder)
        self._environment = dict(environment or {})
        self._secrets = dict(secrets or {})
        self._profile = profile
        self._limits = dict(limits or {})
        self._settings_file = Path(settings_file) if settings_file is not None else None
        self._launched = launched
        self._running: AsyncFunction | None = None
        self._runner: asyncio.Runner | None = None

    async def __aenter__(self) -> AsyncFunction:
        launched, self._launched = self._launched, None
        if launched is None and self._settings_file is None:
            launched = launch_early()  # it gets ready while the folder is read
        try:
            function = self._read()
        except BaseException:
            if launched is not None:
                launched.end()
            raise
        await function._open(launched)
        self._running = function
        return function

    def _read(self) -> AsyncFunction:
        folder = read_function(self._folder)
        environment = resolve(folder.start.environment, self._environment, self._secrets)
        modules: Mapping[str, tuple[str, ...]] = {}
        if self._settings_file is not None:
            from nexlet_functions.settings import Settings  # takes as long to load as all the rest

            modules = Settings.read_modules(self._settings_file)
        program = program_of(folder, environment=environment, modules=modules)
        limits = replace(limits_of(folder.start), **self._limits)
        return AsyncFunction(folder, program, limits, self._profile or folder.start.sandbox or DEFAULT)

    async def __aexit__(self, *_: object) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running._close()

    def __enter__(self) -> Function:
        # A loop of our own, and not the thread's: a test that has one keeps it.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            return Function(self._runner, self._runner.run(self.__aenter__()))
        except BaseException:
            self._runner.close()
            raise

    def __exit__(self, *_: object) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None, "the block was not entered"
        try:
            runner.run(self.__aexit__())
        finally:
            runner.close()


class AsyncFunction:
    """A loaded function, for coroutines. Made by `async with load_function(...)`.

    Attributes:
        folder: the function's folder, read.
        load_logs: what its module printed while it was loaded.
    """

    def __init__(self, folder: FunctionFolder, program: Program, limits: Limits, profile: str) -> None:
        self.folder = folder
        self._program = program
        self._limits = limits
        self._profile = profile
        self._sink = RecordingSink()
        self._zygote: Zygote | None = None
        self._pool: Pool | None = None

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        return tuple(self._sink.logs.get(0, ()))

    async def invoke(
        self,
        event: SampleEvent | None = None,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        reply: str = "_INBOX.test",
        attempt: int = 1,
    ) -> Invocation:
        """Run the function once.

        Args:
            event: a sample event: subject, payload and headers are its own, unless they are given here as well.
            json: a payload that is made JSON; or
            data: a payload as it is, text as UTF-8. Neither is an empty payload.
            subject: "" is the function's only trigger, where that has no wildcards.
            headers: of the message.
            reply: where an answer would go; "" for a message that nobody waits for.
            attempt: which delivery this is.

        Raises:
            ValueError: both `json` and `data`, a subject that none of the function's triggers takes, or a header
                `Nex-Deadline-Ms` that is no whole number.
        """
        if json is not None and data is not None:
            raise ValueError("json and data: one of the two")
        event = event or SampleEvent("")
        payload = event.payload
        if json is not None:
            payload = json_.dumps(json, ensure_ascii=False).encode()
        elif data is not None:
            payload = data.encode() if isinstance(data, str) else data
        subject = subject or event.subject or self._only_subject()
        block, now = _header_block({**event.headers, **(headers or {})}), time.monotonic_ns()
        call = Call(
            subject.encode(),
            payload,
            reply=reply.encode(),
            headers=block,
            pattern=self._pattern(subject),
            received_ns=now,
            attempt=attempt,
            deadline_ns=deadline_ns(block, now),
        )
        assert self._pool is not None, "the block was left"
        result = await self._sink.run(self._pool, call)
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
        )

    def _only_subject(self) -> str:
        patterns = self._program.patterns
        if len(patterns) == 1 and not {"*", ">"} & set(patterns[0].split(".")):
            return patterns[0]
        raise ValueError(f"say which subject: the function's triggers are {', '.join(patterns)}")

    def _pattern(self, subject: str) -> int:
        for index, pattern in enumerate(self._program.patterns):
            if matches(pattern, subject):
                return index
        raise ValueError(f"no trigger takes {subject!r}: the function's are {', '.join(self._program.patterns)}")

    async def _open(self, launched: Launched | None) -> None:
        self._zygote = await Zygote.start(modules=self._program.modules, short_lived=True, launched=launched)
        self._pool = Pool(self._zygote, self._program, self._limits, self._sink, profile=self._profile)
        try:
            await self._pool.start()
        except LoadRefused as refused:
            await self._zygote.close()
            raise FunctionRefused(self.folder.name, refused.problems) from None
        except BaseException:
            await self._zygote.close()
            raise

    async def _close(self) -> None:
        assert self._pool is not None
        assert self._zygote is not None
        await self._pool.close()
        await self._zygote.close()


class Function:
    """A loaded function, for tests that are no coroutines. Made by `with load_function(...)`.

    Attributes:
        folder: the function's folder, read.
        load_logs: what its module printed while it was loaded.
    """

    def __init__(self, runner: asyncio.Runner, function: AsyncFunction) -> None:
        self._runner = runner
        self._function = function
        self.folder = function.folder

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        return self._function.load_logs

    def invoke(
        self,
        event: SampleEvent | None = None,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        reply: str = "_INBOX.test",
        attempt: int = 1,
    ) -> Invocation:
        """Run the function once; everything as for `AsyncFunction.invoke`."""
        return self._runner.run(
            self._function.invoke(
                event, json=json, data=data, subject=subject, headers=headers, reply=reply, attempt=attempt
            )
        )


class RecordingSink:
    """Takes what the pool gives back, by invocation."""

    def __init__(self) -> None:
        self.logs: dict[int, list[LogLine]] = {}
        self.metrics: dict[int, list[Mapping[str, Any]]] = {}

    async def run(self, pool: Pool, call: Call) -> Result:
        ended: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        call.tag = ended
        pool.submit(call)
        return await ended

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


def _header_block(headers: Mapping[str, str]) -> bytes:
    if not headers:
        return b""
    return "".join(["NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]).encode()
