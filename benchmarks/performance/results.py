"""What was measured for the documents: `benchmarks/results.json`, run by run, each with its date, code and machine.

A kind's figures are those of the last run that measured it, so that one kind may be measured anew without the others;
a run is kept as long as some kind's figures are of it. `merged` takes other files as well: one that `--json` of a
benchmark printed, or another `results.json`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import environment
from benchmarks.kinds import Figures, Options
from benchmarks.origin import commit, now
from benchmarks.performance.form import ANCHORS, FORMS
from benchmarks.performance.told import Malformed, Told

__all__ = ["FILE", "BadResults", "Measured", "Results", "Run"]

FILE: Final = Path(__file__).parents[1] / "results.json"

_OWN: Final = {"date", "commit", "environment", "options", "tables"}
"""What a document of `--json` has beside the figures of its kinds (see `benchmarks.origin`)."""


class BadResults(Exception):
    """A file of figures cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a kind.

    Attributes:
        options: how they were measured.
        table: as they are told to people, line by line.
        figures: as `json` has them.
    """

    options: Mapping[str, object]
    table: Sequence[str]
    figures: object


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured in one go.

    Attributes:
        date: when it began, ISO 8601, UTC.
        commit: of the code, short; with a `+` where the work tree had something else in it; "" where nobody knows.
        environment: where (see `bench.environment`).
        kinds: what was measured, by name.
    """

    date: str
    commit: str
    environment: Mapping[str, str]
    kinds: Mapping[str, Measured]

    @classmethod
    def begun(cls) -> Run:
        """One that begins here and now; nothing is measured yet."""
        # A machine that was not left alone is told by this, and is of no use for latencies.
        return cls(now(), commit(), environment() | {"load average before": f"{os.getloadavg()[0]:.1f}"}, {})

    def having(self, name: str, options: Options, figures: Figures) -> Run:
        """The same with the figures of one more kind."""
        # Through JSON, so that it is what will be read: tuples are lists there, keys are texts.
        told = _rounded(json.loads(json.dumps(figures.as_json())))
        given = json.loads(json.dumps(asdict(options)))
        return replace(self, kinds={**self.kinds, name: Measured(given, figures.table(), told)})


@dataclass(frozen=True, slots=True)
class Results:
    """All runs of which there is something left, the oldest first."""

    runs: Sequence[Run] = ()

    @classmethod
    def read(cls, file: Path = FILE) -> Results:
        """What a file has: a `results.json`, or what `--json` of a benchmark printed.

        Raises:
            BadResults: there is no such file, or it is neither.
        """
        try:
            document = Told(json.loads(file.read_text()), file.name)
        except OSError as error:
            raise BadResults(f"{file}: {error.strerror}") from error
        except ValueError as error:
            raise BadResults(f"{file} is no JSON: {error}") from error
        try:
            runs = list(document["runs"].each()) if "runs" in document else [_as_run(document)]
            return cls([_run(one) for one in runs])
        except Malformed as error:
            raise BadResults(
                f"{file} has no figures that can be taken: {error}. It is to be what `make bench ARGS='KIND --json'`, "
                "`python -m benchmarks.anchors --json` or this command wrote."
            ) from error

    def merged(self, *others: Results) -> Results:
        """Of each kind the newest figures of all of these; of two that are as new, those that were given later."""
        runs = [run for results in (self, *others) for run in results.runs]
        newest: dict[str, int] = {}
        for at, run in enumerate(runs):
            for kind in run.kinds:
                if kind not in newest or run.date >= runs[newest[kind]].date:
                    newest[kind] = at
        kept = [
            replace(run, kinds={kind: one for kind, one in run.kinds.items() if newest[kind] == at})
            for at, run in enumerate(runs)
        ]
        return Results(sorted((run for run in kept if run.kinds), key=lambda run: run.date))

    def only(self, kind: str) -> Results:
        """With nothing but the figures of this kind."""
        return self._having(lambda name: name == kind)

    def without(self, kind: str) -> Results:
        """With the figures of all others."""
        return self._having(lambda name: name != kind)

    def _having(self, wanted: Callable[[str], bool]) -> Results:
        left = [replace(run, kinds={name: one for name, one in run.kinds.items() if wanted(name)}) for run in self.runs]
        return Results([run for run in left if run.kinds])

    def write(self, file: Path = FILE) -> None:
        """Write all of it. Whoever reads meanwhile has the former or this, and never half of it."""
        content = {"runs": [asdict(run) for run in self.runs]}
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        beside.replace(file)

    def kinds(self) -> Iterator[tuple[str, Run]]:
        """Every kind of which there are figures, in the order of `FORMS`, and its run."""
        for name in (*FORMS, ANCHORS):
            for run in self.runs:
                if name in run.kinds:
                    yield name, run

    def figures(self, kind: str) -> Told | None:
        """Of this kind; None where it was not measured."""
        return next((Told(run.kinds[kind].figures, kind) for name, run in self.kinds() if name == kind), None)

    def options(self, kind: str) -> Told | None:
        """How that was measured."""
        return next(
            (Told(dict(run.kinds[kind].options), f"{kind}.options") for n, run in self.kinds() if n == kind), None
        )


def _as_run(document: Told) -> Told:
    """A document of `--json`, in the form that runs are kept in."""
    names = [name for name in document.fields() if name not in _OWN]
    kinds = {
        name: {
            "options": document["options"][name].value,
            "table": document["tables"][name].value,
            "figures": document[name].value,
        }
        for name in names
    }
    own = {name: document[name].value for name in ("date", "commit", "environment")}
    return Told(own | {"kinds": kinds}, document.place)


def _run(told: Told) -> Run:
    date = told["date"].text()
    try:
        datetime.datetime.fromisoformat(date)
    except ValueError:
        raise Malformed(f"{told.place}.date is no date") from None
    kinds = {name: _measured(told["kinds"][name], name) for name in told["kinds"].fields()}
    if not kinds:
        raise Malformed(f"{told.place} has no kind of figures")
    where = told["environment"]
    return Run(date, told["commit"].text(), {name: where[name].text() for name in where.fields()}, kinds)


def _measured(told: Told, name: str) -> Measured:
    if name not in FORMS and name != ANCHORS:
        raise Malformed(f"there is no kind '{name}' that the documents show")
    options, figures = told["options"].fields(), told["figures"]
    return Measured(options, [line.text() for line in told["table"].each()], _rounded(figures.value))


def _rounded(value: Any) -> Any:
    """With numbers to five places: more is not in them."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value
