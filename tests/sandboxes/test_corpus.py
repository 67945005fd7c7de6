"""The attack corpus over every profile, through production's pool, link and zygote, as root and as an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import LayerUnavailable
from tests.support.corpus import (
    CORPUS,
    Row,
    Verdict,
    attack,
    concerns,
    imports,
    read,
    run_as_user,
    verdict,
    written_out,
)

ROWS = read(CORPUS)
PROFILE = pytest.mark.parametrize("profile", sorted(PROFILES))


def failures(verdicts: list[Verdict]) -> str:
    return "\n".join(str(one) for one in verdicts if not one.passed)


@PROFILE
@pytest.mark.parametrize("layer", ["language", "kernel"])
async def test_every_attack_is_stopped_and_touches_nobody_else(profile: str, layer: str) -> None:
    rows = [row for row in ROWS if row.layer == layer]
    try:
        verdicts = await attack(profile, rows)
    except LayerUnavailable as unavailable:
        pytest.skip(unavailable.reason)
    assert len(verdicts) == sum(concerns(row, profile) for row in rows)
    assert not failures(verdicts), failures(verdicts)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is what the other tests run as already")
@PROFILE
async def test_every_attack_is_stopped_where_the_nexlet_is_an_ordinary_user(profile: str) -> None:
    done = await run_as_user(CORPUS, [profile])
    if done.missing:
        pytest.skip(f"{done.missing}")
    verdicts = done.verdicts
    assert {one.user for one in verdicts} == {"user"}
    assert len(verdicts) == sum(concerns(row, profile) for row in ROWS)
    assert not failures(verdicts), failures(verdicts)


# --- the harness itself: that it can fail -----------------------------------------------------------------------------


def row(source: str, expected: str, *, layer: str = "kernel", category: str = "ipc") -> Row:
    return Row("made", category, layer, frozenset({expected}), source)


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (row("x = 1", "denied"), "ran"),
        (row("import os; os.getpid()", "killed"), "ran"),
        (row("import time; time.sleep(60)", "denied"), "timeout"),
        (row("nothing_by_this_name", "denied"), "fault"),
        (row("import no_such_module", "denied"), "fault"),
        (row("import os; os.no_such_call()", "denied"), "fault"),
        (row("def main():\n    return 1\n", "compile", layer="language"), "contained"),
        (row("def main():\n    return 1\n", "limit", layer="language"), "contained"),
        (row("def main():\n    return 1 / 0\n", "compile", layer="language"), "runtime"),
        (row("def main():\n    while True:\n        pass\n", "runtime", layer="language"), "timeout"),
        (row("x = '0x7fffdeadbeef'\ndef main():\n    return x\n", "contained", layer="language"), "fault"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_an_attack_that_is_not_stopped_as_expected_is_a_failure(
    made: Row, met: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.corpus.DEFAULT_TIMEOUT", 0.1)
    (one,) = await attack("process", [made])
    assert (one.passed, one.met) == (False, met), one


async def test_what_is_there_to_be_reached_is_reached_without_the_layer() -> None:
    # The rows are attacks: with nothing in their way, some do what they are there to do.
    reading = next(one for one in ROWS if one.name == "k_read_etc_passwd")
    (one,) = await attack("unsafe-dev", [row(reading.source, "denied")])
    assert (one.passed, one.met) == (False, "ran")


def test_a_stricter_stop_passes_and_a_later_one_does_not() -> None:
    made = row("", "denied")
    assert verdict(made, "strict", "killed", "").passed
    assert not verdict(made, "strict", "timeout", "").passed
    assert not verdict(row("", "compile", layer="language"), "strict", "killed", "").passed
    assert not verdict(row("", "denied", layer="nothing known"), "strict", "contained", "").passed


def test_recipes_are_written_out_and_nothing_in_them_is_run() -> None:
    assert written_out("'x = (' + '1,'*N + ')', N=3").startswith("x = (1,1,1,)\n")
    assert written_out("'x = ' + '+'.join(['1']*N), N=3").startswith("x = 1+1+1\n")
    with pytest.raises(ValueError, match="is not understood; write it out"):
        written_out("open('/etc/passwd').read()")
    with pytest.raises(ValueError, match="is not understood; write it out"):
        written_out("a source that is very long")


def test_what_a_source_imports_is_found_wherever_it_does() -> None:
    source = "import os, a.b\nfrom c import d\ndef f():\n    __import__('e')\n    importlib.import_module('g.h')\n"
    assert imports(source) == {"os", "a.b", "c", "e", "g.h"}


def test_the_rows_have_names_of_their_own() -> None:
    assert len({one.name for one in ROWS}) == len(ROWS) > 140
    assert Path(CORPUS).name == "attacks.json"
