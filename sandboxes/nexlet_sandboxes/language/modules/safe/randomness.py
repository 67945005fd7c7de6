"""A generator of our own behind the functions of `random`: no other code's numbers depend on a function's seed."""

from __future__ import annotations

import os
import random

__all__ = ["METHODS", "generator", "reseed", "reseed_after_fork"]

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


_registered = False


def reseed() -> None:
    """Seeds the generator anew."""
    generator.seed()


def reseed_after_fork() -> None:
    """Has every process forked from here on seed the generator anew: a fork copies the state, numbers included."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=reseed)
