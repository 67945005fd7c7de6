"""The table in docs/observing.md, made from the catalog: `python -m nexlet_functions.observing.reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nexlet_functions.observing.catalog import CATALOG, EDGES

__all__ = ["PAGE", "inserted", "table"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "observing.md"
BEGIN: Final = "<!-- metrics: begin (made by `python -m nexlet_functions.observing.reference`) -->\n"
END: Final = "<!-- metrics: end -->\n"


def table() -> str:
    """The table, Markdown."""
    lines = ["| metric | type | labels | |", "|---|---|---|---|"]
    for metric in CATALOG.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |")
    first, last = (1 << EDGES.start) / 1e6, (1 << EDGES[-1]) / 1e6
    lines += [
        "",
        f"Buckets of histograms end at powers of two of a microsecond, from {first:g} s to {last:.0f} s: each is twice",
        "as wide as the one before it, so that a quantile is within a factor of two at worst.",
        "",
    ]
    return "\n".join(lines)


def inserted(page: str) -> str:
    """`page` with the table of today in its place.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{begin}{table()}{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
