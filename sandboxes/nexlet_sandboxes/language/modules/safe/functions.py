"""The parts of `functools` and `abc` that write to what they are given, held to what is the author's own."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from nexlet_sandboxes.language.modules.own import is_own_class, is_own_function
from nexlet_sandboxes.language.modules.proxies import Sealed

__all__ = ["abstractmethod", "cached_property", "singledispatch", "total_ordering", "update_wrapper", "wraps"]

F = TypeVar("F", bound=Callable[..., Any])


def update_wrapper(wrapper: F, wrapped: Callable[..., Any]) -> F:
    """Makes `wrapper` look like `wrapped`: its name and docstring.

    Raises:
        TypeError: `wrapper` is not a function that the function's source defines.
    """
    if not is_own_function(wrapper):
        raise TypeError("wraps() and update_wrapper() are for functions that the function's source defines")
    for attribute in ("__name__", "__qualname__", "__doc__"):
        value = getattr(wrapped, attribute, None)
        if type(value) is str:
            setattr(wrapper, attribute, value)
    return wrapper


def wraps(wrapped: Callable[..., Any]) -> Callable[[F], F]:
    """Decorator for a wrapper function: gives it the name and docstring of the function it wraps."""

    def decorate(wrapper: F) -> F:
        return update_wrapper(wrapper, wrapped)

    return decorate


def abstractmethod(funcobj: F) -> F:
    """Marks a method that subclasses must define; for classes derived from `abc.ABC`.

    Raises:
        TypeError: it is not a function that the function's source defines.
    """
    if not is_own_function(funcobj):
        raise TypeError("@abstractmethod is for methods that the function's source defines; write it below @property")
    return abc.abstractmethod(funcobj)


class cached_property(Sealed):
    """A property that is computed once for each instance and is a plain attribute from then on.

    The standard one can be told, after the fact, to write any attribute at all.
    """

    __slots__ = ("__func", "__name")
    __func: Callable[[Any], Any]
    __name: str | None

    def __init__(self, func: Callable[[Any], Any]) -> None:
        object.__setattr__(self, "_cached_property__func", func)
        object.__setattr__(self, "_cached_property__name", None)

    def __set_name__(self, owner: type, name: str) -> None:
        if self.__name is None:
            object.__setattr__(self, "_cached_property__name", name)
        elif self.__name != name:
            raise TypeError(f"one cached_property cannot have two names, {self.__name!r} and {name!r}")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.__name is None:
            raise TypeError("a cached_property is defined in the body of a class")
        value = self.__func(instance)
        vars(instance)[self.__name] = value
        return value

    def __repr__(self) -> str:
        return f"<cached_property {self.__name}>"


def total_ordering(cls: type) -> type:
    """Class decorator that fills in the missing ordering methods.

    Raises:
        TypeError: the class is not one of the function's own.
        ValueError: it defines none of `__lt__`, `__le__`, `__gt__`, `__ge__`.
    """
    if not is_own_class(cls):
        raise TypeError("total_ordering() is for classes that the function defines itself")
    return functools.total_ordering(cls)


class singledispatch(Sealed):
    """A function that behaves differently by the type of its first argument.

    `register` takes the class as an argument: the standard form that reads it from the annotation evaluates strings.
    """

    __slots__ = ("__inner",)
    __inner: Any

    def __init__(self, func: Callable[..., Any]) -> None:
        if not callable(func):
            raise TypeError("singledispatch() needs a function")
        object.__setattr__(self, "_singledispatch__inner", functools.singledispatch(lambda *a, **k: func(*a, **k)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not args:
            raise TypeError("a singledispatch function needs at least 1 positional argument")
        return self.__inner(*args, **kwargs)

    def __repr__(self) -> str:
        return "<singledispatch function>"

    def register(self, cls: type, func: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """Registers the implementation for a class: `@fun.register(int)`, or `fun.register(int, implementation)`.

        Raises:
            TypeError: no class was named.
        """
        if not isinstance(cls, type):
            raise TypeError("name the class: @fun.register(int), annotations are not read")
        if func is None:
            return lambda given: self.register(cls, given)
        if not callable(func):
            raise TypeError("register() needs a function")
        self.__inner.register(cls, func)
        return func

    def dispatch(self, cls: type) -> Callable[..., Any]:
        """The implementation that an argument of this class gets."""
        found: Callable[..., Any] = self.__inner.dispatch(cls)
        return found


for _kind in (cached_property, singledispatch):
    _kind.__module__ = "functools"
