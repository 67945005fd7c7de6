"""How a refusal reads: every problem at once, each with its place, a caret and what to write instead.

A `Problem` is one thing that is wrong with a function or its start request. The same list is shown by the node's
command line, by `nexlet-functions check` and by an editor, so the text is made here and nowhere else. This module
imports nothing heavy: the sandbox's processes use it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Problem", "headline", "render"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason for a refusal.

    Attributes:
        message: what is wrong, one line, no full stop: "import of 'os' is not allowed here".
        place: the file ("function.py") or the path within the start request ("triggers[1].subject"); "" if none.
        line: 1-based line in that file; 0 where there is none.
        column: 1-based column in characters; 0 where there is none.
        end_column: 1-based column after the last marked character; 0 marks a single character.
        source_line: the text of that line, without its line end, for the caret to point into.
        advice: the next step, one line; "" where there is none to give.
        code: a stable name for programs, such as "import-refused".
    """

    message: str
    place: str = ""
    line: int = 0
    column: int = 0
    end_column: int = 0
    source_line: str = ""
    advice: str = ""
    code: str = ""

    def location(self) -> str:
        """`function.py:7:5`, `triggers[1].subject`, or "" where the problem has no place."""
        if not self.line:
            return self.place
        if not self.column:
            return f"{self.place}:{self.line}"
        return f"{self.place}:{self.line}:{self.column}"

    def text(self) -> str:
        """The problem as several lines: place and message, the source line, a caret, the advice."""
        location = self.location()
        lines = [_printable(f"{location}  {self.message}" if location else self.message)]
        if self.line and self.source_line.strip():
            # A long line is cut around the caret: what is read at a terminal must stay readable there.
            shown, column = _window(_printable(self.source_line.expandtabs(1)), max(self.column, 1))
            gutter = str(self.line)
            lines.append(f"  {gutter} | {shown}")
            if self.column:
                width = max(1, min((self.end_column or self.column + 1) - self.column, len(shown) - column + 1))
                lines.append(f"  {' ' * len(gutter)} | {' ' * (column - 1)}{'^' * width}")
        if self.advice:
            lines.append(f"    {_printable(self.advice)}")
        return "\n".join(lines)


def headline(name: str, problems: Sequence[Problem]) -> str:
    """The first line of a refusal, which is also the text of the `Nats-Service-Error` header."""
    if len(problems) == 1:
        only = problems[0]
        location = only.location()
        return _printable(f"{name} refused: {location + ' ' if location else ''}{only.message}")
    return _printable(f"{name} refused: {len(problems)} problems")


def render(name: str, problems: Sequence[Problem]) -> str:
    """The whole refusal of `name`, as many lines as it takes."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    body = "\n".join("  " + line for problem in problems for line in problem.text().splitlines())
    return f"{_printable(name)} refused: {count}\n{body}"


def _printable(text: str) -> str:
    """The same length, without what would move a terminal's cursor, end a header, or turn the reading direction."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


_SHOWN = 100


def _window(line: str, column: int) -> tuple[str, int]:
    """At most `_SHOWN` characters of `line` around `column` (1-based), and the column within them."""
    if len(line) <= _SHOWN:
        return line, min(column, len(line) + 1)
    start = max(0, min(column - 1 - _SHOWN // 2, len(line) - _SHOWN))
    return line[start : start + _SHOWN], column - start
