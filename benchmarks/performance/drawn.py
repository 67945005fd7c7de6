"""The pictures of docs/performance.md: how the cost of a message grows, and the history of the gate's record."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gate import CONDITIONS
from benchmarks.growth import Growth
from benchmarks.performance.results import Results
from benchmarks.performance.told import Malformed
from benchmarks.pictures import Axis, Panel, Series, svg
from benchmarks.record import Cell, Entry

__all__ = ["growth", "record"]

MARKS = 5
"""Dates of entries that an axis has room for."""


def growth(results: Results) -> str | None:
    """The curves, as SVG; None where they were not measured.

    Raises:
        Malformed: a point lacks a figure.
    """
    figures = results.figures("growth")
    if figures is None:
        return None
    try:
        return Growth.from_json(figures.value).picture()
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"growth: {error}") from error


def record(entries: Sequence[Entry]) -> str:
    """A panel for each cell that the last entry has: what it had alone, the lowest run of all, and its floor."""
    return svg("The record of the regression gate", [_panel(name, entries) for name in entries[-1].cells])


def _panel(name: str, entries: Sequence[Entry]) -> Panel:
    having = [(at, entry.cells[name]) for at, entry in enumerate(entries) if name in entry.cells]
    # Evenly, one entry after another: several may be of one day. The last one is always marked.
    step = -(-len(entries) // MARKS)
    marks = sorted(range(len(entries) - 1, -1, -step))
    return Panel(
        name,
        Axis("made on", zero=False, ticks=marks, shown=lambda at: entries[round(at)].date),
        Axis("share of the bare responder's rate"),
        [
            Series(
                next(iter(CONDITIONS)),
                [(at, cell.usual) for at, cell in having],
                [_apart(cell) for _, cell in having],
            ),
            Series("lowest of all conditions", [(at, _lowest(cell)) for at, cell in having]),
            Series("floor", [(at, cell.floor) for at, cell in having], dashed=True),
        ],
    )


def _apart(cell: Cell) -> float:
    """How far the runs of the usual condition lay from their median, at most."""
    return max(abs(run.median - cell.usual) for run in next(iter(cell.seen.values())))


def _lowest(cell: Cell) -> float:
    return min(run.median for runs in cell.seen.values() for run in runs)
