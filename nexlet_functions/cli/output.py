"""What a command says: for a person at a terminal, or as JSON lines for a program.

Standard output has results, standard error has errors and logs. Each result is one record: a word that says what it is,
and fields. A terminal gets the text that was made for it; a pipe, or whoever asks with `--json`, gets the record as one
line of JSON. Text that came from elsewhere (a reply, a log line) is printed without its control characters: it must not
steer the terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nexlet_functions.cli.exits import CommandFailed, CommandRefused, Exit
from nexlet_models.problems import Problem

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Output", "has_screen", "plain", "problem_record", "styled"]

_NO_WIDTH = 80
"""Columns of a terminal that does not say how many it has."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """`text` without what would steer a terminal: control characters, and those that turn the direction of writing.

    And without lone surrogates, which JSON can say and no encoding can write.
    """
    return _CONTROL.sub("\ufffd", text)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line for a terminal: pieces of text, each alone or with its style ("bold", "red", "dim")."""
    from rich.text import Text

    return Text.assemble(*((plain(part), "") if isinstance(part, str) else (plain(part[0]), part[1]) for part in parts))


class Output:
    """Where a command's results go.

    Attributes:
        json: whether results are JSON lines.
        lines: takes the lines of text in place of standard output, where something else has the terminal.
        spool: takes what would be written to standard output, where nobody may wait for whoever reads it.
    """

    def __init__(self, *, json: bool | None = None) -> None:
        """Results as JSON or not; None: JSON unless standard output is a terminal."""
        self.json = not sys.stdout.isatty() if json is None else json
        self.lines: Callable[[Text], None] | None = None
        self.spool: Callable[[str], None] | None = None
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Standard output, for text. Colour where the terminal has it and `NO_COLOR` is not set."""
        if self._console is None:
            self._console = _made_console(stderr=False)
        return self._console

    def record(self, kind: str, text: Text | str | Sequence[Text | str] = (), /, **fields: Any) -> None:
        """One result.

        Args:
            kind: what it is: the record's field `type`.
            text: what a person reads, a line or several; nothing where a person needs nothing.
            fields: what a program reads. None is left out.

        Raises:
            BrokenPipeError: nobody reads standard output any more.
            CommandFailed: it cannot be written, as where a disk is full.
        """
        if self.json:
            entry = {"type": kind} | {name: value for name, value in fields.items() if value is not None}
            written = _json_line(entry)
            if self.spool is not None:
                self.spool(f"{written}\n")
            else:
                with _writing():
                    print(written, flush=True)  # noqa: T201  # this is the output
            return
        for line in [text] if not isinstance(text, Sequence) or isinstance(text, str) else text:
            shown = styled(line) if isinstance(line, str) else line
            if self.lines is not None:
                self.lines(shown)
            elif self.spool is not None:
                with self.console.capture() as captured:
                    self.console.print(shown)
                self.spool(captured.get())
            else:
                with _writing():
                    self.console.print(shown)

    def error(self, failure: CommandFailed) -> None:
        """What went wrong, on standard error."""
        if self.json:
            entry: dict[str, Any] = {"type": "error", "code": failure.code, "exit": int(failure.exit)}
            if isinstance(failure, CommandRefused):
                entry |= {"name": failure.name, "problems": [problem_record(each) for each in failure.problems]}
            else:
                entry |= {"message": failure.text} | ({"advice": failure.advice} if failure.advice else {})
            print(_json_line(entry), file=sys.stderr, flush=True)  # noqa: T201  # as above
            return
        console = _made_console(stderr=True)
        first, *rest = str(failure).splitlines() or [""]
        console.print(styled(("error:", "bold red"), " ", first))
        for line in rest:
            console.print(plain(line))


def has_screen(output: Output) -> bool:
    """Whether text is written to a terminal that can be steered."""
    return not output.json and output.console.is_terminal and not output.console.is_dumb_terminal


def _made_console(*, stderr: bool) -> Console:
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # for whoever has something to end: rich would end the process from here

    made = _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if made.width < 1:  # COLUMNS is 0 where a script asked a terminal that was none; rich then writes nothing at all
        made.width = _NO_WIDTH
    return made


@contextmanager
def _writing() -> Iterator[None]:
    """Around what is written to standard output.

    Raises:
        BrokenPipeError: nobody reads any more.
        CommandFailed: it cannot be written, as where a disk is full.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # What could not be written is tried once more when the interpreter ends, and would be an error of its own.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        text = f"standard output cannot be written: {error.strerror or error}"
        raise CommandFailed(Exit.FAILED, "not-written", text) from None


def _json_line(entry: dict[str, Any]) -> str:
    """As people can read it; with escapes alone where it has a lone surrogate, or an output that is not UTF-8."""
    line = json.dumps(entry, ensure_ascii=False, default=str)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(entry, default=str)
    return line


def problem_record(problem: Problem) -> dict[str, Any]:
    """A problem for programs; places that it does not have are left out."""
    fields = ("message", "place", "line", "column", "end_column", "source_line", "advice", "code")
    return {name: value for name in fields if (value := getattr(problem, name))}
