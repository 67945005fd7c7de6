"""`replay`: recorded events to the function once more, and whether the same comes back.

Here, each function runs in a worker as `invoke --local` makes it; with `--nats`, the messages go to what runs there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from nexlet_functions.cli.completion import function_folders
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import CREDENTIALS, Form, Json, SecretsDir, duration, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.natsio import Connection
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_functions.recording.fields import Fields
    from nexlet_functions.recording.replaying import Came, Recording
    from nexlet_functions.testing import AsyncFunction
    from nexlet_functions.testing.events import SampleEvent

__all__ = ["replay"]

TIMEOUT = "5s"
"""How long an answer is waited for over NATS; here the function's own limit decides."""


@setting_flags(NATS=CREDENTIALS)
def replay(
    recorded: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS",
            exists=True,
            help="What 'dev --record' made: the folder, or one event. Or a function's folder: its events.",
            show_default=False,
        ),
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR...]",
            help="Function folders, or folders of function folders, to find the functions in. [default: .]",
            show_default=False,
            autocompletion=function_folders,
        ),
    ] = None,
    *,
    update: Annotated[
        bool,
        typer.Option("--update", "-u", envvar="NEXFN_UPDATE", help="Have the events expect what comes back now."),
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            envvar="NEXFN_IGNORE",
            metavar="FIELD",
            help="A header, a JSON field, or the dotted path of one, that may differ. Repeatable.",
            show_default=False,
        ),
    ] = None,
    nats: Annotated[
        bool,
        typer.Option("--nats", envvar="NEXFN_NATS", help="Send them to the functions that run behind a NATS server."),
    ] = False,
    subject: Annotated[
        str,
        typer.Option(
            "--subject", envvar="NEXFN_SUBJECT", help="To this subject, whatever they say.", show_default=False
        ),
    ] = "",
    timeout: Annotated[
        str,
        typer.Option("--timeout", envvar="NEXFN_TIMEOUT", metavar="DURATION", help="With --nats: for each answer."),
    ] = TIMEOUT,
    secrets_dir: SecretsDir = None,
    format: Annotated[  # noqa: A002  # the option's name
        Form | None,
        typer.Option(
            envvar="NEXFN_FORMAT",
            metavar="text|json",
            help="How to write it; goes before --json and --text.",
            show_default=False,
        ),
    ] = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Send recorded events once more, and compare what comes back with what came back then.

    Ends with 1 where something differs. What was masked is not compared.
    """
    from nexlet_functions.recording.fields import Fields
    from nexlet_functions.recording.replaying import events_in

    set_up_logging(level="error")
    if update and nats:
        raise CommandFailed(
            Exit.USAGE,
            "update-over-nats",
            "--update keeps answers, and what is secret in an answer that comes over NATS is not known here",
            "update without --nats, with the function's folder",
        )
    try:
        ignored = Fields(ignore or ())
    except ValueError as error:
        raise CommandFailed(Exit.USAGE, "invalid-field", f"--ignore: {error}") from None
    found = events_in(recorded)
    if not found:
        raise CommandFailed(
            Exit.USAGE, "no-events", f"there is no event in {recorded}", "nexfn dev --record DIR keeps what is sent"
        )
    output = Output(json=json if format is None else format is Form.JSON)
    wait = duration(timeout, "--timeout")
    if nats:
        targets = _over_nats(flags, wait)
    else:
        targets = _here(_functions_of(found, recorded, folders or [Path()]), secrets_dir)
    replaying = _Replaying(output, ignored, subject, update=update)
    if not asyncio.run(replaying.all(found, targets)):
        raise typer.Exit(Exit.FAILED)


class _Target(Protocol):
    """Where an event is sent."""

    async def send(self, event: SampleEvent) -> Came:
        """What came of it."""
        ...

    @property
    def secrets(self) -> frozenset[str]:
        """What of an answer must not be kept."""
        ...


_Targets = Callable[["Recording"], Awaitable[_Target]]


class _Replaying:
    """One run of the command."""

    def __init__(self, output: Output, ignored: Fields, subject: str, *, update: bool) -> None:
        self._output = output
        self._ignored = ignored
        self._subject = subject
        self._update = update

    async def all(self, found: Sequence[Recording], targets: AbstractAsyncContextManager[_Targets]) -> bool:
        """Whether all that came back is as it was, or now is what is expected."""
        same = updated = 0
        async with targets as target_of:
            for recording in found:
                outcome = await self._one(recording, await target_of(recording))
                same += outcome == "same"
                updated += outcome == "updated"
        differ = len(found) - same - updated
        said = f"{len(found)} replayed: {same} the same, {differ} not" + (f", {updated} updated" if updated else "")
        self._output.record(
            "summary",
            ["", styled((said, "bold red" if differ else "bold green"))],
            replayed=len(found),
            same=same,
            updated=updated,
            differ=differ,
        )
        return not differ

    async def _one(self, recording: Recording, target: _Target) -> str:
        from nexlet_functions.recording.replaying import accept, differences, expected_of

        event = replace(recording.event, subject=self._subject or recording.event.subject)
        came = await target.send(event)
        lines = differences(event, came, self._ignored)
        verdict = "differs" if lines else "same"
        if lines and self._update:
            accept(recording, *expected_of(event, came, target.secrets))
            verdict = "updated"
        changed = sorted(place for place in event.masked if not place.startswith("expect."))
        note = f"its message was masked ({', '.join(changed)}), which may be why" if lines and changed else ""
        style = {"same": "green", "differs": "bold red", "updated": "yellow"}[verdict]
        self._output.record(
            "replayed",
            [
                styled(
                    (f"{verdict:<8}", style),
                    f"  {event.function or recording.file.parent.parent.name}  {recording.file.name}  {event.subject}",
                    (f"  {came.outcome or 'nothing'}  {came.seconds * 1000:.1f} ms", "dim"),
                ),
                *(styled((f"{'':10}{line}", "red")) for line in lines),
                *([styled((f"{'':10}{note}", "dim"))] if note else []),
            ],
            verdict=verdict,
            function=event.function or None,
            file=str(recording.file),
            subject=event.subject or None,
            outcome=came.outcome,
            differences=lines,
            masked=changed or None,
            duration_ms=round(came.seconds * 1000, 3),
        )
        return verdict


# --- here -------------------------------------------------------------------------------------------------------------


def _functions_of(found: Sequence[Recording], recorded: Path, folders: Sequence[Path]) -> dict[Path, FunctionFolder]:
    """The function of each event, by its file.

    Raises:
        CommandFailed: that of one is not there.
        FunctionRefused: what `check` would say.
    """
    from nexlet_functions.nexfile import NEXFILE, find_functions, read_function

    where = [recorded] if (recorded / NEXFILE).is_file() else folders
    functions = {each.name: each for each in map(read_function, find_functions(where))}
    chosen: dict[Path, FunctionFolder] = {}
    for recording in found:
        name = recording.event.function or (next(iter(functions)) if len(functions) == 1 else "")
        if name not in functions:
            of = f"the function {name} of {recording.file}" if name else f"which function {recording.file} is for"
            raise CommandFailed(
                Exit.USAGE,
                "function-missing",
                f"{of} is not known here",
                f"there are: {', '.join(sorted(functions))}; name the folder of another one behind the events",
            )
        chosen[recording.file] = functions[name]
    return chosen


@asynccontextmanager
async def _here(functions: Mapping[Path, FunctionFolder], secrets_dir: Path | None) -> AsyncIterator[_Targets]:
    """Each function in a worker of its own, loaded when its first event is sent."""
    from nexlet_functions.cli.local import secrets_of
    from nexlet_functions.testing import load_function

    loaded: dict[Path, _Worker] = {}
    async with AsyncExitStack() as stack:

        async def target_of(recording: Recording) -> _Target:
            function = functions[recording.file]
            if function.path not in loaded:
                secrets = await secrets_of(function, secrets_dir)
                worker = await stack.enter_async_context(load_function(function.path, secrets=secrets))
                loaded[function.path] = _Worker(worker, secrets.values())
            return loaded[function.path]

        yield target_of


class _Worker:
    """A function that was loaded here."""

    def __init__(self, function: AsyncFunction, secrets: Iterable[str]) -> None:
        self._function = function
        self.secrets = frozenset(secrets)

    async def send(self, event: SampleEvent) -> Came:
        """See `_Target`."""
        from nexlet_functions.recording.replaying import Came

        try:
            result = await self._function.invoke(event, reply="_INBOX.replay")
        except ValueError as error:  # no trigger takes the subject
            raise CommandFailed(Exit.USAGE, "invalid-message", f"{event.name}: {error}") from None
        return Came(result.duration_ms / 1000, result.outcome, result.code, result.data, result.headers, result.error)


# --- over NATS --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _over_nats(flags: Mapping[str, object], timeout: float) -> AsyncIterator[_Targets]:
    """Whatever listens on the subjects of the events."""
    from nexlet_functions.cli.nodes import CONNECT_TIMEOUT
    from nexlet_functions.natsio import Connection
    from nexlet_functions.settings import Settings

    settings = Settings.read(flags)
    async with await Connection.open(
        settings.credentials(), name="nexfn replay", timeout=CONNECT_TIMEOUT
    ) as connection:
        target = _Listeners(connection, timeout)

        async def target_of(recording: Recording) -> _Target:
            return target

        yield target_of


class _Listeners:
    """What runs behind a server. Its secrets are not known here."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self.secrets: frozenset[str] = frozenset()

    async def send(self, event: SampleEvent) -> Came:
        """See `_Target`."""
        from nexlet_functions.cli.answers import answer_fields
        from nexlet_functions.natsio.errors import RequestTimeout
        from nexlet_functions.recording.replaying import Came, outcome_of
        from nexlet_models.subjects import valid_subject

        if (reason := valid_subject(event.subject, wildcards=False)) is not None:
            said = f"'{event.subject}' is no subject to send it to: it {reason}" if event.subject else "it names none"
            raise CommandFailed(Exit.USAGE, "invalid-subject", f"{event.name}: {said}", "name one with --subject")
        began = time.perf_counter()
        try:
            answer = await self._connection.request(
                event.subject, event.payload, headers=dict(event.headers) or None, timeout=self._timeout
            )
        except RequestTimeout:  # of a function that does not answer, say; the others may
            return Came(time.perf_counter() - began)
        took = time.perf_counter() - began
        fields = answer_fields(answer)
        outcome = outcome_of(fields["code"], ok=fields["ok"], expected=event.expect)
        return Came(took, outcome, fields["code"], answer.payload, fields["headers"], fields["error"] or "")
