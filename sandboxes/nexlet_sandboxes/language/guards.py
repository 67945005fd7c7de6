"""What an author's code finds without an import: Python's builtins as far as they are safe, and the policy's guards.

`builtins(host)` makes the dictionary that the author's modules run with. Guards have names that begin with `_`, so an
author can neither call nor replace them. Each looks at `type(x)`: about `x.__class__` an object may lie.
"""

from __future__ import annotations

import abc
import builtins as python
import decimal
import inspect
import re
import secrets
import string
import sys
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

from nexlet_sandboxes.language.host import Host
from nexlet_sandboxes.language.modules.own import is_own_class
from nexlet_sandboxes.language.names import GUARDED_ATTRIBUTES, REFUSED_ATTRIBUTES, is_private
from nexlet_sandboxes.texts import text_of

__all__ = ["Importer", "Own", "OwnClasses", "builtins", "class_name"]

Importer = Callable[
    [str, Mapping[str, object] | None, Mapping[str, object] | None, tuple[str, ...] | None, int], object
]
"""Python's `__import__`: name, globals, locals, from-list, level."""

_PLAIN: Final = (
    *("False", "True", "None", "Ellipsis", "NotImplemented"),
    *("abs", "all", "any", "ascii", "bin", "bool", "bytearray", "bytes", "callable", "chr", "classmethod", "complex"),
    *(
        "dict",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "format",
        "frozenset",
        "hex",
        "int",
        "isinstance",
        "issubclass",
    ),
    *("iter", "len", "list", "map", "max", "min", "next", "object", "oct", "ord", "pow", "property", "range"),
    *("reversed", "round", "set", "slice", "sorted", "staticmethod", "str", "sum", "super", "tuple", "zip"),
)
_EXCEPTIONS: Final = tuple(
    name
    for name, value in vars(python).items()
    # Groups are left out together with `except*`, which they are for.
    if isinstance(value, type) and issubclass(value, BaseException) and not name.endswith("ExceptionGroup")
)

WRITABLE: Final = frozenset({dict, list, bytearray, defaultdict, OrderedDict, Counter, deque, ChainMap})
"""Containers whose items may be assigned. None of them is shared: what trusted code holds is never handed out."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_FORMATS: Final = frozenset({"format", "format_map"})
_NO_FIELDS: Final = {str: _FORMATS, AttributeError: frozenset({"obj"})}


class Own:
    """The base of each class of an author's that names no other: it gives a `repr` that tells no address."""

    __slots__ = ()
    __module__ = "builtins"

    def __repr__(self) -> str:
        if not isinstance(self, Own):
            return repr(self)  # Enum calls the method it finds on a mixed-in class with a member's value
        return _ADDRESS.sub("", super().__repr__())


def class_name(value: object) -> str:
    """`type(value).__name__`, also where the class is the author's."""
    return _TYPE_NAME(type(value))


def _name(value: object) -> str:
    """`value.__name__`, of a function, a class or whatever else has one: a text, or it is not there."""
    name = getattr(value, "__name__", None)
    if type(name) is not str:
        raise AttributeError(f"{class_name(value)!r} object has no attribute '__name__'")
    return name


_TYPE_NAME: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


# Attributes.


def _read(value: object, name: str) -> Any:
    """`value.name` for the names in `GUARDED_ATTRIBUTES`."""
    if name == "obj" and isinstance(value, AttributeError):
        raise AttributeError("the attribute 'obj' of an AttributeError is out of reach; its text says what it was")
    found = getattr(value, name)
    if name == "register" and getattr(found, "__func__", None) is abc.ABCMeta.register:
        raise AttributeError("classes are not registered with abstract ones here; derive from the abstract class")
    if name == "groupindex" and type(found) is types.MappingProxyType:
        return dict(found)
    if name in _FORMATS:
        # It is what was found that counts: there are many ways to get at it (an instance, a subclass, super()).
        if isinstance(found, types.BuiltinMethodType) and isinstance(found.__self__, str):
            text = str.__str__(found.__self__)
            return _bound_format(text) if found.__name__ == "format" else _bound_map(text)
        if found is str.format:
            return _formatted
        if found is str.format_map:
            return _format_mapped
    return found


def _attribute(value: object, name: object, allowed: str) -> str:
    if type(name) is not str:
        raise TypeError(f"{allowed}: attribute name must be a string")
    return name


def _refused(name: str) -> bool:
    return is_private(name) or name in REFUSED_ATTRIBUTES


_MISSING: Final = object()


def _getattr(value: object, name: str, default: object = _MISSING, /) -> Any:
    """getattr(object, name[, default]): names that begin with '_' are never there."""
    name = _attribute(value, name, "getattr()")
    if not _refused(name):
        try:
            return _read(value, name) if name in GUARDED_ATTRIBUTES else getattr(value, name)
        except AttributeError:
            if default is _MISSING:
                raise
            return default
    if default is _MISSING:
        raise AttributeError(f"attribute {name!r} is out of reach")
    return default


