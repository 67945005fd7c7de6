"""The regression gate around its judge: what is measured again, what it says, how it ends; and the record it reads."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from benchmarks import gate, record
from benchmarks.record import Cell, Entry
from benchmarks.spread import Spread

ALL = list(gate.CELLS)
FIRST = ALL[0]


def entry() -> Entry:
    """A record of 0.8 in all cells."""
    seen = {name: {"alone": [Spread(0.8, 0.01)]} for name in ALL}
    return Entry("2026-01-01", "0123456", {"cores": "2"}, {name: Cell.of(runs) for name, runs in seen.items()})


class Machine:
    """Measures what it is told to: these ratios in the first cell, run after run; 0.8 in the others."""

    def __init__(self, *runs: float) -> None:
        self.runs = list(runs)
        self.asked: list[tuple[list[str], int]] = []

    def __call__(self, cells: Collection[str], rounds: int, *, seconds: float = 0.1) -> dict[str, Spread]:
        self.asked.append((list(cells), rounds))
        ratio = self.runs.pop(0)
        return {name: Spread(ratio if name == FIRST else 0.8, 0.01) for name in cells}


def test_what_is_as_it_was_is_measured_once() -> None:
    machine = Machine(0.8)
    assert gate.gate(entry(), machine, rounds=5) == []
    assert machine.asked == [(ALL, 5)]


def test_what_is_under_its_floor_is_measured_again_and_longer(capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(0.3, 0.8)
    assert gate.gate(entry(), machine, rounds=5) == []
    assert machine.asked == [(ALL, 5), ([FIRST], 15)]
    assert f"under its floor: {FIRST}; again, with 15 pairs" in capsys.readouterr().out


def test_what_is_under_it_again_is_red() -> None:
    (red,) = gate.gate(entry(), Machine(0.3, 0.31), rounds=5)
    assert (red.cell, red.seen.median, red.floor) == (FIRST, 0.31, 0.6)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "record.json"
    monkeypatch.setattr(record, "FILE", file)
    return file


def test_the_exit_code_tells(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write([entry()])
    for runs, code in (((0.8,), 0), ((0.3, 0.8), 0), ((0.3, 0.3), 1)):
        monkeypatch.setattr(gate, "measure", Machine(*runs))
        assert gate.main([]) == code
    assert "gate: RED" in capsys.readouterr().out


def test_what_could_not_be_measured_is_tried_once_more(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.write([entry()])
    failures: list[Exception] = [TimeoutError("timed out")]

    def measure(cells: Collection[str], rounds: int, *, seconds: float) -> dict[str, Spread]:
        if failures:
            raise failures.pop()
        return Machine(0.8)(cells, rounds)

    monkeypatch.setattr(gate, "measure", measure)
    assert gate.main([]) == 0
    failures += [TimeoutError("timed out"), RuntimeError("an answer was an error")]
    with pytest.raises(TimeoutError):
        gate.main([])


def test_a_record_that_is_made_anew_keeps_the_old_ones(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = sum(count for count, _ in gate.CONDITIONS.values())
    monkeypatch.setattr(gate, "measure", Machine(*[0.8] * runs, *[0.7] * (runs - 1), 0.5))
    assert gate.main(["--record"]) == 0
    assert gate.main(["--record"]) == 0
    first, second = record.read()
    assert first.cells[FIRST].floor == 0.6
    assert {under: len(each) for under, each in first.cells[FIRST].seen.items()} == {
        under: count for under, (count, _) in gate.CONDITIONS.items()
    }
    assert (second.cells[FIRST].usual, second.cells[FIRST].floor) == (0.7, 0.37)


def test_conditions_end() -> None:
    cores = os.sched_getaffinity(0)
    for _, within in gate.CONDITIONS.values():
        with within():
            pass
        assert os.sched_getaffinity(0) == cores


def test_the_record_of_the_repository_has_every_cell() -> None:
    entries = record.read()
    assert [each.date for each in entries] == sorted(each.date for each in entries)
    assert set(entries[-1].cells) == set(ALL)
    for each in entries:
        assert each.commit
        assert each.environment["cores"]
        for cell in each.cells.values():
            assert cell == Cell.of(cell.seen), "floors follow from what was seen; they are not edited"


def test_the_record_is_written_as_it_is_kept() -> None:
    kept = record.FILE.read_text()
    assert json.dumps(json.loads(kept), indent=2, ensure_ascii=False) + "\n" == kept


def test_cells_are_measured_beside_the_bare_responder() -> None:
    """The whole of it, small: server, node, nexlet, worker."""
    seen = gate.measure(["64 in flight"], 2, seconds=0.02)
    assert list(seen) == ["64 in flight"]
    assert seen["64 in flight"].median > 0
