"""Figures as pictures: panels with curves, in one SVG that reads well on a light page and on a dark one.

`svg(title, panels)` is all there is to it. A `Panel` has `Series` of points and two axes; an `Axis` may be logarithmic,
and says by itself how its numbers read (sizes, dates). Written here, since what draws charts for Python either needs a
megabyte of numerics or makes pictures with scripts in them, whose colours do not follow the reader's page.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Axis", "Panel", "Series", "svg"]

WIDTH, HEIGHT = 440, 300
"""Of a panel, in pixels, with what stands around its plot."""

LEFT, RIGHT, TOP, BOTTOM = 58, 18, 52, 46
COLOURS: Final = (("#0a58ca", "#79b8ff"), ("#b3510f", "#f0a35e"), ("#1a7f37", "#56d364"), ("#8250df", "#d2a8ff"))
"""On a light page and on a dark one. Further series begin again with the first, dashed."""

_STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.name { font-weight: 600; }
.note { font-size: 11px; fill: #59636e; }
.grid { stroke: #d8dee4; stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.spread { stroke-width: 1; }
"""
_DARK: Final = "text { fill: #e6edf3; } .note { fill: #9aa5b1; } .grid { stroke: #30363d; }"


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a panel.

    Attributes:
        title: what is measured, and its unit.
        log: whether equal factors are equally far apart. Nothing on it may be 0 or less.
        zero: whether it begins at 0 however far away the numbers are; a logarithmic one never does.
        ticks: where it is marked; by itself, at round numbers, where none are given.
        shown: how a number reads at its mark.
    """

    title: str
    log: bool = False
    zero: bool = True
    ticks: Sequence[float] = ()
    shown: Callable[[float], str] = "{:,g}".format


@dataclass(frozen=True, slots=True)
class Series:
    """A curve.

    Attributes:
        name: of what it shows.
        points: pairs of x and y; they are joined in this order.
        spread: how far each y may be off, up and down, in the same order; nothing where it is not known.
        dashed: for what is no measurement: a bound, a target.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] = ()
    dashed: bool = False

    def __post_init__(self) -> None:
        if self.spread and len(self.spread) != len(self.points):
            raise ValueError(f"{self.name}: {len(self.points)} points, and a spread for {len(self.spread)}")


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot with its title, its axes and its curves."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]


def svg(title: str, panels: Sequence[Panel], *, columns: int = 2) -> str:
    """The text of an SVG file with these panels, `columns` of them side by side.

    Raises:
        ValueError: a panel has no point, or a logarithmic axis a number that is not above 0.
    """
    columns = min(columns, len(panels))
    width, height = WIDTH * columns, HEIGHT * math.ceil(len(panels) / columns)
    colours = "\n".join(
        f".c{at} {{ stroke: {light}; }} .f{at} {{ fill: {light}; }}" for at, (light, _) in enumerate(COLOURS)
    )
    dark = "\n".join(
        f"  .c{at} {{ stroke: {dark}; }} .f{at} {{ fill: {dark}; }}" for at, (_, dark) in enumerate(COLOURS)
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{_STYLE}{colours}\n@media (prefers-color-scheme: dark) {{\n  {_DARK}\n{dark}\n}}\n</style>",
    ]
    for at, panel in enumerate(panels):
        lines.append(f'<g transform="translate({at % columns * WIDTH} {at // columns * HEIGHT})">')
        lines += _panel(panel)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    xs = [x for one in panel.series for x, _ in one.points]
    ys = [y for one in panel.series for y in _reach(one, log=panel.y.log)]
    if not xs:
        raise ValueError(f"{panel.title}: there is no point to show")
    x, y = _Scale(panel.x, xs, LEFT, WIDTH - RIGHT), _Scale(panel.y, ys, HEIGHT - BOTTOM, TOP)
    yield _text(LEFT, 18, panel.title, "name", "start")
    for tick in y.ticks:
        at = y(tick)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" class="grid"/>'
        yield _text(LEFT - 6, at + 4, panel.y.shown(tick), "note", "end")
    for tick in x.ticks:
        at = x(tick)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" class="grid"/>'
        yield _text(at, HEIGHT - BOTTOM + 16, panel.x.shown(tick), "note")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, panel.x.title, "note")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<g transform="translate(13 {middle:g}) rotate(-90)">{_text(0, 0, panel.y.title, "note")}</g>'
    legend = float(LEFT)
    for number, one in enumerate(panel.series):
        colour = number % len(COLOURS)
        dashes = ' stroke-dasharray="5 4"' if one.dashed or number >= len(COLOURS) else ""
        yield f'<line x1="{legend:g}" y1="35" x2="{legend + 18:g}" y2="35" class="curve c{colour}"{dashes}/>'
        yield _text(legend + 23, 39, one.name, "note", "start")
        legend += 38 + 6.1 * len(one.name)  # about as wide as text of this size is
        joined = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in one.points)
        yield f'<polyline points="{joined}" class="curve c{colour}"{dashes}/>'
        for (px, py), off in zip(one.points, one.spread, strict=bool(one.spread)):
            low = py - off if py > off or not panel.y.log else py
            ends = f'x1="{x(px):.1f}" y1="{y(low):.1f}" x2="{x(px):.1f}" y2="{y(py + off):.1f}"'
            yield f'<line {ends} class="spread c{colour}"/>'
        for px, py in () if one.dashed else one.points:
            told = f"{one.name}: {panel.y.shown(float(f'{py:.3g}'))} at {panel.x.shown(px)}"
            yield f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" class="f{colour}">'
            yield f"<title>{html.escape(told, quote=False)}</title></circle>"


def _reach(series: Series, *, log: bool) -> Iterator[float]:
    """Everything that has to find room."""
    for number, (_, y) in enumerate(series.points):
        yield y
        if series.spread:
            off = series.spread[number]
            yield y + off
            if y > off or not log:
                yield y - off


class _Scale:
    """Where a number of an axis is in the picture."""

    def __init__(self, axis: Axis, values: Iterable[float], begin: float, end: float) -> None:
        """Find the numbers of its ends, and its marks; `begin` and `end` are where they are to be."""
        values = [*values, *axis.ticks]
        if axis.log and min(values) <= 0:
            raise ValueError(f"{axis.title}: {min(values):g} has no place on a logarithmic axis")
        low, high = min(values), max(values)
        if not axis.log and axis.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = (low / 2, high * 2) if axis.log else (low - 1, high + 1)
        ticks = axis.ticks or (_powers(low, high) if axis.log else _round(low, high))
        low, high = min(low, *ticks), max(high, *ticks)
        self.ticks = list(ticks)
        self._place = math.log10 if axis.log else float
        self._low, self._high = self._place(low), self._place(high)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = (self._place(value) - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)


def _round(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 and a power of ten: four to nine of them, from the last below to the first above."""
    rough = (high - low) / 5
    if rough < sys.float_info.min:  # as good as nothing, and too small to reckon with
        return [low, high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(n * step, 12) for n in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten around them; with 2 and 5 between, where that would be few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first < 3 else (1,)
    every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    below = max((one for one in every if one <= low), default=every[0])
    above = min((one for one in every if one >= high), default=every[-1])
    return [one for one in every if below <= one <= above]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{html.escape(text, quote=False)}</text>'
