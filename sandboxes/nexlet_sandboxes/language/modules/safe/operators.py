"""`attrgetter` and `methodcaller`, which read attributes by name, held to the names that source may say.

What they make are the standard library's own callables, once the names have been looked at: those cannot be changed,
and put no frame of ours between the author's code and what it calls.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from nexlet_sandboxes.language.modules.own import plain_text
from nexlet_sandboxes.language.names import GUARDED_ATTRIBUTES, attribute_refusal

__all__ = ["attrgetter", "methodcaller"]


def attrgetter(attr: str, /, *attrs: str) -> Callable[[Any], Any]:
    """A callable that reads the given attributes: `attrgetter("name", "address.city")`."""
    for path in (attr, *attrs):
        for name in plain_text(path, "attribute name").split("."):
            _allow(name)
    return operator.attrgetter(attr, *attrs)


def methodcaller(name: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    """A callable that calls the given method: `methodcaller("split", ",")`."""
    _allow(plain_text(name, "method name"))
    return operator.methodcaller(name, *args, **kwargs)


def _allow(name: str) -> None:
    reason = attribute_refusal(name)
    if reason is None and name in GUARDED_ATTRIBUTES:
        reason = "this attribute can only be read where the source names it"
    if reason is not None:
        raise AttributeError(f"{name!r}: {reason}")
