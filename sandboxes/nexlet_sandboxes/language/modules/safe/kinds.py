"""The parts of `typing` that write to what they decorate, keep it, or give back what may not be had."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from nexlet_sandboxes.language.modules.own import is_own_class
from nexlet_sandboxes.language.modules.proxies import Sealed

__all__ = ["Type", "final", "get_args", "get_origin", "overload", "override", "runtime_checkable"]

T = TypeVar("T")


def final(f: T) -> T:
    """Says that a method may not be overridden or a class not be subclassed. For type checkers."""
    return f


def override(method: T, /) -> T:
    """Says that a method overrides one of a base class. For type checkers."""
    return method


def overload(func: Callable[..., Any]) -> Callable[..., NoReturn]:
    """Decorates one signature of several of a function. The implementation comes last, undecorated."""

    def overloaded(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("an overloaded function needs an implementation after its overloads")

    return overloaded


def runtime_checkable(cls: T) -> T:
    """Lets `isinstance` look at whether an object has the methods of a protocol.

    Raises:
        TypeError: the class is not one of the function's own, or no protocol.
    """
    if not is_own_class(cls):
        raise TypeError("runtime_checkable() is for protocols that the function defines itself")
    return typing.runtime_checkable(cls)  # type: ignore[type-var]  # the line above says what it is


class _TypeOf(Sealed):
    """`Type` and `Type[C]` in annotations. The real one, used as a base class, would be a way to make metaclasses."""

    __slots__ = ()

    def __getitem__(self, parameters: object) -> Any:
        return Any

    def __or__(self, other: Any) -> Any:
        return Any | other

    __ror__ = __or__

    def __repr__(self) -> str:
        return "typing.Type"


Type = _TypeOf()


def get_origin(tp: Any) -> Any:
    """What a parametrised type is made from: `list` for `list[int]`; None where it is not parametrised."""
    origin = typing.get_origin(tp)
    return None if _makes_classes(origin) else origin


def get_args(tp: Any) -> tuple[Any, ...]:
    """What a parametrised type is made with: `(int,)` for `list[int]`; a name in quotes comes as a string."""
    return tuple(_argument(arg) for arg in typing.get_args(tp))


def _argument(arg: Any) -> Any:
    if isinstance(arg, typing.ForwardRef):  # from Python 3.14 on one can be asked to evaluate itself
        return arg.__forward_arg__
    return Any if _makes_classes(arg) else arg


def _makes_classes(value: object) -> bool:
    """Whether `value` is `type` or of its kind: those make classes with any methods at all."""
    return isinstance(value, type) and issubclass(value, type)
