"""What a message's size, its answer, who listens and the sandbox do to throughput: `python -m benchmarks grid`.

From one cell (64 small requests in flight to a `strict` function, nobody listens to the events) one thing at a time is
another one; who listens also where nothing is answered, and each profile also with one request in flight.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import fallback, open_bench
from benchmarks.cells import Cell, Missing, Shape, measure_cell
from benchmarks.kinds import Kind, Options

__all__ = ["ALLOWED", "KIND", "PAYLOADS", "SHAPES", "Grid"]

PAYLOADS: Final = (0, 128, 4096, 64 * 1024, 900 * 1024)
"""Bytes; the last is what a server takes by default (1 MiB), less room for headers."""

_PROFILES: Final = ("isolated", "process", "oneshot")
ALLOWED: Final = {"defaults": {"profiles": ["strict", *_PROFILES]}}
"""Of an operator's settings: one of these profiles is weaker than the default one, and so allowed by name alone."""

SHAPES: Final = (
    *(Shape(payload=payload) for payload in PAYLOADS),
    *(Shape(payload=payload, published=True) for payload in PAYLOADS),
    Shape(heard=True),
    Shape(published=True, heard=True),
    *(Shape(in_flight, profile=profile) for profile in _PROFILES for in_flight in (1, 64)),
    Shape(public=True),
)


@dataclass(frozen=True, slots=True)
class Grid:
    """All cells."""

    cells: list[Cell | Missing]

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [cell.as_json() for cell in self.cells]

    def table(self) -> list[str]:
        """For people."""
        return [
            "throughput cell by cell, messages a second; ratio to a bare nats-py responder, or subscriber, on uvloop",
            f"  {'':42}  {'ours/s':>8}  {'uvloop/s':>8}  {'asyncio/s':>9}  {'ratio':>6}  {'+-':>5}"
            f"  {'p50 ms':>7}  {'p99 ms':>7}  {'floor':>7}  {'p99':>7}",
            *map(_line, self.cells),
            "  CPU a message, microseconds",
            *(f"  {_name(cell.shape):42}  {cell.cpu()}" for cell in self.cells if isinstance(cell, Cell)),
        ]


def _name(shape: Shape) -> str:
    parts = [
        f"{shape.payload} B",
        "published" if shape.published else f"{shape.requests} in flight",
        shape.profile,
        *(["heard"] if shape.heard else []),
        *(["public"] if shape.public else []),
    ]
    return ", ".join(parts)


def _line(cell: Cell | Missing) -> str:
    name = f"  {_name(cell.shape):42}"
    if isinstance(cell, Missing):
        return f"{name}  cannot be had here: {cell.reason}"
    return (
        f"{name}  {cell.ours:>8.0f}  {cell.floors['uvloop']:>8.0f}  {cell.floors['asyncio']:>9.0f}"
        f"  {cell.ratio:>6.2f}  {cell.ratio_mad:>5.2f}  {cell.p50_ms:>7.2f}  {cell.p99_ms:>7.2f}"
        f"  {cell.floor_p50_ms:>7.2f}  {cell.floor_p99_ms:>7.2f}"
        + (f"  {cell.events:.0%} of the events heard" if cell.events is not None else "")
    )


async def _measure(options: Options) -> Grid:
    """Every cell, `rounds` times for about `seconds`, ours and floors in turn; payloads are the grid's own.

    Raises:
        RuntimeError: an answer was an error, or a message was not run.
    """
    cells: list[Cell | Missing] = []
    with tempfile.TemporaryDirectory(prefix="nexlet-grid-") as folder:
        settings = Path(folder) / "settings.yaml"
        settings.write_text(json.dumps(ALLOWED))
        async with open_bench(options=("--no-state", "--settings-file", str(settings))) as bench:
            for shape in SHAPES:
                if shape.public:
                    async with fallback(bench) as other:
                        cells.append(await measure_cell(other, shape, seconds=options.seconds, rounds=options.rounds))
                else:
                    cells.append(await measure_cell(bench, shape, seconds=options.seconds, rounds=options.rounds))
    return Grid(cells)


KIND = Kind(
    "grid",
    "throughput by payload, with and without answers, listeners, profiles, the public interface",
    _measure,
    short=False,
    seconds=0.3,
)
