"""What a kind of benchmark is: a name, a line about it, and how it is measured. `registry` has all there are.

A kind's module holds its measurement, its figures, and the lines that tell them. It is handed `Options` and hands back
`Figures`; it opens what it needs (see `bench`) and leaves nothing running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Figures", "Kind", "Options", "Pictured"]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a measurement.

    Attributes:
        seconds: of one repetition of one cell.
        rounds: repetitions of each cell, ours and floors in turn.
        payload: bytes of a request, where the kind does not vary them itself.
        functions: how many are deployed, one number after another, where the kind varies that; its own where empty.
    """

    seconds: float = 1.0
    rounds: int = 5
    payload: int = 128
    functions: tuple[int, ...] = ()


class Figures(Protocol):
    """What came of a measurement."""

    def as_json(self) -> object:
        """For `--json`: what `json` can write."""
        ...

    def table(self) -> list[str]:
        """For people: lines without line ends, the first of which says what is measured."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """Figures that are also to be looked at."""

    def picture(self) -> str:
        """The text of an SVG file."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of benchmark.

    Attributes:
        name: on the command line, and as the key of its figures in JSON.
        summary: one line, for `--help`.
        measure: measures it.
        short: whether it is among those that are measured where none is named; the others take a minute or more.
        seconds, rounds: what its `Options` have where the command line says nothing.
    """

    name: str
    summary: str
    measure: Callable[[Options], Awaitable[Figures]]
    short: bool = True
    seconds: float = 1.0
    rounds: int = 5

    def options(
        self,
        *,
        seconds: float | None = None,
        rounds: int | None = None,
        payload: int = 128,
        functions: Sequence[int] = (),
    ) -> Options:
        """What is given, and for the rest what is this kind's own."""
        return Options(
            seconds=self.seconds if seconds is None else seconds,
            rounds=self.rounds if rounds is None else rounds,
            payload=payload,
            functions=tuple(functions),
        )
