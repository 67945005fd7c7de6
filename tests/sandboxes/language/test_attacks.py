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

import pytest

from nexlet_sandboxes.language import load, preload
from nexlet_sandboxes.outcomes import LoadRefused
from nexlet_sandboxes.program import Program
from tests.support.corpus import CORPUS, Row, read
from tests.support.language import Host

STAGES = ("compile", "runtime", "contained")
# What may end by a limit, unless it may also be refused in the source, is for real workers to run, which have them.
ROWS = [
    row
    for row in read(CORPUS)
    if row.layer == "language" and ("limit" not in row.expected or "compile" in row.expected)
]
WITHIN_S = 10.0


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


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_attack_is_stopped_as_early_as_expected(row: Row) -> None:
    stage, text = in_child(row.source)
    latest = max(STAGES.index(expected) for expected in row.expected & set(STAGES))
    assert STAGES.index(stage) <= latest, f"{row.name}: {stage}, {text}"
    assert not re.search(r"0x[0-9a-fA-F]{6,}", text), "an address got out"
