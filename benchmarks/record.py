"""The record that the regression gate holds us to: `record.json`, an entry each time it was made anew on purpose.

The floors that count are those of the last entry; the ones before it are its history, which docs/performance.md draws.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import environment
from benchmarks.judge import floor_of
from benchmarks.origin import commit, today
from benchmarks.spread import Spread

__all__ = ["FILE", "Cell", "Entry", "read", "write"]

FILE: Final = Path(__file__).with_name("record.json")


@dataclass(frozen=True, slots=True)
class Cell:
    """What was recorded of a cell.

    Attributes:
        floor: the ratio that it is held to from then on.
        seen: the runs that the floor was made from, by the condition they were under: of each the median ratio of its
            pairs, and their median absolute deviation.
    """

    floor: float
    seen: Mapping[str, Sequence[Spread]]

    @classmethod
    def of(cls, seen: Mapping[str, Sequence[Spread]]) -> Cell:
        """With the floor that follows from these runs (see `judge`)."""
        return cls(floor_of(run.median for runs in seen.values() for run in runs), seen)

    @property
    def usual(self) -> float:
        """The median of the first condition's runs: what a machine has that does nothing else."""
        return statistics.median(run.median for run in next(iter(self.seen.values())))


@dataclass(frozen=True, slots=True)
class Entry:
    """One making of the record.

    Attributes:
        date: ISO 8601, UTC.
        commit: of the code that was measured, short; with a `+` where the work tree had something else in it.
        environment: where (see `bench.environment`).
    """

    date: str
    commit: str
    environment: Mapping[str, str]
    cells: Mapping[str, Cell]

    @classmethod
    def of(cls, seen: Mapping[str, Mapping[str, Sequence[Spread]]]) -> Entry:
        """Of what was just measured here: runs by cell and condition. Kept to three places: more is not in them."""
        cells = {
            name: Cell.of(
                {
                    under: [Spread(round(run.median, 3), round(run.mad, 3)) for run in runs]
                    for under, runs in conditions.items()
                }
            )
            for name, conditions in seen.items()
        }
        return cls(today(), commit(), environment(), cells)


def read() -> list[Entry]:
    """All entries of `FILE`, the oldest first.

    Raises:
        FileNotFoundError: there is no record yet.
        KeyError, TypeError, ValueError: it is none of ours.
    """
    return [
        Entry(
            date=entry["date"],
            commit=entry["commit"],
            environment=entry["environment"],
            cells={
                name: Cell(
                    cell["floor"], {under: [Spread(**run) for run in runs] for under, runs in cell["seen"].items()}
                )
                for name, cell in entry["cells"].items()
            },
        )
        for entry in json.loads(FILE.read_text())["entries"]
    ]


def write(entries: Sequence[Entry]) -> None:
    """Write all of them to `FILE`."""
    content = {"entries": [asdict(entry) for entry in entries]}
    FILE.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
