"""The figures in the documents: what is kept, merged, judged and shown; and that the documents show what is kept."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import coldstart, record
from benchmarks.accounts import Account
from benchmarks.anchors.__main__ import Anchor, Anchors
from benchmarks.attributes import CASES, Attributes
from benchmarks.batches import Batched, Pair
from benchmarks.bench import ROOT
from benchmarks.bursts import BARE, LIMITS, Burst, Bursts
from benchmarks.cells import Cell, Missing, Shape
from benchmarks.coldstart import ColdStarts, Startup, Wait
from benchmarks.deadlines import Deadlines
from benchmarks.deploys import Deploys
from benchmarks.desk import PROMISES_S, Desk, Waited
from benchmarks.fairness import WAYS_MEASURED, AllWays, Fairness, Neighbour
from benchmarks.grants import AllCalls, Granted
from benchmarks.grid import Grid
from benchmarks.growth import Curve, Growth, Point
from benchmarks.kinds import Figures, Kind, Options
from benchmarks.origin import document
from benchmarks.overload import Overload
from benchmarks.paced import ALONE, NEIGHBOURS, Beside, Paced, Waits
from benchmarks.performance import __main__ as performance
from benchmarks.performance import drawn, page
from benchmarks.performance.form import ANCHORS, FORMS
from benchmarks.performance.page import Unknown, rendered
from benchmarks.performance.readme import BEGIN, END, ROWS, inserted, table
from benchmarks.performance.results import FILE, BadResults, Results, Run
from benchmarks.performance.sections import SECTIONS
from benchmarks.performance.targets import ASKED, PROMISED, REASONS, Target, Verdict, judged, reasons
from benchmarks.performance.told import Malformed, Told
from benchmarks.record import Entry
from benchmarks.registry import KINDS
from benchmarks.scale import NUMBERS, Scale, Scales
from benchmarks.spread import Spread
from benchmarks.streams import Pulled
from benchmarks.throughput import IN_FLIGHT, Throughput
from benchmarks.workers import Locks, Start, Workers

TARGETS = {**ASKED, **PROMISED}
SHOWN = {one.kind for one in TARGETS.values() if one.kind} | {*SECTIONS, *ROWS} & {*FORMS, ANCHORS}
WHY = reasons(REASONS.read_text())


def cell(shape: Shape, ratio: float = 0.5) -> Cell:
    ours = {"server": 4.0, "load": 1.0, "nexlet": 6.0, "workers": 2.0}
    bare = {"server": 3.0, "load": 1.0, "floor": 9.0}
    return Cell(shape, 5e4, {"uvloop": 1e5, "asyncio": 9e4}, ratio, 0.02, 0.4, 0.9, 0.3, 0.8, ours, bare, 0.3)


def throughput(ratio: float = 0.5) -> Throughput:
    cells = [cell(Shape(count), ratio) for count in IN_FLIGHT]
    return Throughput(128, cells, cell(Shape(64, public=True), ratio))


def everything() -> dict[str, Figures]:
    """Of every kind that is shown what its measurement gives, with figures that were made up."""
    beside = Neighbour(0.5, 0.8, 1.0, 4.0, 5.0, 1e4)
    waits = Waits(0.4, 1.2, 3.0, 0.1, 0.3, 0.0, 1.5, 0.1, 800.0)
    points = [Point(1, 1e4, 2e4, 0.5, 0.01, 9.0, 0.1, 8.0), Point(100, 9e3, 2e4, 0.4, 0.01, 11.0, 0.2, 8.0)]
    bursts = [
        Burst(who, Account(count, count - 5, count - 5, 5 if who != BARE else 0, 0, 5 if who == BARE else 0), 0.1, 0.3)
        for count in (1_000, 20_000, 100_000)
        for who in (*LIMITS, BARE)
    ]
    return {
        "throughput": throughput(),
        "deploys": Deploys(50, 14.0, 20.0, 16.0, 100, 0.6, 100),
        "deadlines": Deadlines(100, 2.4, 4.9),
        "streams": Pulled(256, 20_000, 5e4, 3e4, 1.7, 0.1),
        "grants": AllCalls([Granted("kv get", 200.0, 100.0, 2.0)]),
        "workers": Workers(
            [Start("strict", 200, 2.4, 3.5, 9.0), Start("isolated", missing="no namespaces")],
            200, 1.7, 20.0, Locks(5000, 60.0, 59.0, 1.2),
        ),
        "attributes": Attributes(dict.fromkeys(CASES, 1.2)),
        "desk": Desk(tuple(Waited(what, 9, 0.25, 0.3, 0.2) for what in PROMISES_S)),
        "grid": Grid([cell(Shape(heard=True, published=True)), Missing(Shape(profile="process"), "it is not allowed")]),
        "paced": Paced(1000, 128, 2000.0, 20.0, [Beside(name, waits, waits) for name in (ALONE, *NEIGHBOURS)]),
        "fairness": AllWays([Fairness(way, beside, beside) for way in WAYS_MEASURED]),
        "overload": Overload(60.0, {"slow": 9}, {"slow": {"ok": 9}}, [50.0] * 60, 0.5),
        "bursts": Bursts(128, bursts),
        "coldstart": ColdStarts(
            [Wait(what, 50, 4.0, 9.0) for what in (coldstart.WOKEN_FIRST, coldstart.DEPLOYED)],
            [Startup(count, 3, 0.7, 0.8, 0.1) for count in coldstart.FUNCTIONS],
        ),
        "scale": Scales(
            [Scale(n, 0.5, 50.0, 90.0, 30.0, 0.3, 10.0, 4.0, 9.0, 300.0, 9e3, 3e4, 0.3, 0.01, 0) for n in NUMBERS]
        ),
        "batches": Batched([Pair("a write to a bucket", 1e3, 2e4, 20.0, 0.5, 300.0, 15.0)]),
        "growth": Growth([Curve("workers of one function", "workers", points)]),
        ANCHORS: Anchors(64, 128, [Anchor("FastStream", 2e4, 1.0, 2.0, 3.0, 0.1, 0.3, 0.01)]),
    }  # fmt: skip


def of(measured: dict[str, Figures], date: str = "2026-01-01T12:00:00Z", commit: str = "0123456") -> Results:
    """One run of these."""
    run = Run(date, commit, {"cores": "2", "processor": "a fast one", "machine": "x86_64"}, {})
    for name, figures in measured.items():
        run = run.having(name, Options(), figures)
    return Results([run])


def entries(*ratios: float) -> list[Entry]:
    made = []
    for day, ratio in enumerate(ratios, 1):
        seen = {"alone": [Spread(ratio, 0.01)] * 2, "on one core": [Spread(ratio / 2, 0.01)]}
        cells = {name: record.Cell.of(seen) for name in ("1 in flight", "64 in flight")}
        made.append(Entry(f"2026-02-{day:02}", f"c{day}", {"cores": "2"}, cells))
    return made


def rendered_of(results: Results) -> str:
    return rendered(page.TEMPLATE.read_text(), WHY, results, entries(0.7))


# What is committed.


def test_the_results_of_the_repository_have_every_kind_and_are_written_as_they_are_kept(tmp_path: Path) -> None:
    kept = Results.read(FILE)
    have = [name for name, _ in kept.kinds()]
    assert [name for name in have if name in SHOWN] == [name for name in (*FORMS, ANCHORS) if name in SHOWN]
    kept.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == FILE.read_text(), "figures are not edited"
    assert all(run.commit and run.environment["cores"] for run in kept.runs)


def test_the_documents_show_what_is_kept() -> None:
    made = performance.documents(Results.read(FILE), record.read())
    assert set(map(str, made)) == {
        "README.md",
        "docs/performance.md",
        "docs/pictures/growth.svg",
        "docs/pictures/record.svg",
    }
    for path, text in made.items():
        assert (ROOT / path).read_text() == text, "run: make performance ARGS='--from benchmarks/results.json'"


def test_it_is_among_what_can_be_made() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^performance\t", said, re.M)


def test_both_indexes_lead_to_the_page() -> None:
    assert "](docs/performance.md)" in (ROOT / "README.md").read_text()
    assert "](performance.md)" in (ROOT / "docs" / "README.md").read_text()


# Targets.


def test_every_target_has_a_kind_and_a_reason_and_every_reason_a_target() -> None:
    assert {one.kind for one in TARGETS.values() if one.kind} <= set(FORMS)
    assert {one.reason for one in TARGETS.values()} == set(WHY)
    assert all(WHY.values())


def test_every_target_finds_its_figure_in_what_its_kind_gives() -> None:
    verdicts = judged(TARGETS, of(everything()))
    unseen = [one.target.name for one in verdicts if one.figure is None]
    assert unseen == ["spinning", "isolated-median"], "the one was not built, of the other there is no worker here"


def test_every_target_has_a_row() -> None:
    for results in (Results(), of(everything())):
        lines = rendered_of(results).splitlines()
        for one in TARGETS.values():
            assert sum(line.startswith(f"| {one.what} | {one.asked()} |") for line in lines) == 1


def test_what_is_met_is_not_excused_and_what_is_missed_is_told_with_its_reason() -> None:
    missed, met = (rendered_of(of({"throughput": throughput(ratio)})) for ratio in (0.5, 1.2))
    for name in ("in-flight-1", "in-flight-64", "in-flight-512", "fallback"):
        heading = f"\n### {TARGETS[name].reason}\n"
        assert heading in missed
        assert heading not in met
        assert WHY[TARGETS[name].reason].partition("{{")[0] in missed
        assert WHY[TARGETS[name].reason].partition("{{")[0] not in met
    assert "- throughput, 64 in flight, 128 B: at least 0.95; seen 0.50 ± 0.02, missed by 47%." in missed
    assert "\n### A worker that spins\n" in met, "what was not built is not met by whatever was measured"
    assert "13.0 µs (server 4.0, load 1.0, nexlet 6.0, workers 2.0) against 13.0 µs" in missed


def test_a_missed_target_without_a_reason_is_refused() -> None:
    without = {name: text for name, text in WHY.items() if name != "64 requests in flight"}
    template = page.TEMPLATE.read_text()
    rendered(template, without, of({"throughput": throughput(1.2)}), entries(0.7))
    with pytest.raises(Unknown, match="64 requests in flight"):
        rendered(template, without, of({"throughput": throughput(0.5)}), entries(0.7))


@given(st.floats(0.0, 3.0), st.floats(0.01, 2.0), st.booleans())
def test_a_target_is_judged_by_the_figure_as_it_is_shown(figure: float, bound: float, least: bool) -> None:
    bound = round(bound, 2)
    target = Target("one", "of them", bound, least, "", 2, "throughput", lambda _: None, "")
    verdict = Verdict(target, figure)
    shown = float(verdict.seen())
    assert verdict.met is (shown >= bound if least else shown <= bound)
    assert verdict.missed is not verdict.met
    assert verdict.word().startswith("met" if verdict.met else "missed")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    verdict = Verdict(TARGETS["in-flight-64"], None)
    assert (verdict.met, verdict.missed, verdict.seen(), verdict.word()) == (False, False, "not measured", "")


@pytest.mark.parametrize(
    ("figure", "word"), [(0, "met"), (3, "missed")], ids=["every message accounted for", "three are not"]
)
def test_a_burst_is_to_balance_exactly(figure: int, word: str) -> None:
    assert Verdict(TARGETS["burst"], figure).word() == word


def test_what_takes_several_times_as_long_is_told_as_that() -> None:
    deploy = TARGETS["deploy"]
    assert Verdict(deploy, 55.0).word() == "missed by 10%"
    assert Verdict(deploy, 125.0).word() == "missed, times 2.5"
    assert Verdict(TARGETS["in-flight-64"], 0.9449).word() == "missed by 1%"


def test_no_reason_excuses_with_a_place_that_nothing_fills() -> None:
    for text in WHY.values():
        assert set(re.findall(r"\{\{(.*?)\}\}", text)) <= set(page.FACTS)
    with pytest.raises(Unknown, match="no-such-fact"):
        rendered("as {{no-such-fact}} has it", WHY, Results(), entries(0.7))


# What is shown.


def test_what_is_shown_is_there() -> None:
    assert set(everything()) == SHOWN == {*FORMS, ANCHORS}
    assert set(FORMS) <= set(KINDS)
    text = rendered_of(of(everything()))
    assert "{{" not in text
    assert "Not measured yet" not in text
    assert "cannot be had here: it is not allowed" in text
    told = [name for name in (*FORMS, ANCHORS) if name in SHOWN]
    assert f"; 5 × 1 s of {', '.join(told)}." in text


def test_a_kind_that_was_not_measured_says_how_it_would_be() -> None:
    text = rendered_of(of({"deploys": everything()["deploys"]}))
    assert 'Not measured yet: `make performance ARGS="--kinds grid"`.' in text


def test_tables_are_tables() -> None:
    """Every row of each has as many columns as its head."""
    for text in (rendered_of(of(everything())), table(of(everything()))):
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_readme_has_what_was_measured_between_its_marks(tmp_path: Path) -> None:
    text = table(of({"throughput": throughput()}))
    assert "64 in flight, as a share of the bare responder | 0.50 ± 0.02 (50,000 of 100,000) |" in text
    assert "STARTWORKLOAD" not in text
    readme = performance.documents(of(everything()), entries(0.7))[performance.README]
    before, _, rest = readme.partition(BEGIN)
    assert (ROOT / "README.md").read_text().startswith(before)
    assert rest.startswith(table(of(everything())) + END)


def test_a_readme_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="figures: begin"):
        inserted("# nothing", Results())


@pytest.mark.parametrize("count", [1, 2, 7, 23])
def test_the_history_has_every_entry_and_every_cell(count: int) -> None:
    text = drawn.record(entries(*(0.5 + at / 100 for at in range(count))))
    circles = [one for one in ET.fromstring(text).iter() if one.tag.endswith("circle")]
    assert len(circles) == 2 * 2 * count, "alone and lowest, of two cells; the floor is no measurement"
    said = [one.text or "" for one in ET.fromstring(text).iter() if one.tag.endswith("text")]
    dates = [one for one in said if one.startswith("2026-")]
    assert len(dates) <= 2 * drawn.MARKS
    assert dates.count(f"2026-02-{count:02}") == 2, "the last one is marked, in each panel"


def test_a_cell_that_came_later_is_drawn_from_then_on() -> None:
    first, second = entries(0.6, 0.7)
    cells = {name: one for name, one in first.cells.items() if name != "64 in flight"}
    text = drawn.record([replace(first, cells=cells), second])
    assert sum(one.tag.endswith("circle") for one in ET.fromstring(text).iter()) == 2 * (2 + 1)


# What is kept.


def written(path: Path, measured: dict[str, Figures], date: str) -> Path:
    """What `--json` of a benchmark prints."""
    told = document({name: ({"seconds": 1.0, "rounds": 5}, one) for name, one in measured.items()}, {"cores": "2"})
    path.write_text(json.dumps(told | {"date": date}))
    return path


def ratio(results: Results) -> float:
    figures = results.figures("throughput")
    assert figures is not None
    return figures.where(in_flight=64, public=False)["ratio"].number()


def test_of_each_kind_the_newest_is_kept_in_whatever_order_they_come(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", {"throughput": throughput(0.1), "grid": everything()["grid"]}, "2026-01-01")
    new = written(tmp_path / "new.json", {"throughput": throughput(0.2)}, "2026-01-01T08:00:00Z")
    newest = written(tmp_path / "newest.json", {ANCHORS: everything()[ANCHORS]}, "2026-01-02T08:00:00Z")
    forward = Results.read(old).merged(Results.read(new), Results.read(newest))
    backward = Results.read(newest).merged(Results.read(new), Results.read(old))
    assert forward == backward
    assert ratio(forward) == 0.2
    assert [sorted(run.kinds) for run in forward.runs] == [["grid"], ["throughput"], [ANCHORS]]


def test_of_two_that_are_as_new_the_one_that_was_given_later_is_kept(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{one}.json", {"throughput": throughput(one)}, "2026-01-01") for one in (0.3, 0.4)]
    first, second = map(Results.read, files)
    assert ratio(first.merged(second)) == 0.4
    assert ratio(second.merged(first)) == 0.3
    assert len(first.merged(second).runs) == 1, "nothing is left of the other one"


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = of(everything())
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    assert rendered_of(Results.read(tmp_path / "results.json")) == rendered_of(results)


def _without(*path: str | int) -> Callable[[Any], Any]:
    def changed(told: Any) -> Any:
        *way, last = path
        at = told
        for step in way:
            at = at[step]
        del at[last]
        return told

    return changed


def _other(value: object, *path: str | int) -> Callable[[Any], Any]:
    def changed(told: Any) -> Any:
        *way, last = path
        at = told
        for step in way:
            at = at[step]
        at[last] = value
        return told

    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("date"), "no 'date'"),
        (_other("yesterday", "date"), "date is no date"),
        (_without("commit"), "no 'commit'"),
        (_without("options", "throughput"), "options has no 'throughput'"),
        (_without("tables", "throughput"), "tables has no 'throughput'"),
        (_other(1, "tables", "throughput"), "is no list"),
        (lambda told: told | {"speed": 1}, "options has no 'speed'"),
        (_without("throughput"), "no kind of figures"),
        (_without("throughput", 2, "ratio"), "throughput[2] has no 'ratio'"),
        (_without("throughput", 2), "nothing with in_flight 64"),
        (_other("fast", "throughput", 2, "ratio"), "throughput[2].ratio is no number"),
        (_other(float("nan"), "throughput", 2, "ratio"), "throughput[2].ratio is no number"),
        (_other([], "throughput"), "throughput has nothing with"),
        (lambda _: [1, 2], "is no object"),
    ],
)
def test_bad_input_says_what_is_wrong_and_changes_nothing(
    change: Callable[[Any], Any], said: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_text() for path in desk.rglob("*") if path.is_file()}
    file = written(desk / "given.json", {"throughput": throughput()}, "2026-01-01")
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert run(desk, "--from", str(file)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "given.json" in error
    file.unlink()
    assert {path: path.read_text() for path in desk.rglob("*") if path.is_file()} == before


def test_a_file_that_is_not_there_or_no_json_is_refused(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(desk, "--from", str(desk / "nothing.json")) == 2
    assert "nothing.json: No such file" in capsys.readouterr().err
    (desk / "text.json").write_text("not yet")
    assert run(desk, "--from", str(desk / "text.json")) == 2
    assert "text.json is no JSON" in capsys.readouterr().err
    kinds = {"speed": {"options": {}, "table": [], "figures": 1}}
    runs = [{"date": "2026-01-01", "commit": "", "environment": {}, "kinds": kinds}]
    (desk / "own.json").write_text(json.dumps({"runs": runs}))
    with pytest.raises(BadResults, match="there is no kind 'speed'"):
        Results.read(desk / "own.json")


def test_a_growth_without_a_figure_is_refused() -> None:
    results = of({"growth": everything()["growth"]})
    figures = results.figures("growth")
    assert figures is not None
    del figures.value[0]["points"][0]["cpu_us"]
    with pytest.raises(Malformed, match="growth"):
        drawn.growth(results)


def test_whoever_reads_what_is_not_there_is_told_where() -> None:
    told = Told({"cells": [{"ratio": True}]}, "document")
    for asked, said in (
        (lambda: told["cells"].where(name="a"), r"document\.cells has nothing with name 'a'"),
        (lambda: told["cells"].where(ratio=True)["ratio"].number(), r"document\.cells\[0\]\.ratio is no number"),
        (lambda: told["cells"]["ratio"], r"document\.cells is no object"),
        (lambda: list(told.each()), "document is no list"),
        (lambda: told["cells"].text(), "is no text"),
    ):
        with pytest.raises(Malformed, match=said):
            asked()


# The command.


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the documents that the command writes."""
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"# Before\n{BEGIN}{END}after\n")
    return tmp_path


