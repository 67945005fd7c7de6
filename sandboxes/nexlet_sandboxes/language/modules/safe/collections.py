"""`namedtuple` without the argument that would let a class claim to come from another module."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from nexlet_sandboxes.language.modules.own import plain_text
from nexlet_sandboxes.language.names import MAIN_MODULE

__all__ = ["namedtuple"]


def namedtuple(
    typename: str, field_names: str | Iterable[str], *, rename: bool = False, defaults: Iterable[object] | None = None
) -> type:
    """Returns a new subclass of tuple with named fields.

    Raises:
        ValueError: a name is no identifier, is a keyword, begins with an underscore, or is there twice.
        TypeError: a name is not exactly a `str`.
    """
    if not isinstance(field_names, str):
        field_names = [plain_text(name, "a field name") for name in field_names]
    else:
        field_names = plain_text(field_names, "field_names")
    return collections.namedtuple(
        plain_text(typename, "typename"), field_names, rename=bool(rename), defaults=defaults, module=MAIN_MODULE
    )
