"""What the figures are to reach, and whether they do: `ASKED` for speed and scale, `PROMISED` for the rest.

A target has a bound, knows where its figure stands, and is judged by the figure as it is shown: `judged` says how each
one came out. What is to be said of one that is missed stands in `reasons.md`, under a heading that several may share;
what is met is never excused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import attributes, coldstart, deadlines, desk, grants, paced, streams, throughput, workers
from benchmarks.bursts import BARE
from benchmarks.performance.results import Results
from benchmarks.performance.told import Malformed, Told

__all__ = ["ASKED", "PROMISED", "REASONS", "Target", "Verdict", "judged", "reasons"]

REASONS: Final = Path(__file__).with_name("reasons.md")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, and what it is to be.

    Attributes:
        name: of it, for good.
        what: is measured, as a table says it.
        bound: what it is to be at least, or at most.
        least: whether it is the least; otherwise the most.
        unit: of both, with the blank before it; "" for a ratio.
        places: decimals that are shown, and by which it is judged.
        kind: of benchmark that measures it; "" where nothing does, because it was not built.
        seen: finds the figure among those of its kind, and its median absolute deviation where it has one; None
            where it could not be measured on that machine.
        reason: heading in `reasons.md` of what is said when it is missed.
    """

    name: str
    what: str
    bound: float
    least: bool
    unit: str
    places: int
    kind: str
    seen: Callable[[Told], tuple[float, float | None] | None]
    reason: str

    def shown(self, value: float) -> str:
        """A value of it, with its unit."""
        return f"{value:,.{self.places}f}{self.unit}"

    def asked(self) -> str:
        """What it is to be, in words."""
        if self.bound == 0 and not self.least:
            return "0"
        return f"at {'least' if self.least else 'most'} {self.bound:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target came out.

    Attributes:
        figure: that was seen; None where it was not measured.
        mad: the median absolute deviation of it, where it has one.
    """

    target: Target
    figure: float | None
    mad: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is what it was to be, as it is shown."""
        if self.figure is None:
            return False
        shown = round(self.figure, self.target.places)
        return shown >= self.target.bound if self.target.least else shown <= self.target.bound

    @property
    def missed(self) -> bool:
        """Whether it is not: measured and short of it, or not built."""
        return not self.met if self.figure is not None else not self.target.kind

    def seen(self) -> str:
        """What was seen, with how far its repetitions lay apart."""
        if self.figure is None:
            return "not measured" if self.target.kind else "-"
        off = "" if self.mad is None else f" ± {self.mad:,.{self.target.places}f}"
        return f"{self.figure:,.{self.target.places}f}{off}{self.target.unit}"

    def word(self) -> str:
        """Met, missed and by how much, not built, or nothing."""
        if self.met:
            return "met"
        if self.figure is None:
            return "" if self.target.kind else "not built"
        bound, shown = self.target.bound, round(self.figure, self.target.places)
        if not bound:
            return "missed"
        if self.target.least:
            return f"missed by {max(1 - shown / bound, 0.01):.0%}"
        times = shown / bound
        return f"missed, times {times:.1f}" if times >= 2 else f"missed by {max(times - 1, 0.01):.0%}"


def judged(targets: Mapping[str, Target], results: Results) -> list[Verdict]:
    """Each target beside its figure.

    Raises:
        Malformed: the figures of its kind do not have it.
    """
    found = []
    for target in targets.values():
        figures = results.figures(target.kind) if target.kind else None
        seen = None if figures is None else target.seen(figures)
        found.append(Verdict(target, None) if seen is None else Verdict(target, *seen))
    return found


