"""The attack corpus, as far as it is the language layer's: each row runs in a forked child with limits of its own.

A row passes if it is stopped at its expected stage or at an earlier one: refused in the source before refused while it
runs, and that before a run that ends and gives nothing away.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nexlet_sandboxes.language import load, preload
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program
from tests.support.language import Host

CORPUS = json.loads(Path(__file__).parents[1].joinpath("attacks.json").read_text())["attacks"]
STAGES = ("compile", "runtime", "contained")
ROWS = [
    row
    for row in CORPUS
    # What is expected to end by a limit is for real workers to run, which have them.
    if row["layer"] == "language" and (row["expected"] in STAGES or "compile" in row.get("also_ok", ()))
]
WITHIN_S = 10.0


def nested_fstring(depth: int) -> str:
    text = "1"
    for _ in range(depth):
        text = f'f"{{{text}}}"'
    return "x = " + text


RECIPES: dict[str, Callable[[], str]] = {
    "compile_nested_parens": lambda: "x = " + "(" * 100_000 + "1" + ")" * 100_000,
    "compile_nested_lists": lambda: "x = " + "[" * 90 + "]" * 90,
    "compile_unary_chain": lambda: "x = " + "-" * 100_000 + "1",
    "compile_binop_chain": lambda: "x = " + "+".join(["1"] * 20_000),
    "compile_attr_chain": lambda: "x = a" + ".b" * 20_000,
    "compile_huge_tuple": lambda: "x = (" + "1," * 2_000_000 + ")",
    "compile_many_defs": lambda: "def f():\n  pass\n" * 200_000,
    "compile_const_fold": lambda: "x = " + "*".join(["9**99"] * 4000),
    "compile_nested_fstring": lambda: nested_fstring(150),
    "compile_surrogates": lambda: 'x = "\ud800"',
    "compile_bad_encoding_cookie": lambda: "# coding: utf-7\nx = +AGE-",
    "compile_source_16mib": lambda: "#" * (16 * 1024 * 1024),
}


def source_of(row: Mapping[str, Any]) -> str:
    if row["source"] is not None:
        return str(row["source"])
    # What the recipes make has no handler of its own; where they compile, loading ends with that.
    return RECIPES[row["name"]]() + "\ndef main():\n    return x\n"


def outcome(source: str) -> tuple[str, str]:
    """The stage at which a source is stopped, and the result of one that is not."""
    try:
        loaded = load(Program(source=source, handler="main"), Host(remaining=0.01))
    except LoadRefused as refused:
        early = all(problem.code != "load-raised" for problem in refused.problems)
        return ("compile" if early else "runtime"), "; ".join(problem.message for problem in refused.problems)[:4000]
    try:
        result = loaded.handler()
    except BaseException as error:  # whatever it raises, it was stopped
        return "runtime", f"{loaded.summary(error)}\n{loaded.explain(error)}"
    try:
        return "contained", json.dumps(result)
    except (TypeError, ValueError, RecursionError) as error:
        return "runtime", f"the result is no reply: {type(error).__name__}"


def in_child(source: str) -> tuple[str, str]:
    """`outcome`, in a process that may neither eat memory nor go on for ever."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (5, 6))
            with open("/proc/self/statm") as statm:
                used = int(statm.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 512 * 1024 * 1024,) * 2)
            signal.alarm(int(WITHIN_S))
            os.write(write, json.dumps(outcome(source)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"the child died: {status}"
    assert said, "the child said nothing"
    stage, text = json.loads(said)
    return stage, text


@pytest.fixture(scope="module", autouse=True)
def everything_in_memory() -> None:
    preload()


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_attack_is_stopped_as_early_as_expected(row: dict[str, Any]) -> None:
    stage, text = in_child(source_of(row))
    accepted = [expected for expected in (row["expected"], *row.get("also_ok", ())) if expected in STAGES]
    latest = max(STAGES.index(expected) for expected in accepted)
    assert STAGES.index(stage) <= latest, f"{row['name']}: {stage}, {text}"
    assert not re.search(r"0x[0-9a-fA-F]{6,}", text), "an address got out"


def test_every_recipe_is_known() -> None:
    assert {row["name"] for row in ROWS if row["source"] is None} == set(RECIPES)
