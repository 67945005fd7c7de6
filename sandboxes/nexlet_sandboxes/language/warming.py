"""Running the language layer a few times before any worker is forked.

CPython specialises code as it runs, by writing into it, and a worker that does so gets pages of its own for it. Code
that has run often enough in the zygote is shared by all workers as it is, and faster at its first use. Each worker is
some 300 KiB smaller for it, and loads its program sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nexlet_sandboxes.language.host import Host
from nexlet_sandboxes.program import Program

__all__ = ["TIMES", "warm_up"]

TIMES: Final = 8
"""Code is specialised after a few runs; more than this changed nothing that could be measured."""

SAMPLE: Final = """
import json
from dataclasses import dataclass, field

LIMIT = 3

@dataclass
class Item:
    name: str
    qty: int = 1
    tags: list = field(default_factory=list)

    def total(self, price):
        self.qty += 1
        return self.qty * price

def amounts(items, *, least=0):
    found = {}
    for number, item in enumerate(items):
        try:
            found[item.name] = found.get(item.name, 0) + item.qty
        except KeyError as error:
            found["missing"] = str(error)
        finally:
            number += 1
    if not found or len(found) < least:
        raise ValueError(f"no more than {found!r}")
    return [amount for amount in found.values() if amount > LIMIT] or {key: value for key, value in found.items()}

def handler(event, context):
    data = event.json()
    with context as opened:
        while data and not opened:
            break
    match data:
        case {"items": [first, *rest]}:
            return amounts([Item(first)]), rest[0:1]
        case _:
            return json.dumps([*map(lambda item: item.name, data)])
"""


class _Nobody:
    """A host for a program whose handler is never called."""

    def __init__(self) -> None:
        self.memory_exceeded = False
        self.builtins: Mapping[str, object] = {}
        self.modules: Mapping[str, Mapping[str, object]] = {}

    def write(self, stream: str, text: str) -> None:
        raise AssertionError("the sample prints nothing")

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        raise AssertionError("the sample logs nothing")

    def remaining(self) -> float:
        return 1.0


def warm_up(load: Callable[[Program, Host], object], *, times: int) -> None:
    """Load a sample program some times over. What it leaves behind is garbage by the time this returns."""
    for _ in range(times):
        load(Program(SAMPLE), _Nobody())