def _hasattr(value: object, name: str, /) -> bool:
    """hasattr(object, name): names that begin with '_' are never there."""
    return _getattr(value, name, _MISSING_TOO) is not _MISSING_TOO


_MISSING_TOO: Final = object()


def _setattr(value: object, name: str, item: object, /) -> None:
    """setattr(object, name, value), for instances of your own classes."""
    name = _attribute(value, name, "setattr()")
    if _refused(name):
        raise AttributeError(f"attribute {name!r} is out of reach")
    setattr(_write(value), name, item)


def _delattr(value: object, name: str, /) -> None:
    """delattr(object, name), for instances of your own classes."""
    name = _attribute(value, name, "delattr()")
    if _refused(name):
        raise AttributeError(f"attribute {name!r} is out of reach")
    delattr(_write(value), name)


def _write(value: object) -> Any:
    """`value`, whose attribute is about to be written, if it is an instance of an own class.

    Or a decimal context, `getcontext().prec = 50`: it says how this worker counts, as `setcontext` does.
    """
    if is_own_class(type(value)) or type(value) is decimal.Context:
        return value
    if isinstance(value, type):
        raise TypeError(
            f"attributes of classes cannot be written (class {_TYPE_NAME(value)}); write to an instance, or keep a dict"
        )
    raise TypeError(
        f"attributes of a {class_name(value)} cannot be written; only those of instances of your own classes"
    )


def _item(value: object) -> Any:
    """`value`, whose item is about to be written, if it is a container or an instance of an own class."""
    if type(value) in WRITABLE or is_own_class(type(value)):
        return value
    raise TypeError(f"items of {class_name(value)} objects cannot be written")


def _matched(value: object) -> Any:
    """`value`, a class that stands in a pattern with positional parts, if those mean harmless attributes."""
    if isinstance(value, type):
        for name in getattr(value, "__match_args__", ()):
            if type(name) is not str or _refused(name) or name in GUARDED_ATTRIBUTES:
                raise TypeError(
                    f"attribute {name!r} is not available in a pattern; name the others: {_TYPE_NAME(value)}(x=x)"
                )
    return value


# Formatting.


