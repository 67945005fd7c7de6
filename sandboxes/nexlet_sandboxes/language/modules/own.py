"""Telling the author's functions and classes from everybody else's.

Decorators such as `dataclass` and `wraps` write to what they are given. For the author's own classes and functions that
is their purpose; for a shared one (`dataclass(json.JSONEncoder)`) it would change what trusted code runs on. So each of
them asks here first.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Mapping

from nexlet_sandboxes.language.names import MAIN_MODULE

__all__ = ["is_own_class", "is_own_function", "plain_text"]


def is_own_function(value: object) -> bool:
    """Whether `value` is a function compiled from the author's source.

    Every function carries the builtins it was made with, and only the author's were made with restricted ones.
    """
    return isinstance(value, types.FunctionType) and _builtins_of(value) is not builtins.__dict__


def is_own_class(value: object) -> bool:
    """Whether `value` is a class made by the author's source.

    A class names the module of the code that made it, from the first line of its body on. No author can write
    `__module__` or `__name__`, and nobody else's module has the name of an author's.
    """
    if not isinstance(value, type) or not value.__flags__ & _HEAP_TYPE:
        return False
    module = _dictionary_of(value).get("__module__")
    return type(module) is str and (module == MAIN_MODULE or module.startswith(MAIN_MODULE + "."))


def plain_text(value: object, what: str) -> str:
    """`value` where it is exactly a `str`.

    A subclass may answer differently each time it is asked, so that what was checked is not what is used.

    Raises:
        TypeError: it is anything else.
    """
    if type(value) is not str:
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    return value


_builtins_of: Callable[[types.FunctionType], Mapping[str, object]] = types.FunctionType.__dict__["__builtins__"].__get__
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made while running, by a class statement or its like
_dictionary_of: Callable[[type], Mapping[str, object]] = type.__dict__["__dict__"].__get__
