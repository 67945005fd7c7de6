"""YAML and JSON, read with places and written back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexlet_functions.documents import MAX_SIZE, DocumentRefused, read_document, write_document
from nexlet_models.problems import Problem

_TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.text("ab \n\t#:-|'\"\\", max_size=40)
_KEY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEY, inner, max_size=3),
    max_leaves=8,
)
_DOCUMENT = st.dictionaries(_KEY, _VALUE, min_size=1, max_size=4)


@given(_DOCUMENT)
@settings(deadline=None, max_examples=150)
def test_what_is_written_reads_back(value: dict[str, Any]) -> None:
    assert read_document(write_document(value), "x").value == value


@given(_DOCUMENT, st.sampled_from([None, 2, "\t"]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_json_is_read_as_json_reads_it(value: dict[str, Any], indent: int | str | None, ascii_only: bool) -> None:
    assert read_document(json.dumps(value, indent=indent, ensure_ascii=ascii_only), "x").value == value


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=300)
def test_anything_is_read_or_refused_with_a_place(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        assert read_document(text, "Nexfile").name == "Nexfile"
    except DocumentRefused as refused:
        problems = refused.problems or (Problem(""),)
    assert all(problem.place == "Nexfile" and problem.message and problem.code for problem in problems)


def test_source_of_several_lines_becomes_a_block_that_people_can_read() -> None:
    source = "def handler(event, context):\n    if True:  \n\n        return '\\t'\n"
    text = write_document({"start_request": {"source": source}})
    assert "  source: |\n    def handler(event, context):\n        if True:  \n\n            return" in text


@pytest.mark.parametrize("source", ["a\r\nb\n", "a\x0cb\nc", "a\u2028b\nc", "  indented first\nb", "\n\na\n\n\n", "\n"])
def test_source_that_a_block_cannot_hold_is_kept_exactly(source: str) -> None:
    assert read_document(write_document({"source": source}), "x").value == {"source": source}


def test_plain_scalars_are_read_as_yaml_1_2_does() -> None:
    text = "a: yes\nb: on\nc: 1:30\nd: 2026-01-02\ne: 0o17\nf: 1e3\ng: ~\nh: 'true'\ni: true\nj: 0x1F\nk: .5\n"
    assert read_document(text, "x").value == {
        "a": "yes", "b": "on", "c": "1:30", "d": "2026-01-02", "e": 15, "f": 1000.0, "g": None, "h": "true",
        "i": True, "j": 31, "k": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place", "message", "advice"),
    [
        ("a: 1\nb: 2\na: 3\n", "Nexfile:3:1", "'a' stands here a second time; the first is on line 1", "keep one"),
        ('{"a": 1,\n "a": 2}', "Nexfile:2:2", "'a' stands here a second time; the first is on line 1", "keep one"),
        ("a:\n\t- b\n", "Nexfile:2:1", "a tab where YAML wants spaces", "indent with spaces"),
        ("a: b: c\n", "Nexfile:1:5", "a ':' that does not belong here", "in quotes"),
        ("x: &a 1\ny: *a\n", "Nexfile:2:4", "an alias ('*name') is not read here", "write the value out"),
        (
            "a: !!python/name:os.system x\n",
            "Nexfile:1:4",
            "the tag 'tag:yaml.org,2002:python/name:os.system'",
            "without",
        ),
        ("1: a\n", "Nexfile:1:1", "a key has to be text", "in quotes"),
        ("a: \x00\n", "Nexfile:1:4", "a character that does not belong in a text file (code 0x0)", "UTF-8"),
        ("", "Nexfile", "is empty", ""),
        ("a: [1, 2\n", "Nexfile:2:1", "expected ',' or ']'", ""),
        ("a: " + "9" * 200 + "\n", "Nexfile:1:4", "a number of that length is not read here", ""),
        ("- " * 80 + "x", "Nexfile:1:131", "nested more than 64 levels deep", ""),
        ("a: " + "[" * 100_000, "Nexfile", "nested too deeply", ""),
        ("a" * (MAX_SIZE + 1), "Nexfile", "larger than 8 MiB", ""),
        ("a: 1\n---\nb: 2\n", "Nexfile:2:1", "", ""),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_what_is_wrong_is_said_with_its_place_and_the_next_step(
    text: str, place: str, message: str, advice: str
) -> None:
    with pytest.raises(DocumentRefused) as refused:
        read_document(text, "Nexfile")
    (problem,) = refused.value.problems
    assert problem.location() == place
    assert message in problem.message
    assert advice in problem.advice


def test_every_duplicated_key_is_named() -> None:
    with pytest.raises(DocumentRefused) as refused:
        read_document("a: 1\nb: {c: 1, c: 2}\na: 2\n", "x")
    assert [problem.location() for problem in refused.value.problems] == ["x:2:11", "x:3:1"]


def test_places_lead_to_keys_and_values() -> None:
    document = read_document('a:\n  - x\n  - k: v\n    "b c": 1\nsource: |\n  text\n', "x")
    assert document.problem("a[1].k", "m").location() == "x:3:8"
    assert document.problem("a[1].k", "m", at_key=True).location() == "x:3:5"
    assert document.problem('a[1]["b c"]', "m").location() == "x:4:12"
    assert document.problem("a[1].missing", "m").location() == "x:3:5"
    assert document.problem("source", "m").location() == "x:5:1"
    assert document.problem("nowhere", "m").location() == "x"
