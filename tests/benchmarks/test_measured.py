"""Each kind of cell and the paced load for real, as short as can be: that they measure, not what."""

from __future__ import annotations

import json

import pytest

from benchmarks import batches, paced
from benchmarks.bench import fallback, open_bench
from benchmarks.cells import Cell, Missing, Shape, measure_cell
from benchmarks.grid import Grid
from benchmarks.kinds import Options


@pytest.mark.timeout(300)
async def test_cells() -> None:
    shapes = [Shape(8), Shape(published=True, heard=True), Shape(1, 900 * 1024), Shape(1, profile="oneshot")]
    async with open_bench() as bench:
        cells = [await measure_cell(bench, shape, seconds=0.01, rounds=2) for shape in shapes]
        async with fallback(bench) as other:
            assert other.agent_id != bench.agent_id
            cells.append(await measure_cell(other, Shape(8, public=True), seconds=0.01, rounds=1))
        cells.append(await measure_cell(bench, Shape(profile="no such profile"), seconds=0.01, rounds=1))
    *measured, missing = cells
    assert isinstance(missing, Missing)
    assert "no such profile" in missing.reason
    assert len(missing.reason) < 100
    assert not set("{}\n") & set(missing.reason), "a phrase, and not the refusal as it came"
    for cell, shape in zip(measured, [*shapes, Shape(8, public=True)], strict=True):
        assert isinstance(cell, Cell)
        assert cell.shape == shape
        assert cell.ours > 0
        assert cell.ratio > 0
        assert {"server", "load", "nexlet", "workers"} <= cell.cpu_us.keys()
        assert cell.floor_cpu_us.keys() == {"server", "load", "floor"}
        assert (cell.events == 1.0) if shape.heard else cell.events is None
    grid = Grid(cells)
    assert [one["profile"] for one in json.loads(json.dumps(grid.as_json()))][-2:] == ["strict", "no such profile"]
    assert sum("cannot be had here" in line for line in grid.table()) == 1


@pytest.mark.timeout(300)
async def test_paced() -> None:
    found = await paced.KIND.measure(Options(seconds=0.05, rounds=1))
    assert isinstance(found, paced.Paced)
    assert [one.neighbour for one in found.situations] == ["alone", *paced.NEIGHBOURS]
    for situation in found.situations:
        for one in (situation.ours, situation.floor):
            assert 0 < one.p50_ms <= one.p99_ms <= one.p999_ms
            assert (one.neighbour > 0) is (situation.neighbour != "alone")
    assert found.rate == int(found.highest / 2)
    told = found.table()
    assert [sum(line.startswith(f"  {name} ") for line in told) for name in ("alone", *paced.NEIGHBOURS)] == [
        2,
        2,
        2,
        2,
    ]
    json.dumps(found.as_json())


@pytest.mark.timeout(300)
async def test_batches() -> None:
    found = await batches.KIND.measure(Options(seconds=0.02, rounds=1))
    assert isinstance(found, batches.Batched)
    assert [one.work for one in found.pairs] == list(batches.WORK)
    for pair in found.pairs:
        assert min(pair.single, pair.batched, pair.gain, pair.single_cpu_us, pair.batched_cpu_us) > 0
    assert len(found.table()) == 2 + len(batches.WORK)
    json.dumps(found.as_json())
