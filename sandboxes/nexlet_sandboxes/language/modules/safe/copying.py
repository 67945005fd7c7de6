"""`copy` without the `memo` that the caller could fill, and with `replace` (of Python 3.13) in every version."""

from __future__ import annotations

import copy as _copy
import dataclasses
import datetime
from typing import Any, TypeVar

__all__ = ["copy", "deepcopy", "replace"]

T = TypeVar("T")


def copy(x: T) -> T:
    """A shallow copy: a new container with the same things in it."""
    return _copy.copy(x)


def deepcopy(x: T) -> T:
    """A deep copy: a new container with copies of the things in it."""
    return _copy.deepcopy(x)


def replace(obj: T, /, **changes: Any) -> T:
    """A copy of a dataclass instance, named tuple, date or time with some fields changed.

    Raises:
        TypeError: it is none of these, or there is no such field.
    """
    given: Any = obj
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return dataclasses.replace(given, **changes)  # type: ignore[return-value]  # mypy takes it for a class
    if isinstance(given, tuple) and hasattr(type(given), "_replace"):
        named: Any = given
        unknown = set(changes) - set(named._fields)
        if unknown:  # the same text in every version
            raise TypeError(f"{type(given).__name__} has no field {min(unknown)!r}")
        return named._replace(**changes)  # type: ignore[no-any-return]  # of the given type
    if isinstance(given, datetime.date | datetime.time):
        return given.replace(**changes)  # type: ignore[return-value]  # of the given type
    raise TypeError(f"replace() does not support {type(given).__name__} objects")
