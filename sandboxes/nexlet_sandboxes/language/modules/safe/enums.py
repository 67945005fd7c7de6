"""Enumerations whose functional form takes plain names only.

`Enum("Color", {...})` builds a class body from a dictionary, special methods included, which no author may define. The
bases given out are subclasses whose metaclass checks the names first; class statements are checked by the policy.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from nexlet_sandboxes.language.modules.own import plain_text
from nexlet_sandboxes.language.names import MAIN_MODULE

__all__ = ["Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"]

_ABSENT: Any = object()
_MIXINS = (str, int, float, bytes)


class _EnumMeta(enum.EnumMeta):
    """As the standard one; called with names, it takes identifiers that do not begin with an underscore."""

    def __call__(  # type: ignore[override]  # the arguments that name modules are not offered
        cls,
        value: Any = _ABSENT,
        names: Any = _ABSENT,
        *values: Any,
        type: Any = None,  # noqa: A002 - the standard argument
        start: int = 1,
    ) -> Any:
        if value is _ABSENT:
            raise TypeError(f"{cls.__name__}() needs the value to look up")
        if names is _ABSENT:
            if cls in _STANDARD:
                raise TypeError(f"{cls.__name__} has no members; write class Color({cls.__name__}): RED = 1")
            return super().__call__(value)
        if cls.__members__:
            if sys.version_info >= (3, 12):  # Point(1, 2) is Point((1, 2)) from there on
                return super().__call__((value, names, *values))
            raise TypeError(f"{cls.__name__} has members and cannot be extended")
        if values:
            raise TypeError(f"{cls.__name__}() takes the class's name and its members' names")
        if type is not None and not any(type is mixin for mixin in _MIXINS):
            raise TypeError("type must be str, int, float or bytes")
        return super().__call__(
            plain_text(value, "the class's name"),
            _checked(names),
            module=MAIN_MODULE,
            type=type,
            start=start,
        )

    # Members of IntEnum are members of Enum too, although these two bases are twins and not parent and child.
    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(_STANDARD.get(cls, cls), instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(_STANDARD.get(cls, cls), subclass)


_STANDARD: dict[type, type] = {}


class Enum(enum.Enum, metaclass=_EnumMeta):
    """A set of names bound to values: `class Color(Enum): RED = 1`."""


class IntEnum(enum.IntEnum, metaclass=_EnumMeta):
    """An Enum whose members are integers."""


class StrEnum(enum.StrEnum, metaclass=_EnumMeta):
    """An Enum whose members are strings."""


class Flag(enum.Flag, metaclass=_EnumMeta):
    """An Enum whose members can be combined with &, |, ^ and ~."""


class IntFlag(enum.IntFlag, metaclass=_EnumMeta):
    """A Flag whose members are integers."""


for _twin in (Enum, IntEnum, StrEnum, Flag, IntFlag):
    _STANDARD[_twin] = getattr(enum, _twin.__name__)
    _twin.__module__ = "enum"


def _checked(names: Any) -> list[Any]:
    """The names of a functional call, as a list that nobody else holds.

    Raises:
        TypeError, ValueError: one is not a plain public identifier.
    """
    given: Iterable[Any]
    if isinstance(names, str):
        given = plain_text(names, "names").replace(",", " ").split()
    elif isinstance(names, Mapping):
        given = list(names.items())
    else:
        given = list(names)
    checked: list[Any] = []
    for item in given:
        if isinstance(item, tuple | list):
            name, value = item
            checked.append((_member(name), value))
        else:
            checked.append(_member(item))
    return checked


def _member(name: object) -> str:
    text = plain_text(name, "a member's name")
    if not text.isidentifier() or text.startswith("_"):
        raise ValueError(f"a member's name must be an identifier that does not begin with '_': {text!r}")
    return text
