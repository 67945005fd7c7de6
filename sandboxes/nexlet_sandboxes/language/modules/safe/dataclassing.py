"""`dataclass` for the author's own classes.

The standard decorator generates methods in the namespace of the module that the class says it is from, and looks there
for what string annotations mean. An author's module is not in `sys.modules`, and must not be: so for the moment of
decoration the class is said to be from this module, which has in it what such annotations may mean.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, InitVar
from types import MappingProxyType
from typing import Any, ClassVar

from nexlet_sandboxes.language.modules.own import is_own_class

__all__ = ["dataclass", "field"]

_MEANINGS = (typing, dataclasses, KW_ONLY, InitVar, ClassVar)  # found by name, where an annotation is a string


def dataclass(
    cls: type | None = None,
    /,
    *,
    init: bool = True,
    repr: bool = True,  # noqa: A002 - the standard decorator's argument
    eq: bool = True,
    order: bool = False,
    unsafe_hash: bool = False,
    frozen: bool = False,
    match_args: bool = True,
    kw_only: bool = False,
    slots: bool = False,
) -> Any:
    """Adds `__init__`, `__repr__`, `__eq__` and what else is asked for to a class, from its annotated fields.

    Raises:
        TypeError: the class is not one of the function's own.
    """

    def decorate(cls: type) -> type:
        if not is_own_class(cls):
            raise TypeError("dataclass() is for classes that the function defines itself")
        module = cls.__module__
        cls.__module__ = __name__
        try:
            made = _standard(
                init=init,
                repr=repr,
                eq=eq,
                order=order,
                unsafe_hash=unsafe_hash,
                frozen=frozen,
                match_args=match_args,
                kw_only=kw_only,
                slots=slots,
            )(cls)
        finally:
            cls.__module__ = module
        made.__module__ = module  # with slots=True the class is a new one
        for one in made.__dict__["__dataclass_fields__"].values():
            if one.metadata is _NO_METADATA:
                one.metadata = MappingProxyType({})
        return made

    return decorate if cls is None else decorate(cls)


def field(
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    init: bool = True,
    repr: bool = True,  # noqa: A002 - the standard function's argument
    hash: bool | None = None,  # noqa: A002
    compare: bool = True,
    metadata: Mapping[Any, Any] | None = None,
    kw_only: Any = dataclasses.MISSING,
) -> Any:
    """One field of a dataclass, where its annotation does not say it all."""
    return _standard_field(
        default=default,
        default_factory=default_factory,
        init=init,
        repr=repr,
        hash=hash,
        compare=compare,
        metadata={} if metadata is None else metadata,
        kw_only=kw_only,
    )


_standard_field: Callable[..., Any] = dataclasses.field
_NO_METADATA = _standard_field().metadata
"""All fields without metadata share it, and it hands its dictionary to whatever it is compared with."""

_standard: Callable[..., Callable[[type], type]] = dataclasses.dataclass
