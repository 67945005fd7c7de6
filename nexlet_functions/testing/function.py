"""A function's folder, loaded: `load_function`, and the function that it gives, for coroutines and for plain tests.

By default the function is in a worker (`worker`), which is the one that runs functions in production: same process,
same policy, same limits. What is missing is the way to it: no NATS, no nexlet, no node. With `nats=True` all of that is
there (`deployed`). A test is the same for both. An invocation that fails is a value with its outcome, not an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from nexlet_functions.nexfile import FunctionFolder, read_function
from nexlet_functions.testing.events import SampleEvent
from nexlet_functions.testing.granted import Provided, Responder
from nexlet_functions.testing.invocation import Invocation, LogLine, Message
from nexlet_functions.testing.messages import INBOX, Messages
from nexlet_functions.testing.outside import HttpResponder
from nexlet_functions.testing.worker import WorkerHome, limits_of, program_of, resolve
from nexlet_sandboxes.launching import Launched, launch_early
from nexlet_sandboxes.profiles import DEFAULT

__all__ = ["AsyncFunction", "Function", "Home", "load_function"]


class Home(Protocol):
    """Where a function under test is."""

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        """What its module printed while it was loaded."""
        ...

    async def run(self, messages: Sequence[Message]) -> list[Invocation]:
        """Messages whose subjects are the function's, all at once, to the end of each."""
        ...

    async def kv(self, bucket: str) -> dict[str, bytes]:
        """What is in a bucket: values by key."""
        ...

    async def objects(self, bucket: str) -> dict[str, bytes]:
        """What is in an object store: bytes by name."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


class load_function:  # reads as the function it is used as: `with load_function("samples/greet") as greet`
    """A function in a worker of its own, or deployed, for a `with` or an `async with` block."""

    def __init__(
        self,
        folder: str | Path,
        *,
        environment: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        profile: str | None = None,
        limits: Mapping[str, Any] | None = None,
        settings_file: str | Path | None = None,
        kv: Mapping[str, Mapping[str, Any] | None] | None = None,
        objects: Mapping[str, Mapping[str, Any] | None] | None = None,
        replies: Mapping[str, Responder] | None = None,
        http: Mapping[str, HttpResponder] | None = None,
        nats: bool = False,
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
            kv: what is in the buckets that the function was granted: bucket to key to value (bytes, text, or what JSON
                can say). A bucket that is not named is there, and empty; None instead of values: it is not there.
            objects: likewise of object stores.
            replies: who answers the function's requests: subject, or pattern, to an answer (as above, or a `Reply`),
                or to a callable that is given the request (`Sent`) and returns one, or raises `Reject`.
            http: who answers the function's HTTP: url without its query, `*` in it for anything, to an answer (as
                above, an `HttpReply`, or an exception such as `Unavailable("no network")`), or to a callable that is
                given the call (`HttpSent`) and returns or raises one. Nobody answers anywhere else. Not with `nats`.
            nats: whether the function is deployed, by way of a node, to a nexlet beside a NATS server, all of them for
                this block alone. Messages reach it over its triggers then.
            launched: a zygote that is on its way already (see `nexlet_sandboxes.launching`), for who wants it sooner.

        Raises, when the block is entered:
            FunctionRefused: what `nexlet-functions check` would say as well.
            KeyError: the environment names a secret that was not given.
            SettingsRefused: the settings file cannot be read.
            ZygoteError: a module that it permits cannot be imported here.
            ServerNotFound: there is no NATS server to start.
            ValueError: a limit that a node cannot be told.
        """
        self._folder = Path(folder)
        self._environment = dict(environment or {})
        self._secrets = dict(secrets or {})
        self._profile = profile
        self._limits = dict(limits or {})
        self._settings_file = Path(settings_file) if settings_file is not None else None
        self._provided = Provided(kv or {}, objects or {}, replies or {}, http or {})
        if nats and http:
            raise ValueError("with nats=True HTTP goes out: a test that says who answers keeps to nats=False")
        self._nats = nats
        self._launched = launched
        self._running: AsyncFunction | None = None
        self._runner: asyncio.Runner | None = None

    async def __aenter__(self) -> AsyncFunction:
        launched, self._launched = self._launched, None
        if launched is None and self._settings_file is None:
            launched = launch_early()  # it gets ready while the folder is read
        try:
            folder, modules = read_function(self._folder), self._modules()
            environment = resolve(folder.start.environment, self._environment, self._secrets)
            program = program_of(folder, environment=environment, modules=modules)
        except BaseException:
            if launched is not None:
                launched.end()
            raise
        limits, profile = replace(limits_of(folder.start), **self._limits), self._profile or folder.start.sandbox
        home: Home
        if self._nats:
            from nexlet_functions.testing.deployed import NatsHome  # with all that a nexlet is made of

            home = await NatsHome.open(folder, program, limits, self._limits, profile, launched, self._provided)
        else:
            home = await WorkerHome.open(
                folder.name,
                program,
                limits,
                profile or DEFAULT,
                launched,
                grants=folder.start.grants,
                provided=self._provided,
            )
        self._running = AsyncFunction(folder, program.patterns, home)
        return self._running

    def _modules(self) -> Mapping[str, tuple[str, ...]]:
        if self._settings_file is None:
            return {}
        from nexlet_functions.settings import Settings  # takes as long to load as all the rest

        return Settings.read_modules(self._settings_file)

    async def __aexit__(self, *_: object) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running._home.close()

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

    def __init__(self, folder: FunctionFolder, patterns: tuple[str, ...], home: Home) -> None:
        self.folder = folder
        self._messages = Messages(folder, patterns)
        self._home = home

    @property
    def load_logs(self) -> tuple[LogLine, ...]:
        return self._home.load_logs

    async def invoke(
        self,
        event: SampleEvent | None = None,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        reply: str = INBOX,
        attempt: int = 1,
        stream: str = "",
        sequence: int | None = None,
        scheduled_time: datetime | str | None = None,
    ) -> Invocation:
        """Run the function once.

        Args:
            event: a sample event: subject, payload and headers are its own, unless they are given here as well.
            json: a payload that is made JSON; or
            data: a payload as it is, text as UTF-8. Neither is an empty payload.
            subject: "" is the function's only trigger, where that has no wildcards.
            headers: of the message.
            reply: where an answer would go; "" for a message that nobody waits for. Nobody does for one of a stream.
            attempt: which delivery this is.
            stream: that the message is from. Where it is left out, the first trigger that takes the subject decides.
            sequence: its number in that stream; 1 where it is left out.
            scheduled_time: run it as its schedule does, due at this time: a text is read as ISO 8601, and a time
                without an offset is one of the schedule's time zone. `subject` says which schedule, where there are
                several: `$SCHEDULE.NAME`.

        Raises:
            ValueError: what is said contradicts itself or the function's triggers, such as both `json` and `data`, a
                subject that no trigger takes, or a header `Nex-Deadline-Ms` that is no whole number. With `nats=True`
                also `attempt`, `sequence` and `scheduled_time`: there these are a stream's or a clock's to say.
        """
        message = self._messages.make(
            event,
            json=json,
            data=data,
            subject=subject,
            headers=headers,
            reply=reply,
            attempt=attempt,
            stream=stream,
            sequence=sequence,
            scheduled_time=scheduled_time,
        )
        (invocation,) = await self._home.run([message])
        return invocation

    async def invoke_batch(self, events: Sequence[SampleEvent | Mapping[str, Any]]) -> list[Invocation]:
        """Run a function that takes batches with these events at once, in one call of its handler.

        Args:
            events: each a sample event, or what `invoke` takes, by name: `[{"json": {...}}, {"data": "x"}]`.

        Returns:
            How each ended, in their order. What the handler printed, measured and asked for stands with the first, but
            for messages that it published for an event (`context.publish(..., event=event)`).

        Raises:
            ValueError: the function takes fewer events at a call, or what is said of one contradicts itself: see
                `invoke`.
        """
        most = self.folder.start.batch
        if len(events) > most:
            says = f"batch: {most}" if most > 1 else "no batch"
            raise ValueError(f"{len(events)} events are more than a call is given: the Nexfile says {says}")
        make = self._messages.make
        return await self._home.run([make(one) if isinstance(one, SampleEvent) else make(**one) for one in events])

    async def kv(self, bucket: str) -> dict[str, bytes]:
        """What is in a bucket that the function was granted: values by key.

        Raises:
            KeyError: there is no such bucket.
        """
        return await self._home.kv(bucket)

    async def objects(self, bucket: str) -> dict[str, bytes]:
        """What is in an object store that the function was granted: bytes by name.

        Raises:
            KeyError: there is no such store.
        """
        return await self._home.objects(bucket)


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
        reply: str = INBOX,
        attempt: int = 1,
        stream: str = "",
        sequence: int | None = None,
        scheduled_time: datetime | str | None = None,
    ) -> Invocation:
        """Run the function once; everything as for `AsyncFunction.invoke`."""
        return self._runner.run(
            self._function.invoke(
                event,
                json=json,
                data=data,
                subject=subject,
                headers=headers,
                reply=reply,
                attempt=attempt,
                stream=stream,
                sequence=sequence,
                scheduled_time=scheduled_time,
            )
        )

    def invoke_batch(self, events: Sequence[SampleEvent | Mapping[str, Any]]) -> list[Invocation]:
        """Run the function with these events at once; everything as for `AsyncFunction.invoke_batch`."""
        return self._runner.run(self._function.invoke_batch(events))

    def kv(self, bucket: str) -> dict[str, bytes]:
        """What is in a bucket; as for `AsyncFunction.kv`."""
        return self._runner.run(self._function.kv(bucket))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """What is in an object store; as for `AsyncFunction.objects`."""
        return self._runner.run(self._function.objects(bucket))
