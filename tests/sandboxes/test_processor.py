"""What the kernel tells of processes: what they used, and what they waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nexlet_sandboxes.processor import processors, runnable, used_ns, waited_ns
from tests.support.polling import eventually

NOBODY = 2**22 + 1
"""A number that no process has: they end before."""


def test_what_a_process_has_used() -> None:
    before = used_ns(os.getpid())
    end = time.process_time_ns() + 20_000_000
    while time.process_time_ns() < end:
        pass
    assert used_ns(os.getpid()) - before >= 20_000_000
    assert used_ns(NOBODY) == waited_ns(NOBODY) == 0


@pytest.fixture
def spinning() -> Iterator[list[int]]:
    """More processes than processors, each of which would use a whole one."""
    started = [subprocess.Popen([sys.executable, "-Sc", "while True: pass"]) for _ in range(2 * processors() + 1)]
    yield [one.pid for one in started]
    for one in started:
        one.kill()
        one.wait()


def waits(pid: int) -> bool:
    return waited_ns(pid) > used_ns(pid) / 4 > 0


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
async def test_what_it_waited_for_counts_as_well(spinning: list[int]) -> None:
    for pid in spinning:
        await eventually(partial(waits, pid), what="it waited")
        assert runnable(pid)


def test_one_that_waits_for_something_else_wants_no_processor() -> None:
    waiting = subprocess.Popen([sys.executable, "-Sc", "input()"], stdin=subprocess.PIPE)
    try:
        while runnable(waiting.pid):
            time.sleep(0.001)
        assert not runnable(NOBODY)
    finally:
        waiting.kill()
        waiting.communicate()


def test_the_processors_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processors() == len(os.sched_getaffinity(0)) >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors() == os.cpu_count()


ON_ONE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from nexlet_functions.devnode.node import _own_tags
from nexlet_functions.functions.requests import limits_of
from nexlet_functions.rules import Ceilings
from nexlet_models.start_request import StartRequest
from nexlet_sandboxes.processor import processors
from nexlet_sandboxes.program import Limits
limits = limits_of(StartRequest.model_validate({"source": "x"}), Ceilings())
print(processors(), Limits().max_workers, limits.max_workers, _own_tags("nexus", "node")["nex.cpucount"])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is but one processor")
def test_it_is_those_that_we_may_use_everywhere() -> None:
    """As in a container, or below `taskset`, which may have one of a machine of sixty-four."""
    said = subprocess.run([sys.executable, "-c", ON_ONE], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1", "1", "1", "1"]
