from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nexlet_models.problems import Problem, headline, render

IMPORT = Problem(
    "import of 'os' is not allowed here",
    "function.py",
    line=1,
    column=1,
    end_column=10,
    source_line="import os",
    advice="modules allowed: base64, json",
    code="import-refused",
)


def test_a_problem_reads_like_a_compilers() -> None:
    assert IMPORT.text() == (
        "function.py:1:1  import of 'os' is not allowed here\n"
        "  1 | import os\n"
        "    | ^^^^^^^^^\n"
        "    modules allowed: base64, json"
    )


def test_a_place_is_as_exact_as_can_be() -> None:
    assert Problem("x").location() == ""
    assert Problem("x", "triggers[1].subject").location() == "triggers[1].subject"
    assert Problem("x", "function.py", line=3).location() == "function.py:3"
    assert Problem("x", "function.py", line=3, column=4).location() == "function.py:3:4"


def test_without_a_line_there_is_no_caret() -> None:
    assert Problem("is required", "triggers[0].subject").text() == "triggers[0].subject  is required"
    assert Problem("is wrong").text() == "is wrong"
    assert Problem("x", "f.py", line=2, source_line="   ").text() == "f.py:2  x"
    assert Problem("x", "f.py", line=12, source_line="a = 1").text() == "f.py:12  x\n  12 | a = 1"


def test_a_mark_without_an_end_is_one_character() -> None:
    text = Problem("x", "f.py", line=1, column=3, source_line="a = 1").text()
    assert text.splitlines()[-1] == "    |   ^"


def test_a_mark_behind_the_line_is_at_its_end() -> None:
    text = Problem("x", "f.py", line=1, column=50, end_column=60, source_line="a =").text()
    assert text.splitlines()[-1] == "    |    ^"


def test_a_tab_counts_as_one_column() -> None:
    text = Problem("x", "f.py", line=1, column=2, end_column=4, source_line="\tab").text()
    assert text.splitlines()[1:] == ["  1 |  ab", "    |  ^^"]


def test_a_long_line_is_cut_around_the_mark() -> None:
    line = "a" * 500 + "BAD" + "c" * 500
    shown, caret = Problem("x", "f.py", line=1, column=501, end_column=504, source_line=line).text().splitlines()[1:]
    assert len(shown) < 120
    mark = caret.index("^")
    assert shown[mark : mark + 3] == "BAD"
    assert caret.count("^") == 3


def test_the_headline_is_one_line() -> None:
    assert headline("greet", [IMPORT]) == "greet refused: function.py:1:1 import of 'os' is not allowed here"
    assert headline("greet", [IMPORT, IMPORT]) == "greet refused: 2 problems"
    assert headline("greet", [Problem("is empty")]) == "greet refused: is empty"


def test_all_of_it() -> None:
    text = render("greet", [IMPORT, Problem("is required", "handler")])
    assert text.splitlines()[0] == "greet refused: 2 problems"
    assert "  function.py:1:1  import" in text
    assert "    1 | import os" in text
    assert text.splitlines()[-1] == "  handler  is required"
    assert render("greet", [IMPORT]).startswith("greet refused: 1 problem\n")


def test_what_an_author_wrote_does_not_steer_a_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\u202e\r"
    problem = Problem(hostile, hostile, line=1, column=1, source_line=hostile + "a", advice=hostile)
    for text in (problem.text(), render(hostile, [problem]), headline(hostile, [problem])):
        assert text.replace("\n", "").isprintable()
    assert "\n" not in headline("a\r\nNats-Service-Error-Code: 200", [Problem("a\nb")])


@given(
    st.builds(
        Problem,
        message=st.text(min_size=1, max_size=30),
        place=st.text(max_size=20),
        line=st.integers(0, 9999),
        column=st.integers(0, 300),
        end_column=st.integers(0, 300),
        source_line=st.text(max_size=300),
        advice=st.text(max_size=30),
    )
)
def test_any_problem_has_a_text(problem: Problem) -> None:
    lines = problem.text().splitlines()
    assert 1 <= len(lines) <= 4
    carets = [line for line in lines[2:3] if line.lstrip().startswith("|")]
    if problem.line and problem.column and problem.source_line.strip():
        assert carets
        assert "^" in carets[0]