def run(desk: Path, *arguments: str) -> int:
    return performance.main(arguments, file=desk / "results.json", root=desk)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Measures at once: what this says by kind, an exception as well; and the options of each that was measured."""
    told: dict[str, Any] = {"options": []}

    def measures(name: str) -> Kind:
        async def measure(options: Options) -> Figures:
            told["options"].append((name, options))
            answer = told.get(name) or everything()[name]
            answer = answer.pop(0) if isinstance(answer, list) else answer
            if isinstance(answer, BaseException):
                raise answer
            made: Figures = answer
            return made

        return replace(KINDS[name], measure=measure)

    monkeypatch.setattr(performance, "KINDS", {name: measures(name) for name in KINDS})
    return told


def test_taking_measures_nothing_and_writes_all_documents(desk: Path, machine: dict[str, Any]) -> None:
    first = written(desk / "a.json", {"throughput": throughput(0.1), "growth": everything()["growth"]}, "2026-01-01")
    second = written(desk / "b.json", {"throughput": throughput(0.9)}, "2026-01-02")
    assert run(desk, "--from", str(first), "--from", str(second)) == 0
    assert machine["options"] == []
    kept = Results.read(desk / "results.json")
    assert ratio(kept) == 0.9
    for path, text in performance.documents(kept, record.read(), desk).items():
        assert (desk / path).read_text() == text
    assert (desk / "README.md").read_text().startswith("# Before\n")
    assert (desk / "README.md").read_text().endswith(f"{END}after\n")


def test_what_is_kept_can_be_taken_again(desk: Path, machine: dict[str, Any]) -> None:
    assert run(desk, "--kinds", "throughput,desk") == 0
    kept = {path: path.read_text() for path in desk.rglob("*") if path.is_file()}
    assert run(desk, "--from", str(desk / "results.json")) == 0
    assert {path: path.read_text() for path in desk.rglob("*") if path.is_file()} == kept


def test_kinds_that_are_measured_keep_the_others(desk: Path, machine: dict[str, Any]) -> None:
    of({"throughput": throughput(0.3), "desk": everything()["desk"]}).write(desk / "results.json")
    machine["throughput"] = throughput(0.8)
    assert run(desk, "--kinds", "throughput", "--seconds", "0.3", "--rounds", "2") == 0
    assert machine["options"] == [("throughput", Options(seconds=0.3, rounds=2))]
    kept = Results.read(desk / "results.json")
    assert [name for name, _ in kept.kinds()] == ["throughput", "desk"]
    assert ratio(kept) == 0.8
    assert "; 2 × 0.3 s of throughput." in (desk / "docs" / "performance.md").read_text()


def test_what_is_kept_in_another_form_is_left_out_and_does_not_stand_in_the_way(
    desk: Path, machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results = of({"throughput": throughput(), "desk": everything()["desk"]})
    figures = results.figures("throughput")
    assert figures is not None
    del figures.value[0]["ratio"]
    results.write(desk / "results.json")
    assert run(desk, "--kinds", "deploys") == 0
    assert [name for name, _ in Results.read(desk / "results.json").kinds()] == ["deploys", "desk"]
    assert "throughput is kept in another form, and left out: throughput[0] has no 'ratio'" in capsys.readouterr().err


def test_without_arguments_everything_is_measured_as_the_documents_need_it(
    desk: Path, machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(desk) == 0
    assert [name for name, _ in machine["options"]] == list(FORMS)
    assert dict(machine["options"])["throughput"].rounds == FORMS["throughput"].rounds
    assert dict(machine["options"])["scale"].functions == FORMS["scale"].functions
    said = capsys.readouterr().out
    assert f"performance: 1 of {len(FORMS)}: throughput, about" in said
    assert f"performance: {ASKED['in-flight-64'].what}: at least 0.95; seen 0.50 ± 0.02, missed by 47%" in said


def test_all_of_it_takes_about_twelve_minutes() -> None:
    assert sum(form.about_s for form in FORMS.values()) <= 12 * 60


def test_what_is_interrupted_keeps_what_it_has(
    desk: Path, machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    machine["streams"] = KeyboardInterrupt()
    assert run(desk) == 130
    kept = Results.read(desk / "results.json")
    assert [name for name, _ in kept.kinds()] == ["throughput", "deploys", "deadlines"]
    assert "STARTWORKLOAD to answer" in (desk / "README.md").read_text()
    assert "interrupted" in capsys.readouterr().err


def test_what_cannot_be_measured_is_tried_again_and_then_left_out(
    desk: Path, machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    machine["throughput"] = [RuntimeError("the server ended"), throughput(0.6)]
    machine["desk"] = RuntimeError("there is no desk")
    assert run(desk, "--kinds", "throughput,desk,deploys") == 1
    told = capsys.readouterr()
    assert "throughput could not be measured: the server ended; once more" in told.out
    assert told.err == "performance: desk could not be measured: there is no desk\n"
    assert [name for name, _ in Results.read(desk / "results.json").kinds()] == ["throughput", "deploys"]


def test_kinds_that_there_are_not_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        performance.parser().parse_args(["--kinds", "throughput,speed"])
    assert "the documents show no 'speed', but: throughput, deploys" in capsys.readouterr().err


def test_anchors_are_taken_as_they_are_told(desk: Path, machine: dict[str, Any]) -> None:
    file = written(desk / "anchors.json", {ANCHORS: everything()[ANCHORS]}, "2026-01-01T00:00:00Z")
    assert run(desk, "--from", str(file)) == 0
    assert (
        "| FastStream | 20,000 | 1.00, 2.00 | 0.30 ± 0.01 | 3.00 ± 0.10 |"
        in (desk / "docs" / "performance.md").read_text()
    )
