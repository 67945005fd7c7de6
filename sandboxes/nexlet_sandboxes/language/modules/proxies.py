"""The module objects a function sees: a name, a fixed set of values, and nothing else.

Real modules lead everywhere (`json.codecs.builtins`, `random._os`), so none is ever handed out. A `ModuleProxy` holds
vetted values in slots: reading one costs what reading an attribute of any slotted object costs, there is no instance
dictionary to reach, and neither the proxy nor its class can be written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

__all__ = ["ModuleProxy", "Sealed", "make_proxy"]


class Sealed:
    """A base for objects that functions hold and may use, but neither change nor copy."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:  # what both copy and pickle ask
        raise TypeError(f"{self!r} cannot be copied")


class ModuleProxy(Sealed):
    """The base of every module proxy; `make_proxy` makes the class and the one instance of each module."""

    __slots__ = ("__module_name",)
    __module_name: str

    def __repr__(self) -> str:
        return f"<module {self.__module_name!r}>"

    def __dir__(self) -> list[str]:
        return sorted(type(self).__slots__)


def _absent(module: str, name: str, advice: str) -> property:
    def absent(proxy: object) -> NoReturn:
        raise AttributeError(f"module {module!r} gives no {name!r} here: {advice}")

    return property(absent)


_NAME = ModuleProxy.__dict__["_ModuleProxy__module_name"]


def make_proxy(
    name: str, values: Mapping[str, object], missing: Mapping[str, str] = MappingProxyType({})
) -> ModuleProxy:
    """An immutable module of the given name.

    Args:
        name: as in the import statement, "urllib.parse" included.
        values: what it gives, by name. They are read once: the proxy does not follow later changes of the mapping.
        missing: names that authors may look for and not find, with the advice that the AttributeError gives.

    Raises:
        ValueError: a name is not an identifier, or is one that the proxy's own machinery needs (`__x__`).
    """
    for given in values:
        if not given.isidentifier() or (given.startswith("__") and given.endswith("__")):
            raise ValueError(f"{given!r} cannot be a name of module {name!r}")
    # The class's name is what an AttributeError shows: "'json module' object has no attribute 'x'".
    absent = {given: _absent(name, given, advice) for given, advice in missing.items() if given not in values}
    own = type(f"{name} module", (ModuleProxy,), {"__slots__": tuple(values), "__module__": "builtins", **absent})
    made: ModuleProxy = object.__new__(own)
    _NAME.__set__(made, name)
    for given, value in values.items():
        object.__setattr__(made, given, value)
    return made
