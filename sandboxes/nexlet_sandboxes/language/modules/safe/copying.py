"""`copy` without the `memo` that the caller could fill with somebody else's answers."""

from __future__ import annotations

import copy as _copy
from typing import TypeVar

__all__ = ["copy", "deepcopy"]

T = TypeVar("T")


def copy(x: T) -> T:
    """A shallow copy: a new container with the same things in it."""
    return _copy.copy(x)


def deepcopy(x: T) -> T:
    """A deep copy: a new container with copies of the things in it."""
    return _copy.deepcopy(x)
