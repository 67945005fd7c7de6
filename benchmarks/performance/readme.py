"""The table of figures in the README, between its marks: what a newcomer asks first, of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.bursts import ROOM
from benchmarks.coldstart import WOKEN_FIRST
from benchmarks.performance.results import Results
from benchmarks.performance.sections import rows
from benchmarks.performance.told import Told

__all__ = ["BEGIN", "END", "ROWS", "inserted", "table"]

BEGIN: Final = "<!-- figures: begin (made by `make performance`) -->\n"
END: Final = "<!-- figures: end -->\n"


def inserted(readme: str, results: Results) -> str:
    """The README with the figures of these results in their place.

    Raises:
        ValueError: it has no place for them.
        Malformed: there are figures that lack one.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README needs the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{begin}{table(results)}{end}{after}"


def table(results: Results) -> str:
    """The table; what was not measured has no row."""
    body = []
    for kind, lines in ROWS.items():
        figures = results.figures(kind)
        if figures is not None:
            body += [list(line) for line in lines(figures)]
    return "\n".join([*rows(["what", "measured"], body), ""])


Rows = Iterator[tuple[str, str]]


def _deploys(figures: Told) -> Rows:
    count, together = (f"{figures[name].number():,.0f}" for name in ("count", "together"))
    yield f"STARTWORKLOAD to answer, ten-line function, median of {count}", _ms(figures["median_ms"])
    yield (
        f"{together} functions started side by side, each answering with its start's answer",
        f"{figures['together_s'].number():.2f} s",
    )


def _throughput(cells: Told) -> Rows:
    for in_flight in (1, 64, 512):
        cell = cells.where(in_flight=in_flight, public=False)
        yield (
            f"requests a second, {in_flight} in flight, as a share of the bare responder",
            _share(cell, cell["floors"]["uvloop"]),
        )


def _streams(figures: Told) -> Rows:
    what = "messages of a stream, run and acknowledged, as a share of a bare pull consumer with the same batch"
    yield what, _share(figures, figures["floor"])


def _grants(calls: Told) -> Rows:
    ratio = calls.where(kind="kv get")["ratio"].number()
    yield "a granted `get` from a bucket, as a multiple of a bare one", f"{ratio:.1f}"


def _desk(waits: Told) -> Rows:
    check, init = (waits.where(what=what)["median_s"].number() for what in ("check, 200 lines", "init, and its tests"))
    yield "`nexfn check` of 200 lines; `nexfn init` and its tests", f"{check:.2f} s; {init:.2f} s"


def _workers(figures: Told) -> Rows:
    strict = figures["starts"].where(profile="strict")
    if not strict["missing"].text():
        what = "a `strict` worker, from the request until an empty program is loaded, median and 99th percentile"
        yield f"{what} of {strict['count'].number():.0f}", f"{_ms(strict['median_ms'])}, {_ms(strict['p99_ms'])}"
    isolated = figures["starts"].where(profile="isolated")
    if not isolated["missing"].text():
        yield "the same, `isolated`", f"{_ms(isolated['median_ms'])}, {_ms(isolated['p99_ms'])}"
    mib = figures["idle_mib"].number_or_none()
    if mib is not None:
        yield f"an idle `strict` worker among {figures['idle'].number():.0f}, proportional memory", f"{mib:.1f} MiB"
    locks = figures["locks"]
    if not locks["missing"].text():
        dearer = locks["dearer_us"].number()
        # Of two medians that differ by less than a microsecond either may be the larger one.
        yield "a warm call to a `strict` worker, dearer than to an unlocked one by", f"{max(dearer, 0.1):.1f} µs"


def _deadlines(figures: Told) -> Rows:
    count = f"{figures['count'].number():.0f}"
    what = f"from the deadline of an invocation to the requester's `504`, median and 99th percentile of {count}"
    yield what, f"{_ms(figures['median_ms'])}, {_ms(figures['p99_ms'])}"


def _attributes(cases: Told) -> Rows:
    what = "attribute-heavy code, restricted, as a multiple of the same code unrestricted"
    yield what, f"{cases['attributes'].number():.2f}"


def _coldstart(figures: Told) -> Rows:
    zero = figures["waits"].where(what=WOKEN_FIRST)
    yield (
        "first answer of a function scaled to zero, median and 99th percentile",
        f"{_ms(zero['median_ms'])}, {_ms(zero['p99_ms'])}",
    )
    hundred = figures["startups"].where(functions=100)
    yield "the nexlet executed again with 100 functions, until all are subscribed", f"{hundred['all_s'].number():.2f} s"


def _scale(scales: Told) -> Rows:
    thousand = scales.where(functions=1000)
    mib = thousand["all_mib"].number_or_none()
    memory = "" if mib is None else f"{mib:.0f} MiB in all, "
    yield "1,000 idle functions", f"{memory}{thousand['idle_percent'].number():.2f} % of a core"


def _bursts(bursts: Told) -> Rows:
    one = bursts.where(sent=20_000, subscriber=ROOM)
    counts = (f"{one[name].number():,.0f}" for name in ("distinct", "refused", "unaccounted"))
    yield "a burst of 20,000 publishes: run, refused, unaccounted", ", ".join(counts)


ROWS: Final[dict[str, Callable[[Told], Rows]]] = {
    "throughput": _throughput,
    "deploys": _deploys,
    "coldstart": _coldstart,
    "scale": _scale,
    "bursts": _bursts,
    "streams": _streams,
    "grants": _grants,
    "deadlines": _deadlines,
    "workers": _workers,
    "attributes": _attributes,
    "desk": _desk,
}
"""The rows of each kind, in their order."""


def _ms(told: Told) -> str:
    return f"{told.number():.1f} ms"


def _share(of: Told, floor: Told) -> str:
    """A ratio, how far its repetitions lay apart, and the two rates, to the thousand where they are large."""

    def rate(told: Told) -> str:
        number = told.number()
        return f"{number:,.0f}" if number < 10_000 else f"{round(number, -3):,.0f}"

    return f"{of['ratio'].number():.2f} ± {of['ratio_mad'].number():.2f} ({rate(of['ours'])} of {rate(floor)})"