def reasons(text: str) -> dict[str, str]:
    """Of a text with headings of the second level, what stands under each."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    return {heading.strip(): body.strip() for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


Seen = Callable[[Told], tuple[float, float | None] | None]
"""Finds a figure and its median absolute deviation, see `Target.seen`."""


def _least(name: str, what: str, bound: float, kind: str, seen: Seen, reason: str) -> Target:
    """A ratio that is to be so much at least."""
    return Target(name, what, bound, True, "", 2, kind, seen, reason)


def _most(
    name: str, what: str, bound: float, unit: str, kind: str, seen: Seen, reason: str, *, places: int = 2
) -> Target:
    """Something that is to be so much at most."""
    return Target(name, what, bound, False, unit, places, kind, seen, reason)


def _ratio(in_flight: int, *, public: bool = False) -> Seen:
    def seen(cells: Told) -> tuple[float, float | None]:
        cell = cells.where(in_flight=in_flight, public=public)
        return cell["ratio"].number(), cell["ratio_mad"].number()

    return seen


def _plain(which: str, mad: str = "") -> Seen:
    return lambda figures: (figures[which].number(), figures[mad].number() if mad else None)


def _beside_burning(figures: Told) -> tuple[float, float | None]:
    ours = figures["situations"].where(neighbour="burn")["ours"]
    return ours["over_alone"].number(), ours["over_alone_mad"].number()


def _wait(what: str, which: str) -> Seen:
    return lambda figures: (figures["waits"].where(what=what)[which].number(), None)


def _thousand(which: str) -> Seen:
    def seen(scales: Told) -> tuple[float, float | None] | None:
        figure = scales.where(functions=1000)[which].number_or_none()
        return None if figure is None else (figure, None)

    return seen


def _serving(figures: Told) -> tuple[float, float | None]:
    # All of them: the first one may answer while others are still being subscribed to.
    return figures["startups"].where(functions=100)["all_s"].number(), None


def _unaccounted(bursts: Told) -> tuple[float, float | None]:
    """Of all functions that were sent the burst together; what ran twice is no account either."""
    ours = [one for one in bursts.each() if one["sent"].number() == 20_000 and one["subscriber"].text() != BARE]
    if not ours:
        raise Malformed(f"{bursts.place} has no burst of 20,000")
    return sum(abs(one["unaccounted"].number()) + one["twice"].number() for one in ours), None


def _fair(way: str) -> Seen:
    return lambda ways: (ways.where(kind=way)["ours"]["ratio"].number(), None)


def _got(calls: Told) -> tuple[float, float | None]:
    return calls.where(kind="kv get")["ratio"].number(), None


def _worker(profile: str, which: str) -> Seen:
    def seen(figures: Told) -> tuple[float, float | None] | None:
        start = figures["starts"].where(profile=profile)
        return None if start["missing"].text() else (start[which].number(), None)

    return seen


def _idle(figures: Told) -> tuple[float, float | None] | None:
    mib = figures["idle_mib"].number_or_none()
    return None if mib is None else (mib, None)


def _locks(figures: Told) -> tuple[float, float | None] | None:
    locks = figures["locks"]
    return None if locks["missing"].text() else (locks["dearer_us"].number(), None)


def _timed(what: str) -> Seen:
    return lambda waits: (waits.where(what=what)["median_s"].number(), None)


def _each(targets: Iterator[Target]) -> dict[str, Target]:
    return {target.name: target for target in targets}


def _asked() -> Iterator[Target]:
    for name, in_flight, reason in (
        ("in-flight-64", 64, "64 requests in flight"),
        ("in-flight-512", 512, "512 requests in flight"),
        ("in-flight-1", 1, "1 request in flight"),
    ):
        bound = throughput.PROMISES[in_flight]
        yield _least(name, f"throughput, {in_flight} in flight, 128 B", bound, "throughput", _ratio(in_flight), reason)
    what = "throughput, 1 in flight, with a worker that spins before it sleeps"
    yield _least("spinning", what, 1.1, "", lambda _: None, "A worker that spins")
    what = "throughput over nats-py's public interface alone, 64 in flight"
    bound = throughput.PUBLIC_PROMISE
    yield _least("fallback", what, bound, "throughput", _ratio(64, public=True), "The public interface alone")
    what = "p99 at half of the highest rate beside a neighbour that computes, as a multiple of that without"
    yield _most("neighbour", what, paced.PROMISE, "", "paced", _beside_burning, "A neighbour that computes")

    waited = coldstart.DEPLOYED
    what = "deployment to first answer, median"
    yield _most(
        "deploy", what, 50, " ms", "coldstart", _wait(waited, "median_ms"), "Deployment to first answer", places=1
    )
    waited = coldstart.WOKEN_FIRST
    for which, bound in (("median", 5.0), ("p99", 10.0)):
        seen = _wait(waited, f"{which}_ms")
        name, reason = f"zero-{which}", "A function scaled to zero"
        yield _most(name, f"{waited}, {which}", bound, " ms", "coldstart", seen, reason, places=1)

    for name, which, what, bound, unit, places in (
        ("thousand-memory", "all_mib", "1,000 idle functions: memory", 300, " MiB", 0),
        ("thousand-start", "start_s", "1,000 functions: starting", 10, " s", 1),
        ("thousand-idle", "idle_percent", "1,000 idle functions: processor time", 0.5, " % of a core", 2),
    ):
        yield _most(name, what, bound, unit, "scale", _thousand(which), what, places=places)
    what = "nexlet executed to serving, 100 functions"
    yield _most("serving", what, 1, " s", "coldstart", _serving, "Serving after a start")
    what = "a burst of 20,000 publishes: messages unaccounted"
    yield _most("burst", what, 0, "", "bursts", _unaccounted, "A burst that balances", places=0)


def _promised() -> Iterator[Target]:
    for way, does in (("flood", "is flooded"), ("burn", "computes"), ("large", "answers with 200 kB")):
        what = f"p99 of an idle function among a hundred, beside one that {does}, as a multiple of that alone"
        yield _most(f"fair-{way}", what, 3, "", "fairness", _fair(way), "One busy function among a hundred", places=1)
    what = "ten times the load that can be served: what the nexlet's memory grows by after ten seconds"
    yield _most("overload", what, 10, " MiB", "overload", _plain("growth_mib"), "Memory that does not grow")
    what = "deadline of an invocation to the requester's `504`, p99"
    yield _most("deadline", what, deadlines.PROMISE_MS, " ms", "deadlines", _plain("p99_ms"), "Deadlines", places=1)
    what = "messages of a stream, run and acknowledged, as a share of a bare pull consumer's"
    yield _least("streams", what, streams.PROMISE, "streams", _plain("ratio", "ratio_mad"), "Messages of a stream")
    what = "a granted `get` from a bucket, as a multiple of a bare one"
    yield _most("grants", what, grants.MOST, "", "grants", _got, "Granted calls")
    for profile, bounds in workers.PROMISES.items():
        for which, bound in zip(("median", "p99"), bounds, strict=True):
            if bound is not None:
                name, what = f"{profile}-{which}", f"`{profile}` worker, until an empty program is loaded, {which}"
                seen = _worker(profile, f"{which}_ms")
                yield _most(name, what, bound, " ms", "workers", seen, "Starting a worker", places=1)
    what = "an idle `strict` worker among 200, proportional memory"
    yield _most("worker-memory", what, 1.5, " MiB", "workers", _idle, "Memory of an idle worker", places=1)
    what = "what the locks of `strict` add to a warm call"
    yield _most("locks", what, workers.LOCKS_US, " µs", "workers", _locks, "Locks on a warm call", places=1)
    what = "attribute-heavy code, restricted, as a multiple of the same code unrestricted"
    seen = _plain(next(iter(attributes.CASES)))
    yield _most("attributes", what, attributes.PROMISE, "", "attributes", seen, "Restricted attributes")
    for name, timed, what in (
        ("check", "check, 200 lines", "`nexfn check` of 200 lines, median"),
        ("init", "init, and its tests", "the tests of a function that `nexfn init` made, median"),
    ):
        yield _most(name, what, desk.PROMISES_S[timed], " s", "desk", _timed(timed), "At an author's desk")


ASKED: Final = _each(_asked())
"""Of speed and of many functions on one machine: two cores, `strict`, headers and events on."""

PROMISED: Final = _each(_promised())
"""What other parts are held to."""
