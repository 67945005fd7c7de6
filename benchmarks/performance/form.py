"""How the kinds are measured for the documents: which of them, how long a repetition takes, and how often.

As short as the figures stay honest: what is a target is measured longer than what is told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.registry import KINDS

__all__ = ["ANCHORS", "FORMS", "Form"]

ANCHORS: Final = "anchors"
"""Under this name stands what `benchmarks.anchors` measured, which is no kind: it installs something."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind is measured.

    Attributes:
        about_s: seconds that it takes in all, about, on a machine that does nothing else.
        seconds, rounds: of its `Options`; the kind's own where None.
        functions: of its `Options`; the kind's own where empty.
    """

    about_s: int
    seconds: float | None = None
    rounds: int | None = None
    functions: tuple[int, ...] = ()


_OF: Final[Mapping[str, Form]] = {
    "throughput": Form(55, seconds=0.4, rounds=7),
    "deploys": Form(8),
    "deadlines": Form(16),
    "streams": Form(15),
    "grants": Form(10),
    "workers": Form(25),
    "attributes": Form(5),
    "desk": Form(30),
    "grid": Form(65, rounds=3),
    "paced": Form(50),
    "fairness": Form(45, rounds=3),
    "overload": Form(70),
    "bursts": Form(30),
    "coldstart": Form(75),
    "scale": Form(125, rounds=3, functions=(1000,)),
    "growth": Form(75, rounds=3),
    "batches": Form(15),
}

FORMS: Final[Mapping[str, Form]] = {name: _OF[name] for name in KINDS if name in _OF}
"""The kinds that the documents show, in the order in which they are measured."""
