"""docs/performance.md: `page.md`, which is written by hand, with figures where it has `{{NAME}}`.

A name that stands in a line of its own is a table, or a picture's figures; one within a line is a fact, a figure or two
with their words (`FACTS`). Reasons for what is missed (`reasons.md`) may have facts as well, so that no figure in the
text is older than the table above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.performance.results import Results
from benchmarks.performance.sections import SECTIONS, history, rows
from benchmarks.performance.targets import ASKED, PROMISED, Target, Verdict, judged
from benchmarks.performance.told import Told
from benchmarks.record import Entry

__all__ = ["FACTS", "TEMPLATE", "Unknown", "rendered"]

TEMPLATE: Final = Path(__file__).with_name("page.md")

_MADE: Final = (
    "<!-- made by `make performance` from benchmarks/performance; what is written by hand is page.md there -->\n"
)
_PLACE: Final = re.compile(r"\{\{([a-z0-9-]+)\}\}")


class Unknown(ValueError):
    """A text has a place for something that there is not, or a target that was missed has no reason."""


def rendered(template: str, reasons: Mapping[str, str], results: Results, entries: Sequence[Entry]) -> str:
    """The page.

    Args:
        template: its text, with places.
        reasons: what is to be said of targets that are missed (see `targets.reasons`).
        entries: of the gate's record.

    Raises:
        Unknown: a place that nothing fills, or a missed target of which nothing is said.
        Malformed: there are figures that lack one.
    """
    blocks: dict[str, Callable[[], list[str]]] = {
        "targets": lambda: _verdicts(judged(ASKED, results)),
        "promises": lambda: _verdicts(judged(PROMISED, results)),
        "missed": lambda: _missed([*judged(ASKED, results), *judged(PROMISED, results)], reasons),
        "record": lambda: history(entries),
        **{name: lambda section=section: section(results) for name, section in SECTIONS.items()},  # type: ignore[misc]
    }

    def filled(place: re.Match[str]) -> str:
        name = place[1]
        if name in blocks:
            return "\n".join(blocks[name]())
        return place[0]

    def fact(place: re.Match[str]) -> str:
        if place[1] not in FACTS:
            raise Unknown(f"nothing is called {place[0]}")
        return FACTS[place[1]](results)

    # Blocks first: reasons have places, too.
    text = re.sub(rf"^{_PLACE.pattern}$", filled, template, flags=re.M)
    return _MADE + _PLACE.sub(fact, text)


def _verdicts(verdicts: Sequence[Verdict]) -> list[str]:
    return rows(
        ["", "asked for", "seen", ""],
        [[one.target.what, one.target.asked(), one.seen(), _marked(one)] for one in verdicts],
    )


def _marked(verdict: Verdict) -> str:
    """The word for it, which leads to the reason where there is one."""
    word = verdict.word()
    return f"[{word}](#{_anchor(verdict.target)})" if verdict.missed else word


def _anchor(target: Target) -> str:
    """What the reason's heading is linked to as."""
    return re.sub(r"[^\w\s-]", "", target.reason.lower()).replace(" ", "-")


def _missed(verdicts: Sequence[Verdict], reasons: Mapping[str, str]) -> list[str]:
    """Each reason once, under all that it is one for."""
    missed = [one for one in verdicts if one.missed]
    if not missed:
        return ["Nothing was missed in these runs."]
    lines: list[str] = []
    for reason in dict.fromkeys(one.target.reason for one in missed):
        if reason not in reasons:
            raise Unknown(f"something was missed, and reasons.md has no '{reason}'")
        lines += [f"### {reason}", ""]
        for one in (each for each in missed if each.target.reason == reason):
            said = f"seen {one.seen()}, {one.word()}" if one.figure is not None else one.word()
            lines.append(f"- {one.target.what}: {one.target.asked()}; {said}.")
        lines += ["", reasons[reason], ""]
    return lines[:-1]


def _cpu(in_flight: int, *, public: bool = False) -> Callable[[Results], str]:
    """Processor time a message, ours by process and the bare responder's in all."""

    def told(results: Results) -> str:
        cells = results.figures("throughput")
        if cells is None:
            return "(not measured)"
        cell = cells.where(in_flight=in_flight, public=public)
        each = {name: cell["cpu_us"][name].number() for name in ("server", "load", "nexlet", "workers")}
        bare = sum(cell["floor_cpu_us"][name].number() for name in ("server", "load", "floor"))
        by = ", ".join(f"{name} {us:.1f}" for name, us in each.items())
        return f"{sum(each.values()):.1f} µs ({by}) against {bare:.1f} µs"

    return told


def _server(in_flight: int) -> Callable[[Results], str]:
    """What the server takes for a message of ours, and of the bare responder."""

    def told(results: Results) -> str:
        cells = results.figures("throughput")
        if cells is None:
            return "(not measured)"
        cell: Told = cells.where(in_flight=in_flight, public=False)
        return f"{cell['cpu_us']['server'].number():.1f} µs instead of {cell['floor_cpu_us']['server'].number():.1f}"

    return told


FACTS: Final[Mapping[str, Callable[[Results], str]]] = {
    "cpu-1": _cpu(1),
    "cpu-64": _cpu(64),
    "cpu-512": _cpu(512),
    "cpu-fallback": _cpu(64, public=True),
    "server-64": _server(64),
    "server-512": _server(512),
}
"""What may stand within a line."""
