"""Requests a second beside the floors, interleaved in one run: `python -m benchmarks throughput`.

The short form of `grid`: small requests to a `strict` function, from one in flight to 512, and over nats-py's public
interface alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.bench import fallback, open_bench
from benchmarks.cells import Cell, Missing, Shape, measure_cell
from benchmarks.kinds import Kind, Options

__all__ = ["IN_FLIGHT", "KIND", "PROMISES", "PUBLIC_PROMISE", "Throughput"]

IN_FLIGHT: Final = (1, 8, 64, 512)

PROMISES: Final = {1: 0.75, 64: 0.95, 512: 1.0}
"""What ours is to reach at least, as a share of the bare responder on uvloop, by requests in flight, ..."""

PUBLIC_PROMISE: Final = 0.6
"""... and with 64 over nats-py's public interface alone."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """A cell for each number of requests in flight, all with a payload of so many bytes.

    Attributes:
        public: the one over nats-py's public interface alone.
    """

    payload: int
    cells: list[Cell]
    public: Cell

    def as_json(self) -> list[dict[str, object]]:
        """For `--json`."""
        return [cell.as_json() for cell in (*self.cells, self.public)]

    def table(self) -> list[str]:
        """For people."""
        return [
            f"request/reply, {self.payload} bytes, headers and events on; ratio to a bare nats-py responder on uvloop",
            f"  {'in flight':>9}  {'ours/s':>8}  {'uvloop/s':>8}  {'asyncio/s':>9}"
            f"  {'ratio':>6}  {'+-':>5}  {'p50 ms':>7}  {'p99 ms':>7}",
            *(_line(cell, PROMISES.get(cell.shape.in_flight)) for cell in self.cells),
            _line(self.public, PUBLIC_PROMISE) + ", nats-py's public interface alone",
            "  CPU a message, microseconds, by requests in flight",
            *(f"  {cell.shape.in_flight:>9}  {cell.cpu()}" for cell in (*self.cells, self.public)),
        ]


def _line(cell: Cell, promise: float | None) -> str:
    return (
        f"  {cell.shape.in_flight:>9}  {cell.ours:>8.0f}  {cell.floors['uvloop']:>8.0f}  {cell.floors['asyncio']:>9.0f}"
        f"  {cell.ratio:>6.2f}  {cell.ratio_mad:>5.2f}  {cell.p50_ms:>7.2f}  {cell.p99_ms:>7.2f}"
        + (f"  (at least {promise:g})" if promise is not None else "")
    )


async def _measure(options: Options) -> Throughput:
    """Every number of requests in flight, each `rounds` times for about `seconds`, ours and floors in turn.

    Raises:
        RuntimeError: an answer was an error, or the function could not be started.
    """

    def had(cell: Cell | Missing) -> Cell:
        if isinstance(cell, Missing):
            raise RuntimeError(cell.reason)
        return cell

    seconds, rounds = options.seconds, options.rounds
    async with open_bench() as bench:
        shapes = [Shape(count, options.payload) for count in IN_FLIGHT]
        cells = [had(await measure_cell(bench, shape, seconds=seconds, rounds=rounds)) for shape in shapes]
        async with fallback(bench) as over_public:
            shape = Shape(64, options.payload, public=True)
            public = had(await measure_cell(over_public, shape, seconds=seconds, rounds=rounds))
    return Throughput(options.payload, cells, public)


KIND = Kind(
    "throughput", "requests a second at 1, 8, 64 and 512 in flight, beside bare responders", _measure, seconds=0.4
)
