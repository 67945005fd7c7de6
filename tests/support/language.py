"""A host for the language layer that remembers, and short ways to check, load and call sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nexlet_models.problems import Problem
from nexlet_sandboxes.language import check, load
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program

__all__ = ["Host", "call", "problems_of", "refusal"]

HANDLER = "def handler(event, context):\n    return None\n"


class Host:
    """Keeps what is written and logged."""

    def __init__(
        self,
        builtins: Mapping[str, object] | None = None,
        modules: Mapping[str, Mapping[str, object]] | None = None,
        remaining: float = 1.0,
    ) -> None:
        self.builtins: Mapping[str, object] = builtins or {}
        self.modules: Mapping[str, Mapping[str, object]] = modules or {}
        self.memory_exceeded = False
        self.written: list[tuple[str, str]] = []
        self.logged: list[tuple[str, str, dict[str, object]]] = []
        self._remaining = remaining

    def write(self, stream: str, text: str) -> None:
        self.written.append((stream, text))

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        self.logged.append((level, message, fields))

    def remaining(self) -> float:
        return self._remaining


def problems_of(source: str, **more: Any) -> list[Problem]:
    """What a check says of a source; a handler is added where it has none."""
    if "def handler" not in source:
        source += "\n" + HANDLER
    return check(Program(source=source, **more))


def call(source: str, event: object = None, context: object = None, host: Host | None = None, **more: Any) -> Any:
    """Load a source and call its handler."""
    return load(Program(source=source, **more), host or Host()).handler(event, context)


def refusal(source: str, host: Host | None = None, **more: Any) -> tuple[Problem, ...]:
    """The problems with which a source is refused when it is loaded."""
    try:
        load(Program(source=source, **more), host or Host())
    except LoadRefused as refused:
        return refused.problems
    raise AssertionError("the source was not refused")
