"""The table of constructs is true, and the page made from it is up to date."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from nexlet_sandboxes.language import check, load
from nexlet_sandboxes.language.constructs import CONSTRUCTS, Construct, document
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program
from tests.support.language import HANDLER, Host

PAGE = Path(__file__).parents[3] / "docs" / "language.md"


def program(row: Construct) -> Program:
    return Program(source=f"{row.example}\n{'' if 'def handler' in row.example else HANDLER}")


@pytest.mark.parametrize("row", [row for row in CONSTRUCTS if row.accepted], ids=lambda row: row.name)
def test_accepted_example_runs(row: Construct) -> None:
    assert check(program(row)) == []
    load(program(row), Host())


@pytest.mark.parametrize(
    "row", [row for row in CONSTRUCTS if not row.accepted and not row.raises], ids=lambda row: row.name
)
def test_refused_example_is_refused_with_advice(row: Construct) -> None:
    problems = check(program(row))
    assert problems
    assert all(problem.place == "function.py" and problem.line and problem.code for problem in problems)
    assert all(problem.advice for problem in problems)


@pytest.mark.parametrize("row", [row for row in CONSTRUCTS if row.raises], ids=lambda row: row.name)
def test_example_that_compiles_is_stopped_where_it_runs(row: Construct) -> None:
    assert check(program(row)) == []
    assert issubclass(getattr(builtins, row.raises), Exception)
    with pytest.raises(LoadRefused) as caught:
        load(program(row), Host())
    (problem,) = caught.value.problems
    assert problem.code == "load-raised"
    assert f"the module raised {row.raises}: " in problem.message


def test_refusals_say_what_to_write_instead() -> None:
    assert all(row.instead for row in CONSTRUCTS if not row.accepted)


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == document(), "python -m nexlet_sandboxes.language.constructs > docs/language.md"
