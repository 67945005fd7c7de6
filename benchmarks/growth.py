"""What a message costs where there is more of something: functions, subscriptions, workers, bytes.

`python -m benchmarks growth`, with `--pictures FOLDER` also as a picture. Each point is measured beside a bare
responder with as many subscriptions and messages of the same size, in turn. What is told is processor time, of the
nexlet and its workers together, and the rate as a share of the responder's: the one says what more of it costs, the
other whether it costs us more than it costs anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bench import ECHO, Bench, open_bench, responder
from benchmarks.fleet import deploy, withdraw
from benchmarks.kinds import Kind, Options
from benchmarks.load import Load, Measured
from benchmarks.pictures import Axis, Panel, Series, svg
from benchmarks.processes import cpu_seconds
from benchmarks.spread import ratios, spread

__all__ = ["KIND", "Curve", "Growth", "Point"]

IN_FLIGHT = 64
UNDER_WAY = 4 * 1024 * 1024
"""Bytes of payload under way at a time: fewer requests, where they are large, as a caller of such would have it."""

DEPLOYED = (1, 10, 100, 1000)
ASKED = 100
"""At most: not beyond the idle workers that are kept. What a message costs to one that has none is told by `scale`."""

SUBSCRIPTIONS = (1, 16, 256)
WORKERS = (1, 2, 4, 8)
PAYLOADS = (16, 1024, 16 * 1024, 128 * 1024, 900 * 1024)


@dataclass(frozen=True, slots=True)
class Point:
    """With so much of it; medians over the repetitions.

    Attributes:
        at: how much.
        ours, bare: answers a second, ours and the bare responder's.
        ratio, ratio_mad: of the two, and the median absolute deviation of the repetitions' own ratios.
        cpu_us: microseconds of processor time a message, of the nexlet and its workers.
        cpu_mad_us: its median absolute deviation.
        bare_cpu_us: the same of the bare responder.
    """

    at: int
    ours: float
    bare: float
    ratio: float
    ratio_mad: float
    cpu_us: float
    cpu_mad_us: float
    bare_cpu_us: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points for more and more of something.

    Attributes:
        of: what there is more of.
        unit: how its axis is called.
    """

    of: str
    unit: str
    points: Sequence[Point]

    @property
    def grown(self) -> float:
        """What a message costs at the last point, as a multiple of what it costs at the first."""
        return self.points[-1].cpu_us / self.points[0].cpu_us

    @property
    def bare_grown(self) -> float:
        """The same of the bare responder."""
        return self.points[-1].bare_cpu_us / self.points[0].bare_cpu_us


@dataclass(frozen=True, slots=True)
class Growth:
    """All curves."""

    curves: Sequence[Curve]

    @classmethod
    def from_json(cls, told: Sequence[Mapping[str, Any]]) -> Growth:
        """What `as_json` gave, as it was."""
        return cls(
            [Curve(one["of"], one["unit"], [Point(**point) for point in one["points"]]) for one in told],
        )

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [asdict(one) | {"grown": one.grown, "bare_grown": one.bare_grown} for one in self.curves]

    def table(self) -> list[str]:
        """For people."""
        lines = [f"what a message costs, at most {IN_FLIGHT} in flight; beside a bare responder with as much of it"]
        for curve in self.curves:
            lines.append(
                f"  {curve.of}: from first to last, cost of a message times {curve.grown:.2f}, "
                f"of the bare responder times {curve.bare_grown:.2f}"
            )
            lines.append("          at      ours/s      bare/s   ratio     +-    CPU us   bare CPU us")
            lines += [
                f"  {point.at:>10,}  {point.ours:>10,.0f}  {point.bare:>10,.0f}  {point.ratio:>6.2f}"
                f"  {point.ratio_mad:>5.2f}  {point.cpu_us:>8.1f}  {point.bare_cpu_us:>12.1f}"
                for point in curve.points
            ]
        return lines

    def picture(self) -> str:
        """As an SVG: processor time a message, a panel for each curve."""
        return svg("What a message costs where there is more of something", [_panel(one) for one in self.curves])


def _panel(curve: Curve) -> Panel:
    points = curve.points
    sizes = curve.unit == "bytes"
    return Panel(
        curve.of,
        Axis(curve.unit, log=True, ticks=[point.at for point in points], shown=_size if sizes else "{:,g}".format),
        Axis("CPU a message, microseconds", log=sizes),
        [
            Series(
                "nexlet and workers",
                [(point.at, point.cpu_us) for point in points],
                [point.cpu_mad_us for point in points],
            ),
            Series("bare nats-py responder", [(point.at, point.bare_cpu_us) for point in points]),
        ],
    )


def _size(count: float) -> str:
    return f"{count / 1024:g} KiB" if count >= 1024 else f"{count:g} B"


async def _measure(options: Options) -> Growth:
    async with open_bench(floors=()) as bench:
        growing = _Growing(bench, options)
        return Growth(
            [
                await growing.subscriptions(),
                await growing.workers(),
                await growing.payloads(),
                # The last ones: these stay deployed until the end.
                *await growing.functions(),
            ]
        )


