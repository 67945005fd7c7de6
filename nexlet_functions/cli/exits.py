"""The exit codes of every command, and the error that carries one to the end of the process."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from nexlet_functions.errors import NexletFunctionsError
from nexlet_models.problems import Problem, render

__all__ = ["CommandFailed", "CommandRefused", "Exit"]


class Exit(enum.IntEnum):
    """What a script reads in `$?`. The numbers are part of the public contract."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    INTERNAL = 70
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "it did what was asked",
    Exit.FAILED: "it was refused or it failed: a function with problems, an error as the answer, a sample that differs",
    Exit.USAGE: "the command line, a file it names or a setting is wrong; nothing was done",
    Exit.UNREACHABLE: "nobody there: no server, or no responders on the subject",
    Exit.TIMEOUT: "no answer within the time given",
    Exit.INTERNAL: "a fault of ours (EX_SOFTWARE of sysexits.h): please report what it printed",
    Exit.INTERRUPTED: "ended by Ctrl-C before it was done (`dev`, `up`, `logs`, `top` and `check --watch` end with 0: "
    "it is how they are ended)",
}


class CommandFailed(NexletFunctionsError):
    """A command cannot go on.

    Attributes:
        exit: the code the process ends with.
        code: a stable name for programs.
        text: what happened, one line or more.
        advice: the next step; "" where the text has it.
    """

    def __init__(self, exit: Exit, code: str, text: str, advice: str = "") -> None:  # noqa: A002  # its name in `$?`
        super().__init__(f"{text}\n  {advice}" if advice else text)
        self.exit = exit
        self.code = code
        self.text = text
        self.advice = advice


class CommandRefused(CommandFailed):
    """Something with problems that each have a place.

    Attributes:
        name: what is refused.
        problems: every reason.
    """

    def __init__(
        self,
        name: str,
        problems: Sequence[Problem],
        *,
        exit: Exit = Exit.FAILED,  # noqa: A002  # as above
        code: str = "refused",
    ) -> None:
        super().__init__(exit, code, render(name, problems))
        self.name = name
        self.problems = tuple(problems)
