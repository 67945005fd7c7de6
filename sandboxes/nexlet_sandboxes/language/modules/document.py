"""The page `docs/modules.md`, made from the table: the same words for every supported version of Python."""

from __future__ import annotations

import re
import textwrap

from nexlet_sandboxes.language.modules.table import ALLOWED, Module

__all__ = ["page"]

_INTRODUCTION = """\
# Modules a function may import

<!-- Made from the table in sandboxes/nexlet_sandboxes/language/modules/table.py by
     `python -m nexlet_sandboxes.language.modules > docs/modules.md`; a test keeps the two equal. -->

A function imports these modules of the standard library, with the names listed here and no others. What it gets is not
the module but an immutable object that holds those names; `import`, `import ... as` and `from ... import` work as
always, star imports do not. `nexlet-functions modules` prints the same list for the Python that it runs with. Beside
them there are the helper files in the function's own folder, and what an operator permits by name.

A name is left out if it leads, by its attributes or by being called, to files, processes, the network, the
interpreter's insides, or to anything shared that could be changed. Some are there in a version of our own that does
not; each section says how it differs from what you know. A version of Python in brackets says that a name is there from
that version on.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([_INTRODUCTION, *(_section(name, row) for name, row in ALLOWED.items())])


def _section(name: str, row: Module) -> str:
    lines = [f"## {name}", ""]
    if row.note:
        lines += [*_wrapped(row.note), ""]
    lines += _wrapped(", ".join(_name(given, row) for given in row.all_names()))
    if row.missing:
        lines += ["", "| not there | instead |", "|---|---|"]
        grouped: dict[str, list[str]] = {}
        for absent, advice in row.missing.items():
            grouped.setdefault(advice, []).append(f"`{absent}`")
        lines += [f"| {', '.join(sorted(names))} | {_cell(advice)} |" for advice, names in grouped.items()]
    return "\n".join([*lines, ""])


def _name(given: str, row: Module) -> str:
    major_minor = row.since.get(given)
    return f"`{given}`" if major_minor is None else f"`{given}` ({major_minor[0]}.{major_minor[1]})"


def _cell(advice: str) -> str:
    return re.sub(r"([|*_])", r"\\\1", advice)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)
