"""Standard output that nobody has to wait for: what is said is put in line, and written by a thread.

Functions run in the same process as what tells of them. Whoever reads slowly, or stops reading for a while, holds up a
thread here, and no function. The line has a bound: what is beyond it is left out, counted, and said when there is room.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["Spool"]

MOST: Final = 50_000
"""Texts that wait to be written: some 10 MB of lines about invocations, or seconds of a function under full load."""

LAST_WORDS: Final = 2.0
"""Seconds that what is in line has at the end, for somebody who reads."""


class Spool:
    """A line of texts for a file descriptor. A context manager: what is in line is written when it is left."""

    def __init__(
        self, descriptor: int, *, left_out: Callable[[int], str], on_closed: Callable[[], None], most: int = MOST
    ) -> None:
        """Nothing is written yet.

        Args:
            descriptor: where it is written; it stays open.
            left_out: the text that says how many were left out.
            on_closed: called, by the thread, when there is nobody any more who could read.
            most: texts in line.
        """
        self._descriptor = descriptor
        self._left_out = left_out
        self._on_closed = on_closed
        self._most = most
        self._texts: deque[str] = deque()
        self._missing = 0
        self._changed = threading.Condition()
        self._ending = False
        # A daemon: somebody who does not read at all keeps no process alive.
        self._thread = threading.Thread(target=self._write, name="standard output", daemon=True)

    def put(self, text: str) -> None:
        """Put a text in line. Returns at once."""
        with self._changed:
            if len(self._texts) >= self._most:
                self._missing += 1
                return
            if self._missing:
                self._texts.append(self._left_out(self._missing))
                self._missing = 0
            self._texts.append(text)
            self._changed.notify()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._texts or self._ending)
                if not self._texts:
                    return
                data = "".join(self._texts).encode("utf-8", "replace")
                self._texts.clear()
            try:
                while data:
                    # Not through `sys.stdout`, whose lock the interpreter needs at its end.
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self._on_closed()
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            if self._missing:
                self._texts.append(self._left_out(self._missing))
            self._ending = True
            self._changed.notify()
        self._thread.join(LAST_WORDS)
