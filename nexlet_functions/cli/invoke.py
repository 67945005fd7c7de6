"""`invoke`: one message to a function, and what came back; over NATS, or with `--local` in a worker here."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nexlet_functions.cli.completion import function_folders, sample_event_names
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.nodes import EVERYWHERE, Namespace, SeldomNodes, Session, session
from nexlet_functions.cli.options import CREDENTIALS, Json, SecretsDir, duration, setting_flags
from nexlet_functions.cli.output import Output
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.cli.answers import Answer
    from nexlet_functions.cli.remote import Target
    from nexlet_functions.testing.events import SampleEvent

__all__ = ["invoke"]

TIMEOUT = "5s"
"""How long an answer is waited for; with `--local` the function's own limit decides."""

_TLS = tuple(name for name in CREDENTIALS if name.startswith("tls_"))
_NATS = tuple(name for name in CREDENTIALS if name not in _TLS)

_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):\s*([^\x00-\x1f\x7f\ud800-\udfff]*)")


@setting_flags(NATS=_NATS, Seldom=_TLS)
def invoke(
    named: Annotated[
        str,
        typer.Argument(
            metavar="[SUBJECT|NAME|ID]",
            help="A subject, or a function by name or id; not needed where an event or --local tells.",
            show_default=False,
        ),
    ] = "",
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA|@FILE|-]", help="The payload: text, a file's content, or standard input.", show_default=False
        ),
    ] = None,
    *,
    subject: Annotated[
        str,
        typer.Option(
            "--subject",
            envvar="NEXFN_SUBJECT",
            metavar="SUBJECT",
            help="Which subject, if it has several.",
        ),
    ] = "",
    wildcard: Annotated[
        list[str] | None,
        typer.Option(
            "--wildcard",
            "-w",
            envvar="NEXFN_WILDCARD",
            metavar="WORD",
            help="What stands for a wildcard of its subject; may be repeated.",
        ),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(
            "--local",
            "-l",
            envvar="NEXFN_LOCAL",
            metavar="DIR",
            help="Run this folder's function here, without NATS.",
            show_default=False,
            autocompletion=function_folders,
        ),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(
            "--event",
            "-e",
            envvar="NEXFN_EVENT",
            metavar="FILE",
            help="A sample event to send and to compare with; with --local its name will do.",
            autocompletion=sample_event_names,
            show_default=False,
        ),
    ] = None,
    secrets_dir: SecretsDir = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            # Read below: typer would split what is in a variable at the space after the colon.
            help="A header; may be repeated. In NEXFN_HEADER, one a line.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            help=f"How long to wait; the function is told, and runs no longer. [default: {TIMEOUT}]",
            envvar="NEXFN_TIMEOUT",
            show_default=False,
        ),
    ] = None,
    no_reply: Annotated[
        bool,
        typer.Option(
            "--no-reply",
            help="Publish and wait for nothing: for functions that do not answer.",
            envvar="NEXFN_NO_REPLY",
        ),
    ] = False,
    namespace: Namespace = EVERYWHERE,
    nodes: SeldomNodes = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Send a message to a function; print its answer, what it printed and logged, and what it took.

    Ends with 0 for an answer, 1 for an error or a difference, 3 where nobody listens, 4 where nobody answers in time.
    """
    from nexlet_functions.cli.local import Message, find_event, invoke_local
    from nexlet_functions.functions.deadlines import DEADLINE_HEADER

    set_up_logging(level="error")
    folder = _function_folder(local) if local is not None else None
    sample = find_event(event, folder) if event is not None else None
    to = _Addressee(named, subject, tuple(wildcard or ()), sample)
    to.check(needed=folder is None)
    given = header or os.environ.get("NEXFN_HEADER", "").splitlines()
    payload = read_payload(data) if data is not None else None
    headers, wait = read_headers(given), duration(timeout or TIMEOUT, "--timeout")
    output = Output(json=json)
    said = {*headers, *(sample.headers if sample is not None else ())}
    tells = not no_reply and not any(name.lower() == DEADLINE_HEADER.lower() for name in said)
    if tells and (folder is None or timeout is not None):
        headers[DEADLINE_HEADER] = str(max(1, round(wait * 1000)))
    if folder is not None:
        message = Message(subject or named, payload, headers, sample, reply=not no_reply, words=to.words)
        fine = asyncio.run(invoke_local(folder, message, secrets_dir, output))
    else:
        if sample is not None:
            payload, headers = sample.payload if payload is None else payload, {**sample.headers, **headers}
        sending = _Sending(to, payload or b"", headers, wait, output)

        async def over_nats() -> bool:
            async with session("invoke", namespace, flags, nodes=nodes) as connected:
                return await (sending.publish(connected) if no_reply else sending.ask(connected))

        fine = asyncio.run(over_nats())
    if not fine:
        raise typer.Exit(Exit.FAILED)


@dataclass(frozen=True, slots=True)
class _Addressee:
    """Whom a message is meant for, as the command line has it.

    Attributes:
        named: a subject, or a function by its name or id; "" where nothing is said.
        subject, words: of a function, see `remote.find`.
        sample: may have a subject.
    """

    named: str
    subject: str
    words: tuple[str, ...]
    sample: SampleEvent | None

    @property
    def hint(self) -> str:
        """The subject that is said beside the name."""
        return self.subject or (self.sample.subject if self.sample is not None and not self.words else "")

    def check(self, *, needed: bool) -> None:
        """See that it can be one.

        Raises:
            CommandFailed: it cannot, or nothing is said.
        """
        from nexlet_models.subjects import valid_subject

        for each in filter(None, (self.named, self.hint)):
            if (reason := valid_subject(each, wildcards=False)) is not None:
                raise CommandFailed(Exit.USAGE, "invalid-subject", f"'{each}' is no subject to publish on: it {reason}")
        if needed and not self.named and not self.hint:
            raise CommandFailed(
                Exit.USAGE, "subject-missing", "no subject and no function is said", "nexfn invoke SUBJECT|NAME [DATA]"
            )


class _Sending:
    """One message on its way."""

    def __init__(self, to: _Addressee, payload: bytes, headers: Mapping[str, str], wait: float, output: Output) -> None:
        self._to = to
        self._payload = payload
        self._headers = headers
        self._wait = wait
        self._output = output

    async def ask(self, session: Session) -> bool:
        """Whether what came back is what is expected, or no error."""
        from nexlet_functions.cli.answers import show
        from nexlet_functions.cli.remote import Target
        from nexlet_functions.natsio.errors import NoResponders

        to = self._to
        if to.named and (to.subject or to.words):
            target = await self._look_up(session)
        else:
            target = Target(to.named or to.hint)
        try:
            answer = await self._send(session, target)
        except NoResponders as nobody:
            if target.functions or not to.named or "." in to.named:  # no function's name has a dot
                raise
            target = await self._look_up(session, nobody)
            answer = await self._send(session, target)
        if answer is None:
            return True
        show(answer, self._output)
        return answer.fine

    async def publish(self, session: Session) -> bool:
        """To a function of that name, where there is one: nobody tells whether somebody listens to a subject."""
        from nexlet_functions.cli.remote import Target
        from nexlet_functions.shipping import UnknownWorkload

        to = self._to
        target = Target(to.named or to.hint)
        if to.named and "." not in to.named:
            try:
                target = await self._look_up(session)
            except UnknownWorkload:
                if to.subject or to.words:
                    raise
            except CommandFailed as failed:
                if failed.code != "no-node":
                    raise
        await self._publish(session, target.subject)
        return True

    async def _look_up(self, session: Session, nobody: Exception | None = None) -> Target:
        """The function that is meant.

        Args:
            nobody: what is known already: nobody listens to a subject of its name.
        """
        from nexlet_functions.cli.remote import find
        from nexlet_functions.shipping import UnknownWorkload

        try:
            return await find(session, self._to.named, self._to.hint, self._to.words)
        except UnknownWorkload as unknown:
            if nobody is None:
                raise
            raise CommandFailed(Exit.UNREACHABLE, "no-responders", f"{nobody}, and {unknown}") from None
        except CommandFailed as failed:
            if nobody is not None and failed.code == "no-node":
                raise nobody from None
            raise

    async def _send(self, session: Session, target: Target) -> Answer | None:
        """The answer; None where none is to be expected."""
        from nexlet_functions.cli.remote import send

        if not target.answers:
            await self._publish(session, target.subject, f"{self._to.named} does not answer there")
            return None
        return await send(session, target, self._payload, self._headers, self._wait, event=self._to.sample)

    async def _publish(self, session: Session, subject: str, note: str = "") -> None:
        from nexlet_functions.cli.remote import publish

        await publish(session.connection, subject, self._payload, self._headers)
        text = f"published on {subject} ({len(self._payload)} bytes)"
        self._output.record("published", f"{text}; {note}" if note else text, subject=subject, note=note or None)


def _function_folder(path: Path) -> Path:
    """The one function folder that `--local` means.

    Raises:
        CommandFailed: there are several.
        FunctionRefused: there is none.
    """
    from nexlet_functions.nexfile import find_functions

    found = find_functions([path])
    if len(found) > 1:
        raise CommandFailed(
            Exit.USAGE,
            "several-functions",
            f"{path} has several functions: {', '.join(each.name for each in found)}",
            "name the folder of one",
        )
    return found[0]


def read_payload(data: str) -> bytes:
    """The payload that an argument means: itself, `@FILE`, or `-` for standard input.

    Raises:
        CommandFailed: the file cannot be read.
    """
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return os.fsencode(data)  # as it was typed, also where that is no UTF-8
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise CommandFailed(
            Exit.USAGE, "file-unreadable", f"{data[1:]} cannot be read: {error.strerror or error}"
        ) from None


def read_headers(given: list[str]) -> dict[str, str]:
    """Headers from `Name: value`.

    Raises:
        CommandFailed: one of them is not of that form.
    """
    headers = {}
    for each in given:
        match = _HEADER.fullmatch(each)
        if match is None:
            raise CommandFailed(Exit.USAGE, "invalid-header", f"'{each}' is no header", "write it as 'Name: value'")
        headers[match[1]] = match[2].strip()
    return headers
