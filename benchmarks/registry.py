"""Every kind of benchmark there is, in the order in which they are measured."""

from __future__ import annotations

from typing import Final

from benchmarks import (
    attributes,
    batches,
    bursts,
    coldstart,
    deadlines,
    deploys,
    desk,
    fairness,
    grants,
    grid,
    growth,
    overload,
    paced,
    rushes,
    scale,
    streams,
    throughput,
    workers,
)
from benchmarks.kinds import Kind

__all__ = ["KINDS"]

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        throughput.KIND,
        deploys.KIND,
        deadlines.KIND,
        streams.KIND,
        grants.KIND,
        batches.KIND,
        workers.KIND,
        attributes.KIND,
        desk.KIND,
        grid.KIND,
        paced.KIND,
        fairness.KIND,
        overload.KIND,
        bursts.KIND,
        rushes.KIND,
        coldstart.KIND,
        scale.KIND,
        growth.KIND,
    )
}
