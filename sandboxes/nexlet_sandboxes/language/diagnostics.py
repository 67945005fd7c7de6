"""From a place in the author's source to a `Problem`: columns in characters, the line's text, and nearest names."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from typing import Final

from nexlet_models.problems import Problem

__all__ = ["MAX_LINE", "Source", "nearest"]

MAX_LINE: Final = 2000
"""Characters of a line that a problem carries along; a longer one was written by no person, and is only named."""


class Source:
    """One file of the author's, which problems point into.

    Attributes:
        filename: as it reads in messages.
        text: the whole of it.
    """

    __slots__ = ("_lines", "filename", "text")

    def __init__(self, filename: str, text: str) -> None:
        self.filename = filename
        self.text = text
        self._lines: list[str] | None = None

    def line(self, number: int) -> str:
        """The text of a 1-based line without its end; "" where there is none."""
        if self._lines is None:
            # Only what Python's tokenizer takes for a line end: str.splitlines knows more of them.
            self._lines = self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def at(self, node: ast.AST, message: str, *, code: str, advice: str = "") -> Problem:
        """A problem that marks `node`, or its first line where it has several."""
        number = getattr(node, "lineno", 0)
        line = self.line(number)
        start = _characters(line, getattr(node, "col_offset", 0))
        end = getattr(node, "end_col_offset", None)
        several = getattr(node, "end_lineno", number) != number
        stop = len(line.rstrip()) if several or end is None else _characters(line, end)
        return self.on(number, message, code=code, advice=advice, column=start + 1, end_column=max(stop, start + 1) + 1)

    def on(
        self, line: int, message: str, *, code: str, advice: str = "", column: int = 0, end_column: int = 0
    ) -> Problem:
        """A problem on a 1-based line (0: on the file as a whole)."""
        text = self.line(line)
        return Problem(
            message=message,
            place=self.filename,
            line=line,
            column=column,
            end_column=end_column,
            source_line=text if len(text) <= MAX_LINE else "",
            advice=advice,
            code=code,
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name someone may have meant by `name`, or None."""
    found = difflib.get_close_matches(name[:100], sorted(known), n=1)
    return found[0] if found else None


def _characters(line: str, offset: int) -> int:
    # The syntax tree counts in bytes of UTF-8, a reader in characters.
    if line.isascii():
        return min(offset, len(line))
    return len(line.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))
