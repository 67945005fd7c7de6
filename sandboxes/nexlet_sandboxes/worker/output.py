"""Output capture: what a function prints and logs becomes LOG frames, a line each, within its rate.

The author's process has no real standard output. `print` writes here; a line that is not ended yet waits for its end,
or for the end of the invocation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import orjson

from nexlet_sandboxes.frames import Kind, Stream, frame
from nexlet_sandboxes.lograte import LogRate
from nexlet_sandboxes.texts import text_of

__all__ = ["LEVELS", "Output"]

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The levels of `context.log`, by the numbers of Python's logging. From warning on they go to stderr."""


class Output:
    """Collects lines and hands LOG frames to `send`.

    Attributes:
        call: the invocation they belong to; 0 while the module loads.
        prefix: what invocation ids begin with.
        level: the lowest level of `context.log` that is passed on.
    """

    __slots__ = ("_max_line", "_partial", "_rate", "_send", "call", "level", "prefix")

    def __init__(self, send: Callable[[bytes], None], *, rate: int, max_line: int) -> None:
        """`rate` in bytes a second, `max_line` in bytes."""
        self._send = send
        self._max_line = max_line
        self._rate = LogRate(rate, time.monotonic_ns())
        self._partial: dict[Stream, str] = {}
        self.call = 0
        self.prefix = ""
        self.level = 0

    def write(self, stream: Stream, text: str) -> None:
        """Take printed text; whole lines of it go out now."""
        text = self._partial.pop(stream, "") + text
        *lines, rest = text.split("\n")
        # An unended line is bounded as well: what is over the length goes out as a line of its own.
        whole = max(0, len(rest) - 1) // self._max_line * self._max_line
        lines += [rest[at : at + self._max_line] for at in range(0, whole, self._max_line)]
        rest = rest[whole:]
        if rest:
            self._partial[stream] = rest
        for line in lines:
            self._emit(stream, 0, line.encode("utf-8", "replace"))

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        """One structured line: JSON with level, message, invocation id and the author's fields."""
        number = LEVELS.get(level, LEVELS["info"])
        if number < self.level:
            return
        entry: dict[str, object] = {"level": level, "message": message}
        if self.call:
            entry["invocation_id"] = f"{self.prefix}{self.call:x}"
        for name, value in fields.items():
            entry.setdefault(text_of(name), value)
        try:
            line = orjson.dumps(entry, default=_text, option=orjson.OPT_NON_STR_KEYS)
        except (
            TypeError
        ):  # a number or a text that JSON cannot hold, or a list within itself: a line is not lost for it
            line = orjson.dumps({_sayable(name): _sayable(value) for name, value in entry.items()})
        self._emit(Stream.STDERR if number >= LEVELS["warning"] else Stream.STDOUT, number, line)

    def allows(self, size: int) -> bool:
        """Whether `size` bytes more may go out now; what may not is counted with the dropped lines."""
        return self._rate.allows(size, time.monotonic_ns())

    def end(self) -> None:
        """End of an invocation: unended lines go out, and how many lines were kept back is told."""
        if self._partial:
            partial, self._partial = self._partial, {}
            for stream, rest in partial.items():
                self._emit(stream, 0, rest.encode("utf-8", "replace"))
        if self._rate.dropped:
            self._send(frame(Kind.DROPPED, call=self._rate.take_dropped()))

    def _emit(self, stream: Stream, level: int, line: bytes) -> None:
        if len(line) > self._max_line:
            note = b" ... (cut, %d bytes)" % len(line)
            line = line[: self._max_line - len(note)] + note
        if self.allows(len(line) + 1):
            self._send(frame(Kind.LOG, line, flag=stream, aux=level, call=self.call))


def _text(value: object) -> str:
    """What JSON does not know is logged as its text."""
    return text_of(value)


def _sayable(value: object) -> str:
    return text_of(value).encode("utf-8", "replace").decode()
