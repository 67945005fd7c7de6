"""Which faults come when: from the seed alone, so that a soak that failed can be run again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FAULTS", "SETTLED", "Planned", "plan"]

FAULTS = (
    "worker killed",
    "worker paused",
    "zygote killed",
    "function redeployed",
    "function deployed and stopped",
    "burst",
    "connections cut",
    "server paused",
    "server restarted",
    "server killed",
    "node stopped and started",
    "node killed and started",
    "nexlet stopped and started",
    "nexlet killed and started",
)

SETTLED = 0.6
"""The nexlet is not restarted after this share of the time: what a single process loses has to show at the end."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Attributes:
        at: seconds after the load began, at the earliest: faults come one after another.
        fault: one of `FAULTS`.
        draw: a number from 0 to 1, for what else there is to choose (which worker, how long).
    """

    at: float
    fault: str
    draw: float


def plan(seed: int, seconds: float, *, every: float = 3.0) -> list[Planned]:
    """The faults of a soak: round after round of all of them, each round in another order.

    Args:
        seconds: of load; the first and the last second are without faults.
        every: seconds between two, on average.
    """
    choices = random.Random(f"faults {seed}")
    coming: list[Planned] = []
    at = 1.0 + choices.uniform(0, every)
    for fault in _rounds(choices):
        if at >= seconds - 1.0:
            return coming
        draw, pause = choices.random(), choices.uniform(0.4 * every, 1.6 * every)
        if fault.startswith("nexlet") and at > seconds * SETTLED:
            continue
        coming.append(Planned(at, fault, draw))
        at += pause
    return coming


def _rounds(choices: random.Random) -> Iterator[str]:
    while True:
        # The nexlet's own come in the first half of a round, so that a short soak has them, too.
        yield from sorted(FAULTS, key=lambda fault: choices.random() * (0.5 if fault.startswith("nexlet") else 1.0))
