"""`dlq`: messages that failed for good, in the stream that keeps them."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import CREDENTIALS, Json, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.streams.dead import Chosen, DeadLetters, Entry

__all__ = ["Action", "dlq"]

_SHOWN: Final = 2000
"""Characters of a payload on a terminal."""


class Action(enum.StrEnum):
    """What is done with dead letters."""

    LIST = "list"
    SHOW = "show"
    REDRIVE = "redrive"
    DISCARD = "discard"


@setting_flags(NATS=CREDENTIALS)
def dlq(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="list|show|redrive|discard",
            help="What to do: look at all, look at some in full, send back to where they failed, or throw away.",
            show_default=False,
        ),
    ],
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT", help="As in dead_letter or on_failure; wildcards allowed.", show_default=False
        ),
    ],
    numbers: Annotated[
        list[int] | None,
        typer.Argument(metavar="[NUMBER...]", help="Letters, by the numbers that list shows.", show_default=False),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", envvar="NEXFN_ALL", help="All that are there now.")] = False,
    function: Annotated[
        str, typer.Option("--function", envvar="NEXFN_FUNCTION", metavar="NAME", help="Letters of this function.")
    ] = "",
    reason: Annotated[
        str,
        typer.Option(
            "--reason", envvar="NEXFN_REASON", metavar="OUTCOME", help="Letters that ended so: error, timeout, ..."
        ),
    ] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--from", envvar="NEXFN_FROM", metavar="SUBJECT", help="Letters that were published on this subject."
        ),
    ] = "",
    rate: Annotated[
        float | None,
        typer.Option("--rate", envvar="NEXFN_RATE", min=0.001, metavar="N", help="So many a second at most."),
    ] = None,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Look at dead letters, send them back, or throw them away.

    Sent back to a stream, a letter is gone from here when the stream has it; sent back to a plain subject, when a
    function has answered that it is done. What fails again comes back with its history. Ends with 1 where one of them
    could not be sent back: it stays.
    """
    from nexlet_functions.streams.dead import Chosen
    from nexlet_models.subjects import valid_subject

    set_up_logging(level="error")
    # Nothing at all would be every subject of a stream, and it is what a variable of a script is that nobody has set.
    if (wrong := valid_subject(subject, wildcards=True)) is not None:
        raise CommandFailed(Exit.USAGE, "invalid-subject", f"'{subject}' is no subject: it {wrong}")
    chosen = Chosen(tuple(numbers or ()), function, reason, origin)
    if action is Action.SHOW and chosen.anything and not every:
        raise _unsaid("shown")
    if action in (Action.REDRIVE, Action.DISCARD) and chosen.anything and not every:
        raise _unsaid("sent back" if action is Action.REDRIVE else "thrown away")
    asyncio.run(_run(action, subject, chosen, Output(json=json), flags, rate))


def _unsaid(what: str) -> CommandFailed:
    return CommandFailed(
        Exit.USAGE,
        "nothing-chosen",
        f"which letters are to be {what}?",
        "name their numbers, or --function, --reason or --from; or say --all",
    )


async def _run(
    action: Action, subject: str, chosen: Chosen, output: Output, flags: Mapping[str, object], rate: float | None
) -> None:
    from nexlet_functions.cli.nodes import CONNECT_TIMEOUT
    from nexlet_functions.natsio import Connection
    from nexlet_functions.settings import Settings
    from nexlet_functions.streams.dead import DeadLetters

    credentials = Settings.read(flags).credentials()
    async with await Connection.open(credentials, name="nexfn dlq", timeout=CONNECT_TIMEOUT) as connection:
        letters = await DeadLetters.find(connection, subject)
        count = failed = 0
        # Collected first where something is taken out: one that is not there is said before anything is done.
        entries = [entry async for entry in letters.entries(chosen)]
        for entry in entries:
            if count and rate is not None:
                await asyncio.sleep(1 / rate)
            count += 1
            failed += not await _one(action, letters, entry, output)
        if not count:
            output.record("none", f"no dead letters of {subject} in the stream {letters.stream}")
        if failed:
            raise CommandFailed(
                Exit.FAILED, "not-sent-back", f"{failed} of {count} were not sent back, and are still there"
            )


async def _one(action: Action, letters: DeadLetters, entry: Entry, output: Output) -> bool:
    from nexlet_functions.streams.dead import NotSentBack

    fields = _fields(entry)
    number, letter = entry.message.sequence, entry.letter
    match action:
        case Action.LIST:
            head = (f"{number:>6}  ", "bold")
            tail = f"{letter.get('function')}  {letter.get('subject')}  {letter.get('error')}"
            ended = f"{letter.get('reason')} after {letter.get('attempt')}"
            output.record("letter", styled(head, (ended, "red"), f"  {_when(entry)}  {tail}"), **fields)
        case Action.SHOW:
            output.record("letter", _whole(entry), **fields, payload=_text(entry))
        case Action.DISCARD:
            await letters.discard(entry)
            output.record("discarded", styled(("discarded", "yellow"), f"  {number}"), number=number)
        case Action.REDRIVE:
            try:
                await letters.send_back(entry)
            except NotSentBack as error:
                output.record("kept", styled(("kept", "red"), f"  {number}  {error}"), number=number, reason=str(error))
                return False
            to = letter.get("subject")
            output.record("redriven", styled(("redriven", "green"), f"  {number}  {to}"), number=number, subject=to)
    return True


def _fields(entry: Entry) -> dict[str, Any]:
    """A letter for programs."""
    letter = entry.letter
    numbers = {"code", "attempt", "sequence"}
    said: dict[str, Any] = {
        name: int(value) if name in numbers and value.isdecimal() else value
        for name, value in letter.said.items()
        if name != "history"
    }
    own = {"headers": dict(letter.headers)} if letter.headers else {}
    past = {"history": letter.history} if letter.history else {}
    return {"number": entry.message.sequence, "kept_at": entry.message.time, **said, **own, **past}


def _when(entry: Entry) -> str:
    return (entry.letter.get("time") or entry.message.time).partition(".")[0]


def _text(entry: Entry) -> str:
    return entry.message.payload.decode("utf-8", "replace")


def _whole(entry: Entry) -> list[Any]:
    """A letter for people."""
    letter, lines = entry.letter, []
    lines.append(styled((f"{entry.message.sequence}", "bold"), f"  {letter.get('reason')}: {letter.get('error')}"))
    for name in ("time", "function", "namespace", "workload", "invocation", "attempt", "subject"):
        lines.append(styled((f"  {name:<10}", "dim"), f" {letter.get(name)}"))
    if letter.get("stream"):
        where = f" {letter.get('stream')} {letter.get('sequence')}, consumer {letter.get('consumer')}"
        lines.append(styled((f"  {'stream':<10}", "dim"), where))
    if letter.get("traceback"):
        lines.append(styled((f"  {'traceback':<10}", "dim"), f" {letter.get('traceback')}"))
    lines += [styled((f"  {'before':<10}", "dim"), f" {round_}") for round_ in letter.history]
    lines += [styled((f"  {name}: ", "dim"), value) for name, value in letter.headers.items()]
    text = _text(entry)
    return [*lines, text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(entry.message.payload)} bytes)"]
