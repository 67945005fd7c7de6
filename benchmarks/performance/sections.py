"""Each kind of figure as a Markdown table, for docs/performance.md: from figures as JSON has them to lines.

`SECTIONS` has them by the name that stands in `page.md`. A section whose kind was not measured says how it would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Final

from benchmarks.cells import Shape
from benchmarks.gate import CONDITIONS
from benchmarks.performance.form import ANCHORS
from benchmarks.performance.results import Results
from benchmarks.performance.told import Told
from benchmarks.record import Entry

__all__ = ["SECTIONS", "environment", "history", "rows"]


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(line)} |" for line in body),
    ]


def environment(results: Results) -> list[str]:
    """Which run measured what, where."""
    lines = []
    for run in results.runs:
        names = [name for name, of in results.kinds() if of is run]
        where = dict(run.environment)
        machine = ", ".join(f"{where.pop(name, '?')}" for name in ("processor", "machine"))
        versions = ", ".join(f"{name} {value}" for name, value in where.items())
        code = f"commit {run.commit}" if run.commit else "code of an unknown commit"
        when = run.date.replace("T", " ").removesuffix("Z")
        lines.append(f"- {when} UTC, {code}, {machine}; {versions}; {_how(results, names)}.")
    return lines


def _how(results: Results, names: Sequence[str]) -> str:
    """Kinds, by how they were measured."""
    told: dict[str, list[str]] = {}
    for name in names:
        options = results.options(name)
        assert options is not None
        told.setdefault(f"{options['rounds'].number():g} × {options['seconds'].number():g} s", []).append(name)
    return "; ".join(f"{how} of {', '.join(kinds)}" for how, kinds in told.items())


def history(entries: Sequence[Entry]) -> list[str]:
    """The record of the gate: what each cell had alone, and the floor it is held to since."""
    last = entries[-1]
    usual = next(iter(CONDITIONS))
    times = "once" if len(entries) == 1 else f"{len(entries)} times"
    return [
        *rows(
            ["", f"{usual}, first recorded", f"{usual}, now", "lowest of all conditions", "floor"],
            [
                [
                    name,
                    next(f"{entry.cells[name].usual:.2f}" for entry in entries if name in entry.cells),
                    f"{cell.usual:.2f}",
                    f"{min(run.median for runs in cell.seen.values() for run in runs):.2f}",
                    f"{cell.floor:.2f}",
                ]
                for name, cell in last.cells.items()
            ],
        ),
        "",
        f"Made {times}; the floors are those of {last.date}, commit {last.commit}.",
    ]


def _throughput(cells: Told) -> Iterator[str]:
    yield from rows(
        ["in flight", "ours/s", "bare on uvloop/s", "bare on asyncio/s", "ratio", "p50 ms, bare's", "p99 ms, bare's"],
        [
            [
                _in_flight(cell),
                _count(cell["ours"]),
                _count(cell["floors"]["uvloop"]),
                _count(cell["floors"]["asyncio"]),
                _with_mad(cell, "ratio"),
                f"{_two(cell['p50_ms'])}, {_two(cell['floor_p50_ms'])}",
                f"{_two(cell['p99_ms'])}, {_two(cell['floor_p99_ms'])}",
            ]
            for cell in cells.each()
        ],
    )


def _cpu(cells: Told) -> Iterator[str]:
    ours, bare = ("server", "load", "nexlet", "workers"), ("server", "load", "floor")

    def spent(of: Told, names: Sequence[str]) -> list[str]:
        each = [of[name].number() for name in names]
        return [*(f"{us:.1f}" for us in each), f"**{sum(each):.1f}**"]

    yield from rows(
        ["in flight", *ours, "together", "bare: server", "load", "responder", "together"],
        [[_in_flight(cell), *spent(cell["cpu_us"], ours), *spent(cell["floor_cpu_us"], bare)] for cell in cells.each()],
    )


def _in_flight(cell: Told) -> str:
    public = cell["public"].value
    return f"{cell['in_flight'].number():g}" + (", public interface alone" if public else "")


def _grid(cells: Told) -> Iterator[str]:
    def line(cell: Told) -> list[str]:
        shape = Shape(**{one.name: cell[one.name].value for one in fields(Shape)})
        name = ", ".join(
            [
                _size(shape.payload),
                "published" if shape.published else f"{shape.requests} in flight",
                f"`{shape.profile}`",
                *(["events heard"] if shape.heard else []),
                *(["public interface alone"] if shape.public else []),
            ]
        )
        if "missing" in cell:
            return [name, f"cannot be had here: {cell['missing'].text()}", "", "", "", ""]
        return [
            name,
            _count(cell["ours"]),
            _count(cell["floors"]["uvloop"]),
            _with_mad(cell, "ratio"),
            f"{_two(cell['p50_ms'])}, {_two(cell['p99_ms'])}",
            f"{sum(cell['cpu_us'][each].number() for each in ('nexlet', 'workers')):.1f}, "
            f"{_one(cell['floor_cpu_us']['floor'])}",
        ]

    head = ["", "ours/s", "bare/s", "ratio", "p50, p99 ms", "CPU µs: nexlet and workers, bare"]
    yield from rows(head, map(line, cells.each()))


def _paced(figures: Told) -> Iterator[str]:
    rate, highest = _count(figures["rate"]), _count(figures["highest"])
    yield f"{rate} requests a second: half of the {highest} that the function answers with 64 in flight."
    yield ""
    yield from rows(
        ["neighbour", "", "p50 ms", "p99 ms", "p99.9 ms", "p99 over alone", "sent late, p99 ms", "refused"],
        [
            [
                situation["neighbour"].text(),
                "ours" if who == "ours" else "bare",
                *(_two(situation[who][name]) for name in ("p50_ms", "p99_ms", "p999_ms")),
                "" if situation["neighbour"].text() == "alone" else _with_mad(situation[who], "over_alone"),
                _two(situation[who]["late_p99_ms"]),
                f"{situation[who]['refused'].number():.2%}",
            ]
            for situation in figures["situations"].each()
            for who in ("ours", "floor")
        ],
    )


def _bursts(bursts: Told) -> Iterator[str]:
    yield from rows(
        ["messages", "to", "run", "refused", "dropped by server, by client", "unaccounted", "over after s"],
        [
            [
                _exact(one["sent"]),
                one["subscriber"].text(),
                _exact(one["distinct"]),
                _exact(one["refused"]),
                f"{_exact(one['dropped_by_server'])}, {_exact(one['dropped_by_client'])}",
                _exact(one["unaccounted"]),
                _two(one["ended_s"]),
            ]
            for one in bursts.each()
        ],
    )


def _coldstart(figures: Told) -> Iterator[str]:
    yield from rows(
        ["from nothing to an answer", "times", "median ms", "p99 ms"],
        [
            [wait["what"].text(), _count(wait["count"]), _two(wait["median_ms"]), _two(wait["p99_ms"])]
            for wait in figures["waits"].each()
        ],
    )
    yield ""
    yield "The nexlet killed and executed again, with the functions that it had; seconds, medians:"
    yield ""
    yield from rows(
        ["functions", "first answer", "everything subscribed", "a bare responder's first answer"],
        [
            [_count(one["functions"]), *(_two(one[name]) for name in ("first_s", "all_s", "bare_s"))]
            for one in figures["startups"].each()
        ],
    )


def _scale(scales: Told) -> Iterator[str]:
    yield from rows(
        [
            "functions",
            "started in s",
            "memory MiB, of that grown",
            "idle, % of a core",
            "first answer p50, p99 ms",
            "woken/s",
            "at random/s",
            "bare/s",
            "ratio",
        ],
        [
            [
                _count(one["functions"]),
                _two(one["start_s"]),
                f"{_mib(one['all_mib'])}, {_mib(one['grown_mib'])}",
                f"{_two(one['idle_percent'])} over {one['idle_s'].number():g} s",
                f"{_one(one['first_p50_ms'])}, {_one(one['first_p99_ms'])}",
                _count(one["woken"]),
                _count(one["ours"]),
                _count(one["bare"]),
                _with_mad(one, "ratio"),
            ]
            for one in scales.each()
        ],
    )


def _growth(curves: Told) -> Iterator[str]:
    yield "![Processor time a message, against functions, subscriptions, workers and bytes](pictures/growth.svg)"
    yield ""
    yield from rows(
        ["more of", "from", "to", "CPU µs a message", "times", "bare: times", "ratio, first to last"],
        [
            [
                curve["of"].text(),
                *(f"{one['at'].number():,g}" for one in (first, last)),
                f"{_one(first['cpu_us'])} to {_one(last['cpu_us'])}",
                _two(curve["grown"]),
                _two(curve["bare_grown"]),
                f"{_two(first['ratio'])} to {_two(last['ratio'])}",
            ]
            for curve in curves.each()
            for points in [list(curve["points"].each())]
            for first, last in [(points[0], points[-1])]
        ],
    )


def _fairness(ways: Told) -> Iterator[str]:
    yield from rows(
        ["the busy one", "", "alone p50, p99 ms", "beside it p50, p99 ms", "p99, times", "busy one's answers/s"],
        [
            [
                way["kind"].text(),
                "ours" if who == "ours" else "bare",
                f"{_two(way[who]['p50_ms'])}, {_two(way[who]['p99_ms'])}",
                f"{_two(way[who]['busy_p50_ms'])}, {_two(way[who]['busy_p99_ms'])}",
                _one(way[who]["ratio"]),
                _count(way[who]["busy_rate"]),
            ]
            for way in ways.each()
            for who in ("ours", "floor")
        ],
    )


def _anchors(figures: Told) -> Iterator[str]:
    yield (
        f"{figures['payload'].number():g} bytes, {figures['in_flight'].number():g} in flight, in turn within one run:"
    )
    yield ""
    yield from rows(
        ["", "answers/s", "p50, p99 ms", "as a share of bare nats-py", "ours as a multiple of it"],
        [
            [
                one["name"].text(),
                _count(one["rate"]),
                f"{_two(one['p50_ms'])}, {_two(one['p99_ms'])}",
                _with_mad(one, "bare"),
                _with_mad(one, "ours"),
            ]
            for one in figures["anchors"].each()
        ],
    )


def _batches(pairs: Told) -> Iterator[str]:
    yield from rows(
        ["one worker", "a message a call/s", "in batches/s", "gain", "CPU µs: nexlet and worker, in batches"],
        [
            [
                pair["work"].text(),
                _count(pair["single"]),
                _count(pair["batched"]),
                _with_mad(pair, "gain"),
                f"{_one(pair['single_cpu_us'])}, {_one(pair['batched_cpu_us'])}",
            ]
            for pair in pairs.each()
        ],
    )


def _section(kind: str, told: Callable[[Told], Iterator[str]]) -> Callable[[Results], list[str]]:
    how = "`python -m benchmarks.anchors --json`" if kind == ANCHORS else f'`make performance ARGS="--kinds {kind}"`'

    def section(results: Results) -> list[str]:
        figures = results.figures(kind)
        return [f"Not measured yet: {how}."] if figures is None else list(told(figures))

    return section


SECTIONS: Final[Mapping[str, Callable[[Results], list[str]]]] = {
    "environment": environment,
    "throughput": _section("throughput", _throughput),
    "cpu": _section("throughput", _cpu),
    "grid": _section("grid", _grid),
    "paced": _section("paced", _paced),
    "fairness": _section("fairness", _fairness),
    "batches": _section("batches", _batches),
    "bursts": _section("bursts", _bursts),
    "coldstart": _section("coldstart", _coldstart),
    "scale": _section("scale", _scale),
    "growth": _section("growth", _growth),
    "anchors": _section(ANCHORS, _anchors),
}
"""What stands in the page under each name."""


def _count(told: Told) -> str:
    """A rate, to the hundred where it is large."""
    number = told.number()
    return f"{number:,.0f}" if number < 10_000 else f"{round(number, -2):,.0f}"


def _exact(told: Told) -> str:
    """A number of messages."""
    return f"{told.number():,.0f}"


def _one(told: Told) -> str:
    return f"{told.number():,.1f}"


def _two(told: Told) -> str:
    return f"{told.number():,.2f}"


def _mib(told: Told) -> str:
    mib = told.number_or_none()
    return "-" if mib is None else f"{mib:,.0f}"


def _with_mad(told: Told, name: str) -> str:
    return f"{_two(told[name])} ± {_two(told[f'{name}_mad'])}"


def _size(count: float) -> str:
    return f"{count / 1024:g} KiB" if count >= 1024 else f"{count:g} B"
