"""The table of functions and how they fare, of `top` and `dev`: `activity.Row` for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nexlet_functions.cli.activity import NO_FAULT, Row
from nexlet_functions.cli.nodes import state_style
from nexlet_functions.cli.output import plain

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["cells", "table"]

_HEAD = ("NAME", "ID", "STATE", "RATE/S", "P50", "P99", "ERRORS", "IN FLIGHT", "WORKERS", "LAST")
_RIGHT = frozenset({"RATE/S", "P50", "P99", "ERRORS", "IN FLIGHT", "WORKERS"})
_LONGEST = 40
"""Characters of an error that are shown: the table is for a glance, and the log has all of it."""


def table(rows: Sequence[Row], *, namespaces: bool = False, ids: bool = True) -> Table:
    """The rows for a terminal, or for any other console of rich.

    Args:
        namespaces: with a column for them.
        ids: with a column for the workloads' ids.
    """
    from rich.table import Table
    from rich.text import Text

    head = [name for name in (*(("NAMESPACE",) if namespaces else ()), *_HEAD) if ids or name != "ID"]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in head:
        made.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        shown = cells(row) | {"NAMESPACE": (row.namespace, "dim")}
        made.add_row(*(Text(plain(shown[name][0]), style=shown[name][1]) for name in head))
    return made


def cells(row: Row) -> dict[str, tuple[str, str]]:
    """What stands in each column, and its style."""
    fault = row.last_outcome not in (*NO_FAULT, "")
    last = " ".join(filter(None, (row.last_outcome, _ago(row.last_seconds))))
    if fault and row.last_error:
        error = row.last_error.splitlines()[0]
        last += f": {error if len(error) <= _LONGEST else f'{error[:_LONGEST]}...'}"
    return {
        "NAME": (row.name, "bold"),
        "ID": (row.id, "dim"),
        "STATE": (row.state or "?", state_style(row.state)),
        "RATE/S": (_rate(row.rate), ""),
        "P50": (_duration(row.p50_ms), ""),
        "P99": (_duration(row.p99_ms), ""),
        "ERRORS": (str(row.errors), "bold red" if row.errors else "dim"),
        "IN FLIGHT": (_in_flight(row), ""),
        "WORKERS": ("-" if row.workers is None else f"{row.workers}/{row.max_workers or '?'}", ""),
        "LAST": (last or "-", "red" if fault else "yellow" if row.last_outcome not in ("ok", "") else "dim"),
    }


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.0f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.1f} ms"


def _in_flight(row: Row) -> str:
    """What workers have, and what waits for one."""
    if row.in_flight is None:
        return "-"
    return f"{row.in_flight}+{row.pending}" if row.pending else str(row.in_flight)


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return "now"
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    raise AssertionError
