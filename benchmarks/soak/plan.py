"""Which faults come when, and on which place: from the seed alone, so that a soak that failed can be run again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["EVERYWHERE", "ONE_LIFE", "PLACES", "SETTLED", "Planned", "faults_of", "place_of", "plan"]

EVERYWHERE = (
    "worker killed",
    "worker paused",
    "zygote killed",
    "zygote paused",
    "function redeployed",
    "function deployed and stopped",
    "burst",
    "connections cut",
    "server paused",
    "server silent",
    "server restarted",
    "server killed",
    "node stopped and started",
    "node killed and started",
    "node started as another one",
    "node and nexlet in lameduck",
    "nexlet paused",
    "nexlet without descriptors",
    "nexlet with a full disk",
    "nexlet stopped and started",
    "nexlet killed and started",
    "nexlet killed with its state",
    "nexlet taken over",
    "second nexlet come and gone",
)
"""Faults of every place."""

PLACES = {
    "cluster": ("servers killed one after another", "server in lame duck mode"),
    "accounts": ("user revoked and renewed", "minted credentials expired"),
}
"""What a soak is played on, and the faults that are there alone: three servers that let everybody in, or one that knows
users by their JWTs."""

ONE_LIFE = frozenset(
    {
        "node and nexlet in lameduck",
        "nexlet stopped and started",
        "nexlet killed and started",
        "nexlet killed with its state",
        "nexlet taken over",
    }
)
"""Those after which there is another process of the nexlet."""

SETTLED = 0.6
"""The nexlet is not restarted after this share of the time: what a single process loses has to show at the end."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Attributes:
        at: seconds after the load began, at the earliest: faults come one after another.
        fault: one of `faults_of` its place.
        draw: a number from 0 to 1, for what else there is to choose (which worker, how long).
    """

    at: float
    fault: str
    draw: float


def place_of(seed: int) -> str:
    """Where the soak of that seed is played, unless somebody says otherwise: seeds take turns."""
    return tuple(PLACES)[seed % len(PLACES)]


def faults_of(place: str) -> tuple[str, ...]:
    """Everything that may break there."""
    return EVERYWHERE + PLACES[place]


def plan(seed: int, seconds: float, *, place: str, every: float = 2.0) -> list[Planned]:
    """The faults of a soak: round after round of all of them, each round in another order.

    Args:
        seconds: of load; the first and the last second are without faults.
        every: seconds between two, on average.
    """
    choices = random.Random(f"faults {seed}")
    coming: list[Planned] = []
    at = 1.0 + choices.uniform(0, every)
    for fault in _rounds(choices, faults_of(place)):
        if at >= seconds - 1.0:
            return coming
        draw, pause = choices.random(), choices.uniform(0.4 * every, 1.6 * every)
        if fault in ONE_LIFE and at > seconds * SETTLED:
            continue
        coming.append(Planned(at, fault, draw))
        at += pause
    return coming


def _rounds(choices: random.Random, faults: tuple[str, ...]) -> Iterator[str]:
    while True:
        # The nexlet's own come in the first half of a round, so that a short soak has them, too.
        yield from sorted(faults, key=lambda fault: choices.random() * (0.5 if fault in ONE_LIFE else 1.0))