class _Growing:
    """The curves of one bench."""

    def __init__(self, bench: Bench, options: Options) -> None:
        self._bench = bench
        self._options = options
        self._number = 0  # of points so far: nothing is called as what was before it

    async def functions(self) -> list[Curve]:
        """Two: one of all these is asked, and all of them are."""
        numbers = sorted(set(filter(None, self._options.functions))) or DEPLOYED
        names = [f"grow-{at}" for at in range(max(numbers))]
        one, each = [], []
        for number in numbers:
            # Those first that are asked later: a worker that is the longest idle is the first to go.
            await deploy(self._bench, names[len(self._bench.deployed) : number], {"source": ECHO})
            if number <= ASKED:
                each.append(await self._point(number, names[:number], number))
            one.append(await self._point(number, names[:1], number))
        return [
            Curve("functions deployed, one of them asked", "functions", one),
            *([Curve("functions deployed, all asked in turn", "functions", each)] if each else []),
        ]

    async def subscriptions(self) -> Curve:
        """One function with so many triggers, all of them asked in turn."""
        points = []
        for number in SUBSCRIPTIONS:
            subjects = [f"grow.{number}.{at}" for at in range(number)]
            points.append(await self._of_one(number, {"triggers": subjects}, subjects))
        return Curve("subscriptions of one function, asked in turn", "subscriptions", points)

    async def workers(self) -> Curve:
        """One function that keeps so many workers."""
        points = [await self._of_one(number, {"workers": {"min": number, "max": number}}) for number in WORKERS]
        return Curve("workers of one function", "workers", points)

    async def payloads(self) -> Curve:
        """Messages of so many bytes, answered with the same."""
        points = [await self._of_one(number, {}, payload=number) for number in PAYLOADS]
        return Curve("bytes of a message and of its answer", "bytes", points)

    async def _of_one(
        self, at: int, request: Mapping[str, object], subjects: Sequence[str] = (), payload: int | None = None
    ) -> Point:
        name = f"growing-{self._number}"
        await deploy(self._bench, [name], {"source": ECHO, **request})
        try:
            return await self._point(at, subjects or [name], len(subjects) or 1, payload)
        finally:
            await withdraw(self._bench, [name])

    async def _point(self, at: int, subjects: Sequence[str], subscribed: int, payload: int | None = None) -> Point:
        size = self._options.payload if payload is None else payload
        self._number += 1
        floor = f"floor.{self._number}"
        with responder(self._bench.url, floor, subjects=subscribed) as pid:
            bare = [f"{floor}.{each}" for each in range(len(subjects))]
            return await asyncio.to_thread(self._beside, at, subjects, bare, pid, bytes(size))

    def _beside(self, at: int, ours: Sequence[str], bare: Sequence[str], pid: int, payload: bytes) -> Point:
        in_flight = max(1, min(IN_FLIGHT, UNDER_WAY // len(payload)))
        with Load(self._bench.url) as load:

            def own_cpu() -> float:
                spent = self._bench.cpu_seconds()
                return spent["nexlet"] + spent["workers"]

            turns = [
                _Turns(load, ours, in_flight, payload, own_cpu),
                _Turns(load, bare, in_flight, payload, lambda: cpu_seconds(pid)),
            ]
            for turn in turns:
                turn.warm_up(self._options.seconds)
            for _ in range(self._options.rounds):
                for turn in turns:
                    turn.take()
        first, second = turns
        ratio, cpu = ratios(first.rates, second.rates), spread(first.cpu_us)
        return Point(
            at=at,
            ours=spread(first.rates).median,
            bare=spread(second.rates).median,
            ratio=ratio.median,
            ratio_mad=ratio.mad,
            cpu_us=cpu.median,
            cpu_mad_us=cpu.mad,
            bare_cpu_us=spread(second.cpu_us).median,
        )


class _Turns:
    """One of the two that are asked in turn, and its repetitions."""

    def __init__(
        self, load: Load, subjects: Sequence[str], in_flight: int, payload: bytes, cpu: Callable[[], float]
    ) -> None:
        self._load = load
        self._subjects = subjects
        self._in_flight = in_flight
        self._payload = payload
        self._cpu = cpu
        self._count = 0
        self.rates: list[float] = []
        self.cpu_us: list[float] = []

    def warm_up(self, seconds: float) -> None:
        """Ask until it is known how many requests make about so many seconds."""
        count = max(2 * self._in_flight, 2 * len(self._subjects))
        while (measured := self._ask(count)).seconds < seconds / 2:
            count *= 2
        self._count = max(4 * self._in_flight, int(measured.rate * seconds))

    def take(self) -> None:
        """One repetition."""
        before = self._cpu()
        measured = self._ask(self._count)
        self.cpu_us.append((self._cpu() - before) / measured.answers * 1e6)
        self.rates.append(measured.rate)

    def _ask(self, count: int) -> Measured:
        measured = self._load.requests(self._subjects, count=count, in_flight=self._in_flight, payload=self._payload)
        if measured.errors:
            raise RuntimeError(f"{measured.errors} of {measured.answers} answers on {self._subjects[0]} were errors")
        return measured


KIND = Kind(
    "growth",
    "what a message costs against number of functions, subscriptions and workers, and its size",
    _measure,
    short=False,
    seconds=0.2,
)
