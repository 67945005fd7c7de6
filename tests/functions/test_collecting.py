"""When garbage is collected, and what becomes of what was set aside."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from nexlet_functions.collecting import FEW, Collecting


class Nexlet:
    """As many functions as a test says, which came and went."""

    def __init__(self) -> None:
        self.changes = (0, 0)
        self.quiet = True
        self.functions: list[int] = []


class Circle:
    """Something that only a collection frees."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def nothing_set_aside() -> Iterator[None]:
    gc.unfreeze()
    gc.collect()
    yield
    gc.unfreeze()


@pytest.fixture
def nexlet() -> Nexlet:
    return Nexlet()


@pytest.fixture
def collecting(nexlet: Nexlet) -> Collecting:
    return Collecting(lambda: nexlet)


def test_before_there_is_an_agent_nothing_is_done() -> None:
    Collecting(lambda: None).look()
    assert gc.get_freeze_count() == 0


def test_what_is_left_is_set_aside_once_it_is_quiet(nexlet: Nexlet, collecting: Collecting) -> None:
    collecting.look()
    assert gc.get_freeze_count() == 0, "nothing came"
    nexlet.changes = (3, 0)
    collecting.look()
    assert gc.get_freeze_count() == 0, "more may come"
    nexlet.quiet = False
    collecting.look()
    assert gc.get_freeze_count() == 0, "a message waits"
    nexlet.quiet = True
    collecting.look()
    kept = gc.get_freeze_count()
    assert kept > 0
    made = [Circle() for _ in range(100)]
    collecting.look()
    assert gc.get_freeze_count() == kept, "nothing came since"
    nexlet.changes = (4, 0)
    collecting.look()
    collecting.look()
    assert gc.get_freeze_count() >= kept + len(made)


def test_what_was_set_aside_is_freed_when_many_have_gone(nexlet: Nexlet, collecting: Collecting) -> None:
    one = Circle()
    seen = weakref.ref(one)
    nexlet.changes, nexlet.functions = (FEW, 0), list(range(FEW))
    collecting.look()
    collecting.look()
    del one
    gc.collect()
    assert seen() is not None, "it was set aside"

    nexlet.changes = (FEW, FEW - 1)
    collecting.look()
    collecting.look()
    assert seen() is not None, "few have gone"
    nexlet.changes = (FEW, FEW)
    collecting.look()
    collecting.look()
    assert seen() is None
    assert gc.get_freeze_count() > 0, "the rest is set aside again"


def test_of_many_functions_many_have_to_go(nexlet: Nexlet, collecting: Collecting) -> None:
    one = Circle()
    seen = weakref.ref(one)
    nexlet.changes, nexlet.functions = (1000, 0), list(range(1000))
    collecting.look()
    collecting.look()
    del one
    nexlet.changes, nexlet.functions = (1000, 249), list(range(751))
    for _ in range(2):
        collecting.look()
    assert seen() is None, "a quarter of those that are left"
    two = Circle()
    seen = weakref.ref(two)
    nexlet.changes = (1001, 249)
    for _ in range(2):
        collecting.look()
    del two
    nexlet.changes = (1001, 260)
    for _ in range(2):
        collecting.look()
    assert seen() is not None
