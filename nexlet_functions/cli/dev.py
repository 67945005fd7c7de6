"""`dev`: server, node and nexlet in one command, with functions deployed, invoked, watched and deployed again on save.

Development equipment, all of it but the nexlet: the server takes anyone on this machine, and a stand-in plays the node.
Everything lives as long as the command; Ctrl-C takes it down again and leaves nothing behind. What it is made of is in
`nexlet_functions.cli.devloop`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.completion import function_folders
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json, SecretsDir, duration
from nexlet_functions.cli.output import Output, has_screen
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.cli.devloop.deployments import Deployed, Deployments
    from nexlet_functions.cli.devloop.telling import Telling
    from nexlet_functions.cli.watching import Watch
    from nexlet_functions.natsio import Connection
    from nexlet_functions.recording import Masks, Recorder

__all__ = ["dev", "secrets_beside"]

_LEVELS = ("debug", "info", "warning", "error")


def dev(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR...]",
            help="Function folders, or folders of function folders. [default: .]",
            show_default=False,
            autocompletion=function_folders,
        ),
    ] = None,
    *,
    once: Annotated[
        bool,
        typer.Option("--once", envvar="NEXFN_ONCE", help="End after the sample events; with 1 if one of them failed."),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            envvar="NEXFN_PORT",
            min=0,
            max=65535,
            help="Port of the NATS server; 0 takes a free one. [default: 4222, or a free one if that is taken]",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", envvar="NEXFN_NAMESPACE", help="Namespace to deploy to.")
    ] = "demo",
    secrets_dir: SecretsDir = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            envvar="NEXFN_RECORD",
            file_okay=False,
            metavar="DIR",
            help="Keep live invocations there as sample events, secrets masked; for 'nexfn replay DIR'.",
            show_default=False,
        ),
    ] = None,
    record_most: Annotated[
        int,
        typer.Option(
            "--record-most", envvar="NEXFN_RECORD_MOST", min=1, metavar="N", help="So many of each function are kept."
        ),
    ] = 200,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask",
            envvar="NEXFN_MASK",
            metavar="FIELD",
            help="With --record: a header, a JSON field, or the dotted path of one, to mask too. Repeatable.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        str,
        typer.Option(
            "--interval",
            envvar="NEXFN_INTERVAL",
            metavar="DURATION",
            help="In a pipe: how often it is said how functions fare.",
        ),
    ] = "10s",
    log_level: Annotated[
        str,
        typer.Option("--log-level", envvar="NEXFN_LOG_LEVEL", help="Of server, node and nexlet: debug, info, warning."),
    ] = "error",
    json: Json = None,
) -> None:
    """Run functions on this machine: NATS server, stand-in node and nexlet in one command.

    Deploys every function found, sends each its first sample event, shows what came back, and then stays to show how
    functions fare, invocations and logs until Ctrl-C. What is saved meanwhile is deployed in the place of what runs,
    and where it is refused, the version before it goes on. Development equipment: nothing here is protected.
    """
    from nexlet_functions.nexfile import find_functions
    from nexlet_models.subjects import valid_token

    if log_level.lower() not in _LEVELS:
        raise CommandFailed(
            Exit.USAGE, "invalid-log-level", f"--log-level: '{log_level}' is none", f"use {', '.join(_LEVELS)}"
        )
    set_up_logging(level=log_level)
    if (reason := valid_token(namespace)) is not None:
        raise CommandFailed(Exit.USAGE, "invalid-namespace", f"--namespace: '{namespace}' {reason}")
    roots = folders or [Path()]
    session = _Session(
        output=Output(json=json),
        roots=roots,
        names=[path.resolve().name for path in find_functions(roots)],
        namespace=namespace,
        secrets=secrets_beside(roots) if secrets_dir is None else secrets_dir.absolute(),
        port=port,
        once=once,
        recording=(record, masks_of(mask or ()), record_most) if record is not None else None,
        interval=duration(interval, "--interval"),
    )
    from nexlet_functions.cli.running import run_until_signalled

    fine = run_until_signalled(session.run, on_signal=session.telling.stopping)
    if fine is None and once:
        raise typer.Exit(Exit.INTERRUPTED)
    if fine is False:
        raise typer.Exit(Exit.FAILED)


def masks_of(fields: Sequence[str]) -> Masks:
    """What `--mask` means.

    Raises:
        CommandFailed: one of them is no field.
    """
    from nexlet_functions.recording import Masks

    try:
        return Masks(fields)
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, "invalid-mask", f"--mask: {error}") from None


def secrets_beside(roots: Sequence[Path]) -> Path | None:
    """A `secrets` folder in one of these folders, or beside it."""
    from nexlet_functions.nexfile import SECRETS

    for root in roots:
        for candidate in (root.absolute() / SECRETS, root.resolve().parent / SECRETS):
            if candidate.is_dir():
                return candidate
    return None


class _Session:
    """One run of the command.

    Attributes:
        telling: says what happens.
    """

    def __init__(
        self,
        *,
        output: Output,
        roots: Sequence[Path],
        names: Sequence[str],
        namespace: str,
        secrets: Path | None,
        port: int | None,
        once: bool,
        recording: tuple[Path, Masks, int] | None,
        interval: float,
    ) -> None:
        from nexlet_functions.cli.devloop.telling import Telling

        self._output = output
        self._roots = roots
        self._namespace = namespace
        self._secrets = secrets
        self._port = port
        self._once = once
        self._recording = recording
        self._interval = interval
        self.telling: Telling = Telling(output, namespace=namespace, width=max(map(len, names)))

    async def run(self, asked: asyncio.Event) -> bool:
        """Everything; whether all functions were deployed and all samples did what is expected of them.

        Args:
            asked: set when it is to end.
        """
        from nexlet_functions.cli.devloop.board import Board
        from nexlet_functions.cli.devloop.deployments import Deployments
        from nexlet_functions.cli.devloop.equipment import start_nexlet, start_server
        from nexlet_functions.cli.watching import Watch
        from nexlet_functions.control import ControlClient
        from nexlet_functions.devnode.streams import make_streams
        from nexlet_functions.natsio import Connection, Credentials

        async with AsyncExitStack() as stack:
            if not has_screen(self._output):
                stack.enter_context(self._spooled(asked))
            url = await start_server(stack, self._port)
            self.telling.banner(url, self._secrets, self._recording[0] if self._recording else None)
            recorder = await self._recorder(stack)
            sandboxing = await start_nexlet(stack, url, secrets=self._secrets, recorder=recorder)
            self.telling.missing_layers(sorted(sandboxing.without))
            connection = await Connection.open(Credentials(servers=(url,), name="nexfn dev"))
            stack.push_async_callback(connection.close)
            control = ControlClient(connection.client, self._namespace, nodes=1)
            deployments = Deployments(
                self._roots,
                control,
                self._namespace,
                self._secrets,
                prepare=lambda start: make_streams(connection.client, start),
            )
            watch = Watch(connection, self._output, leaving=deployments.leaving)
            await watch.start()
            upkeep = _Upkeep(self.telling, connection, watch, deployments)
            await upkeep.bring_up()
            deployed = tuple(deployments.running.values())
            fine = not upkeep.refused and not upkeep.failed
            if self._once:
                self.telling.summary(len(deployed), upkeep.refused, upkeep.failed)
                return fine
            self.telling.ready(url, len(deployed), _example(deployed))
            watch.live = True
            if recorder is not None:
                recorder.on = True
            board = Board(self._output, control, watch, interval=self._interval)
            async with asyncio.TaskGroup() as tasks:
                both = [tasks.create_task(each) for each in (board.keep(), self._keep_up(deployments, upkeep))]
                await asked.wait()
                for each in both:
                    each.cancel()
        return fine

    @contextmanager
    def _spooled(self, asked: asyncio.Event) -> Iterator[None]:
        """What is said goes through a thread: who does not read holds up no function, and where nobody can, it ends."""
        from nexlet_functions.cli.devloop.spool import Spool

        loop, output = asyncio.get_running_loop(), self._output

        def nobody_reads() -> None:
            try:
                loop.call_soon_threadsafe(asked.set)
            except RuntimeError:
                pass  # it has ended already

        sys.stdout.flush()
        with Spool(sys.stdout.fileno(), left_out=self.telling.left_out, on_closed=nobody_reads) as spool:
            output.spool = spool.put
            try:
                yield
            finally:
                output.spool = None

    async def _recorder(self, stack: AsyncExitStack) -> Recorder | None:
        if self._recording is None:
            return None
        from nexlet_functions.recording import Recorder

        folder, masks, most = self._recording
        recorder = Recorder(
            folder,
            masks,
            most=most,
            on_written=self.telling.recorded,
            on_left_out=self.telling.not_recorded,
        )
        recorder.on = False  # what is sent at the start are samples already
        return await stack.enter_async_context(recorder)

    async def _keep_up(self, deployments: Deployments, upkeep: _Upkeep) -> None:
        """Deploy what is saved, until cancelled; return where that cannot be noticed."""
        from nexlet_functions.cli.devloop.saves import saves

        async with aclosing(saves(deployments.places)) as bursts:
            while True:
                try:
                    await anext(bursts)
                except ImportError:
                    self.telling.not_watched("watchfiles is missing", "pip install 'nexlet-functions[dev]'")
                    return
                except OSError as error:
                    self.telling.not_watched(
                        str(error), "see fs.inotify.max_user_watches and max_user_instances, or name fewer folders"
                    )
                    return
                await upkeep.bring_up()


class _Upkeep:
    """Brings what runs up to what the folders say, and tries out what is new.

    Attributes:
        refused: how often a function was refused.
        failed: how often a sample event did not lead to what it expects.
    """

    def __init__(self, telling: Telling, connection: Connection, watch: Watch, deployments: Deployments) -> None:
        self._telling = telling
        self._connection = connection
        self._watch = watch
        self._deployments = deployments
        self.refused = 0
        self.failed = 0

    async def bring_up(self) -> None:
        """Deploy what is new or was saved, stop what is gone; each that is new gets its first sample event."""
        from nexlet_functions.cli.devloop.deployments import Refused, Started

        new: list[Deployed] = []
        async with aclosing(self._deployments.look()) as changes:
            async for change in changes:
                if isinstance(change, Started):
                    self._watch.names[change.deployed.workload_id] = change.deployed.function.name
                    if not change.replaced:
                        new.append(change.deployed)
                self.refused += isinstance(change, Refused)
                self._telling.change(change)
                self._watch.width = self._telling.width
        for deployed in new:
            await self._try_out(deployed)

    async def _try_out(self, deployed: Deployed) -> None:
        from nexlet_functions.cli.devloop.samples import play
        from nexlet_functions.testing.events import EventRefused, sample_events
        from nexlet_models.scheduled import SCHEDULE_SUBJECT

        try:
            # A run of a schedule cannot be sent: it waits for its time.
            events = [
                event
                for event in sample_events(deployed.function.path)
                if not event.subject.startswith(SCHEDULE_SUBJECT)
            ]
        except EventRefused as error:
            self._telling.refused(error.name, str(error), error.problems)
            self.failed += 1
            return
        # What a stream alone triggers has no subject of its own, and an event has to name one of the stream's.
        if events and (events[0].subject or deployed.subjects):
            played = await play(self._connection, self._watch, deployed, events[0])
            self.failed += bool(played.differences)
            self._telling.played(played)


def _example(deployed: Sequence[Deployed]) -> tuple[str, str]:
    """A message worth sending: the first sample event that is answered and is text; else something on a subject."""
    from nexlet_functions.testing.events import EventRefused, sample_events

    for each in deployed:
        try:
            events = sample_events(each.function.path)
        except EventRefused:
            continue  # said already
        for event in events:
            subject = event.subject or next(iter(each.subjects), "")
            if subject and each.answers(subject) and not event.headers and event.payload.isascii():
                return subject, event.payload.decode()
    listening = next((subject for each in deployed for subject in each.subjects), "SUBJECT")
    # Nobody can publish on a wildcard: any token will do in its place.
    return ".".join("any" if token in ("*", ">") else token for token in listening.split(".")), "{}"
