"""An author's source, run under the language layer in this process: for what needs no worker to be shown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from nexlet_sandboxes.language import load
from nexlet_sandboxes.program import Program

__all__ = ["RecordingHost", "run"]


class RecordingHost:
    """A host that keeps what it was given, and has as much time left as it is told."""

    def __init__(self, remaining: float = 5.0) -> None:
        self.builtins: Mapping[str, object] = {}
        self.modules: Mapping[str, Mapping[str, object]] = {}
        self.memory_exceeded = False
        self.left = remaining
        self.written: list[tuple[str, str]] = []
        self.logged: list[tuple[str, str, dict[str, object]]] = []

    def write(self, stream: str, text: str) -> None:
        """Keeps what was printed."""
        self.written.append((stream, text))

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        """Keeps what was logged."""
        self.logged.append((level, message, fields))

    def remaining(self) -> float:
        """What the test says."""
        return self.left


def run(source: str, host: RecordingHost | None = None, **program: Any) -> Any:
    """What `main()` of `source` returns. Raises what it raises, and `LoadRefused` where it does not get that far."""
    loaded = load(
        Program(source=textwrap.dedent(source), handler="main", **program), RecordingHost() if host is None else host
    )
    return loaded.handler()
