"""What the kernel counts of processes: the same as they count of themselves, and nothing of those that have gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from benchmarks.processes import alive, cpu_seconds, descendants, proportional_mib, together_mib

CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "print('there', flush=True); input()"])
input()
"""


def test_processor_time_is_what_the_process_has_itself() -> None:
    before = time.process_time()
    seen = cpu_seconds(os.getpid())
    assert before <= seen <= time.process_time()


def test_processes_below_one_are_found_at_any_depth_with_their_memory_and_not_once_they_have_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        (below,) = descendants(process.pid)
        assert process.pid in descendants(os.getpid())
        assert below in descendants(os.getpid())
        assert alive(below)
        assert cpu_seconds(below) > 0
        assert proportional_mib(below) > 1
        assert together_mib(process.pid) > proportional_mib(process.pid)
    finally:
        process.communicate(b"\n\n")
    assert descendants(process.pid) == []
    assert not alive(process.pid)
    assert cpu_seconds(process.pid) == 0
    assert proportional_mib(process.pid) == together_mib(process.pid) == 0


def test_what_has_ended_is_not_alive_before_anybody_has_looked_how() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not alive(process.pid)
    finally:
        process.communicate()


def test_processor_time_of_children_that_have_ended_is_added_where_it_is_asked_for() -> None:
    burn = "import time\nwhile time.process_time() < 0.05: pass"
    source = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('', flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_seconds(process.pid, ended=True) >= cpu_seconds(process.pid) + 0.03
    finally:
        process.communicate(b"\n")
    assert cpu_seconds(process.pid, ended=True) == 0
