"""A generator of our own behind the functions of `random`: no other code's numbers depend on a function's seed."""

from __future__ import annotations

import random

__all__ = ["METHODS", "generator", "reseed"]

generator = random.Random()  # noqa: S311 - `random` is what the author asked for; `secrets` is there as well

METHODS = (
    "betavariate",
    "binomialvariate",  # 3.12
    "choice",
    "choices",
    "expovariate",
    "gammavariate",
    "gauss",
    "getrandbits",
    "getstate",
    "lognormvariate",
    "normalvariate",
    "paretovariate",
    "randbytes",
    "randint",
    "random",
    "randrange",
    "sample",
    "seed",
    "setstate",
    "shuffle",
    "triangular",
    "uniform",
    "vonmisesvariate",
    "weibullvariate",
)


def reseed() -> None:
    """Seeds the generator anew. To be called in each forked process: a fork copies the state, numbers included."""
    generator.seed()