class _Formatter(string.Formatter):
    """`str.format` without its walk through attributes and items."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        if "." in field_name or "[" in field_name:
            raise ValueError(
                f"format field {field_name!r}: attributes and items are not available in a format string; "
                "use an f-string, or format values only"
            )
        key: int | str = int(field_name) if field_name.isdecimal() else field_name
        return self.get_value(key, args, kwargs), key

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        if isinstance(key, int):
            if key >= len(args):
                raise IndexError(f"Replacement index {key} out of range for positional args tuple")
            return args[key]
        return kwargs[key]


_FORMATTER: Final = _Formatter()


def _formatted(text: str, /, *args: object, **kwargs: object) -> str:
    """str.format(text, ...): formats values, reaches no attribute of them."""
    if not isinstance(text, str):
        raise TypeError(f"descriptor 'format' for 'str' objects doesn't apply to a '{class_name(text)}' object")
    return _FORMATTER.vformat(str.__str__(text), args, kwargs)


def _format_mapped(text: str, mapping: Mapping[str, object], /) -> str:
    """str.format_map(text, mapping): formats values, reaches no attribute of them."""
    if not isinstance(text, str):
        raise TypeError(f"descriptor 'format_map' for 'str' objects doesn't apply to a '{class_name(text)}' object")
    return _FORMATTER.vformat(str.__str__(text), (), mapping)


def _bound_format(text: str) -> Callable[..., str]:
    def format(*args: object, **kwargs: object) -> str:  # noqa: A001  # the name the author sees
        """S.format(*args, **kwargs): formats values, reaches no attribute of them."""
        return _FORMATTER.vformat(text, args, kwargs)

    return format


def _bound_map(text: str) -> Callable[[Mapping[str, object]], str]:
    def format_map(mapping: Mapping[str, object], /) -> str:
        """S.format_map(mapping): formats values, reaches no attribute of them."""
        return _FORMATTER.vformat(text, (), mapping)

    return format_map


# Classes.


class _TypeOfType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, python.type)

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        if len(args) == 1:
            raise TypeError("type(value) is not available; isinstance(value, SomeClass) asks what it is")
        raise TypeError("type(name, bases, dict) is not available; write a class statement")

    def __getitem__(cls, item: object) -> types.GenericAlias:
        return types.GenericAlias(cls, item)

    def __repr__(cls) -> str:
        return "<class 'type'>"


class _Type(metaclass=_TypeOfType):
    """`type`, as far as it is there: `isinstance(x, type)` asks for a class, `type[X]` annotates."""

    __slots__ = ()


# Texts and numbers about objects.


def _repr(value: object, /) -> str:
    """repr(value), without memory addresses."""
    text = python.repr(value)
    return _ADDRESS.sub("", text) if " at 0x" in text else text


def _untraced(values: Iterable[object]) -> tuple[object, ...]:
    """What `__exit__(self, *args)` is given, without the traceback."""
    return tuple(None if isinstance(value, types.TracebackType) else value for value in values)


def _refuse_fields(made: type) -> None:
    # Trusted code reads fields by name (dataclasses.asdict, patterns), and no guard stands before that.
    for base, names in _NO_FIELDS.items():
        if issubclass(made, base):
            for kind in made.__mro__:
                for name in names.intersection(inspect.get_annotations(kind)):
                    raise TypeError(
                        f"a class derived from {base.__name__} cannot have a field {name!r}; choose another name"
                    )


class OwnClasses:
    """Makes the author's classes, and remembers most of them.

    Those that are made while the program loads are in a set, which rewritten code looks into without a call. What a
    function makes while it runs is not in it, since the set would keep it for ever: `is_own_class` knows it.

    Attributes:
        known: the set.
        loading: whether classes still come into it.
    """

    __slots__ = ("known", "loading")

    def __init__(self) -> None:
        self.known: set[type] = set()
        self.loading = True

    def build(self, body: Callable[[], object], name: str, /, *bases: object, **keywords: object) -> object:
        """What a class statement calls."""
        if any(isinstance(base, type) and (issubclass(base, type) or base is _Type) for base in bases):
            raise TypeError("metaclasses are not available; a class decorator changes a class after it was made")
        if all(base is object for base in bases):
            bases = (Own,)
        elif object in bases:
            bases = tuple(Own if base is object else base for base in bases)
        made = python.__build_class__(body, name, *bases, **keywords)
        if isinstance(made, type):
            _refuse_fields(made)
            if self.loading:
                self.known.add(made)
        return made


_spare: list[dict[str, object]] = []
"""What all programs have of their builtins, collected ahead for the next one (see `set_aside`)."""


def set_aside() -> None:
    """Collect for the next program what all programs have, now: the last thing before workers are forked.

    Referring to an object writes into it. These lie scattered over Python's memory, and a worker that refers to them
    anew has a third of a megabyte of pages for itself that it could have shared.
    """
    if not _spare:
        _spare.append(_of_all())


def _of_all() -> dict[str, object]:
    return {
        **{name: getattr(python, name) for name in (*_PLAIN, *_EXCEPTIONS)},
        "getattr": _getattr,
        "hasattr": _hasattr,
        "setattr": _setattr,
        "delattr": _delattr,
        "repr": _repr,
        "type": _Type,
        "_attr_": _read,
        "_write_": _write,
        "_item_": _item,
        "_items_": WRITABLE,
        "_type_": type,
        "_class_name_": class_name,
        "_name_": _name,
        "_matched_": _matched,
        "_base_exception_": BaseException,
        "_isinstance_": isinstance,
        "_memory_error_": MemoryError,
        "_untraced_": _untraced,
    }


def builtins(host: Host, importer: Importer, own: OwnClasses) -> dict[str, object]:
    """The builtins of one program: fresh, so that nothing of it is shared with another."""

    def exceeded() -> None:
        host.memory_exceeded = True

    def noticed() -> None:
        if isinstance(sys.exc_info()[1], MemoryError):
            host.memory_exceeded = True

    def print_(
        *values: object, sep: str | None = None, end: str | None = None, file: None = None, flush: bool = False
    ) -> None:
        """print(*values, sep=' ', end='\\n'): writes to the function's log feed."""
        if file is not None:
            raise TypeError("print writes to the log feed; there is no file= to give it")
        for name, value in (("sep", sep), ("end", end)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be None or a string, not {class_name(value)}")
        between, last = " " if sep is None else text_of(sep), "\n" if end is None else text_of(end)
        text = between.join(map(text_of, values)) + last
        host.write("stdout", text)

    salt = secrets.randbits(64)

    def hash_(value: object, /) -> int:
        """hash(value), salted: the plain hash of many objects is where they are in memory."""
        return hash((hash(value), salt))

    hash_.__name__ = hash_.__qualname__ = "hash"
    print_.__name__ = print_.__qualname__ = "print"
    found = _spare.pop() if _spare else _of_all()
    found |= host.builtins
    found |= {
        "print": print_,
        "hash": hash_,
        "__build_class__": own.build,
        "__import__": importer,
        "_exceeded_": exceeded,
        "_noticed_": noticed,
        "_owns_": own.known,
    }
    return found
