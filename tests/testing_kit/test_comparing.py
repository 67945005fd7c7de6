"""Two JSON values side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.testing.comparing import json_differences, matches_masked

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("expected", "got", "lines"),
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, []),
        (True, 1, ["json: expected true, got 1"]),
        (None, 0, ["json: expected null, got 0"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["json.a.b.1: expected 2, got 3"]),
        ([1], [1, 2], ["json: expected 1 elements, got 2"]),
        ({"a": 1}, {"b": 1}, ["json.a: missing, expected 1", "json.b: not expected, got 1"]),
        ({"a": []}, {"a": {}}, ["json.a: expected [], got {}"]),
        ("x" * 300, "", [f'json: expected "{"x" * 199}..., got ""']),
    ],
)
def test_each_place_that_differs_has_its_line(expected: Any, got: Any, lines: list[str]) -> None:
    assert json_differences(expected, got, at="json") == lines


def test_no_more_lines_than_somebody_reads() -> None:
    lines = json_differences(list(range(100)), list(range(1, 101)), at="json")
    assert len(lines) == 21
    assert lines[-1] == "json: 80 more differences"


def test_what_was_masked_may_be_anything() -> None:
    expected = {"token": "***", "who": "Bearer *** of Ada", "count": 0, "sum": 0}
    got = {"token": 5, "who": "Bearer x\ny of Ada", "count": "many", "sum": 1}
    masked = {"json.token", "json.who", "json.count"}
    assert json_differences(expected, got, at="json", masked=masked) == ["json.sum: expected 0, got 1"]
    assert json_differences(expected, got | {"who": "Basic x"}, at="json", masked=masked)[0].startswith("json.who: ")
    assert json_differences({"a": "***"}, {}, at="json", masked={"json.a"}) == ['json.a: missing, expected "***"']
    assert not matches_masked("a***", "ba")


@given(json_values, json_values)
def test_there_is_no_line_exactly_where_they_are_the_same(one: Any, other: Any) -> None:
    assert json_differences(one, json.loads(json.dumps(one)), at="json") == []
    differ = bool(json_differences(one, other, at="json"))
    assert differ == bool(json_differences(other, one, at="json"))
    if differ is (one == other):  # Python alone takes true for 1
        assert any(kind in json.dumps([one, other]) for kind in ("true", "false"))
