"""`attrgetter` and `methodcaller`, which read attributes by name, held to the names that source may say."""

from __future__ import annotations

from typing import Any

from nexlet_sandboxes.language.modules.own import plain_text
from nexlet_sandboxes.language.modules.proxies import Sealed
from nexlet_sandboxes.language.names import GUARDED_ATTRIBUTES, attribute_refusal

__all__ = ["attrgetter", "methodcaller"]


class attrgetter(Sealed):
    """A callable that reads the given attributes: `attrgetter("name", "address.city")`."""

    __slots__ = ("__paths",)
    __paths: tuple[tuple[str, ...], ...]

    def __init__(self, attr: str, /, *attrs: str) -> None:
        paths = tuple(tuple(plain_text(name, "attribute name").split(".")) for name in (attr, *attrs))
        for path in paths:
            for name in path:
                _allow(name)
        object.__setattr__(self, "_attrgetter__paths", paths)

    def __call__(self, obj: Any, /) -> Any:
        found = []
        for path in self.__paths:
            value = obj
            for name in path:
                value = getattr(value, name)
            found.append(value)
        return found[0] if len(found) == 1 else tuple(found)

    def __repr__(self) -> str:
        return f"operator.attrgetter({', '.join(repr('.'.join(path)) for path in self.__paths)})"


class methodcaller(Sealed):
    """A callable that calls the given method: `methodcaller("split", ",")`."""

    __slots__ = ("__arguments", "__name", "__options")
    __name: str
    __arguments: tuple[Any, ...]
    __options: dict[str, Any]

    def __init__(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        _allow(plain_text(name, "method name"))
        object.__setattr__(self, "_methodcaller__name", name)
        object.__setattr__(self, "_methodcaller__arguments", args)
        object.__setattr__(self, "_methodcaller__options", kwargs)

    def __call__(self, obj: Any, /) -> Any:
        return getattr(obj, self.__name)(*self.__arguments, **self.__options)

    def __repr__(self) -> str:
        return f"operator.methodcaller({self.__name!r}, ...)"


def _allow(name: str) -> None:
    reason = attribute_refusal(name)
    if reason is None and name in GUARDED_ATTRIBUTES:
        reason = "this attribute can only be read where the source names it"
    if reason is not None:
        raise AttributeError(f"{name!r}: {reason}")
