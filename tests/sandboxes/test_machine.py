"""What there is of memory, processes and descriptors, and how many idle workers follow from it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from nexlet_sandboxes import machine
from nexlet_sandboxes.warm import most_idle

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three groups within each other, and the file that says that we are in the innermost."""
    (tmp_path / "tree" / "system.slice" / "nexlet.service").mkdir(parents=True)
    (tmp_path / "own").write_text("12:pids:/elsewhere\n0::/system.slice/nexlet.service\n")
    return tmp_path / "tree"


def test_without_limits_it_is_what_the_machine_has(tree: Path) -> None:
    own = tree.parent / "own"
    for group in (tree / "system.slice", tree / "system.slice" / "nexlet.service"):
        (group / "memory.max").write_text("max\n")
        (group / "pids.max").write_text("max\n")
    assert machine.memory(tree=tree, own=own) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.processes(tree=tree, own=own) is None


def test_the_tightest_of_the_groups_around_us_counts(tree: Path) -> None:
    own = tree.parent / "own"
    outer = tree / "system.slice"
    (outer / "memory.max").write_text(f"{64 * MIB}\n")
    (outer / "nexlet.service" / "memory.max").write_text(f"{96 * MIB}\n")
    (outer / "nexlet.service" / "pids.max").write_text("300\n")
    assert machine.memory(tree=tree, own=own) == 64 * MIB
    assert machine.processes(tree=tree, own=own) == 300


def test_what_is_outside_of_the_tree_is_not_looked_at(tree: Path) -> None:
    (tree.parent / "pids.max").write_text("1\n")
    assert machine.processes(tree=tree, own=tree.parent / "own") is None


def test_in_a_container_the_root_is_its_own_group(tree: Path) -> None:
    (tree / "memory.max").write_text(f"{32 * MIB}\n")
    (tree.parent / "own").write_text("0::/\n")
    assert machine.memory(tree=tree, own=tree.parent / "own") == 32 * MIB


def test_where_there_are_no_groups_the_machine_is_what_there_is(tmp_path: Path) -> None:
    assert machine.memory(own=tmp_path / "none") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.processes(own=tmp_path / "none") is None


def test_descriptors_are_those_that_we_may_have_now() -> None:
    assert machine.descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("memory", "descriptors", "processes", "workers"),
    [
        (512 * MIB, 65536, None, 128),  # as many as have room anywhere
        (8 * GIB, 65536, None, 512),
        (24 * GIB, 65536, None, 1536),
        (24 * GIB, 1024, None, 170),
        (24 * GIB, 65536, 512, 256),
        (24 * GIB, 65536, 1, 1),
    ],
)
def test_idle_workers_follow_from_the_machine(
    memory: int, descriptors: int, processes: int | None, workers: int
) -> None:
    assert most_idle(memory, descriptors, processes) == workers
