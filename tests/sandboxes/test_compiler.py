"""When a compiled form may be used again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nexlet_sandboxes import compiled
from nexlet_sandboxes.compiled import Compiler
from nexlet_sandboxes.program import Program

PROGRAM = Program("def handler(event, context): pass\n", files={"a.py": "A = 1\n"}, modules={"m": ("x", "y")})


def test_the_same_gives_the_same() -> None:
    same = replace(PROGRAM, modules={"m": ("y", "x")}, workload_id="W1", environment={"KEY": "value"}, patterns=("a",))
    assert Compiler().fingerprint(PROGRAM) == Compiler().fingerprint(same)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "def handler(event, context): return 1\n"},
        {"filename": "other.py"},
        {"files": {"a.py": "A = 2\n"}},
        {"files": {"b.py": "A = 1\n"}},
        {"handler": "other"},
        {"modules": {"m": ("x",)}},
        {"modules": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_compiled_differently_has_another_one(change: dict[str, object]) -> None:
    compiler = Compiler()
    assert compiler.fingerprint(PROGRAM) != compiler.fingerprint(replace(PROGRAM, **change))  # type: ignore[arg-type]


def test_so_has_another_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused from now on is not run because it was let pass before."""
    found = set()
    for policy in ("REFUSED = ()\n", "REFUSED = ('x',)\n"):
        (tmp_path / "policy.py").write_text(policy)
        monkeypatch.setattr(compiled, "_POLICY", tmp_path)
        found.add(Compiler().fingerprint(PROGRAM))
    assert len(found) == 2


def test_the_policy_is_where_it_is_looked_for() -> None:
    assert (compiled._POLICY / "policy.py").is_file()


def test_what_is_no_text_has_none() -> None:
    assert Compiler().fingerprint(replace(PROGRAM, source="x = '\ud800'\n")) == ""
