"""Fields as a person names them, of headers and of JSON.

A single name means headers of that name, and JSON fields of that name wherever they are, however it is written:
`accessToken`, `access_token` and `Access-Token` are one. A dotted path means one place, from the root of a JSON message
or answer. In it `*` stands for any name, and lists are looked through: `items.card` is the card of each item, and
`items.0.card` that of the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Fields", "Paths", "below", "plain_name", "within"]

Paths = Sequence[tuple[str, ...]]

_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Fields:
    """Some fields.

    Attributes:
        given: as they were named.
        paths: those that are one place.
    """

    def __init__(self, given: Sequence[str]) -> None:
        """
        Raises:
            ValueError: one is empty, or has an empty part.
        """
        self.given = tuple(given)
        self.paths: list[tuple[str, ...]] = []
        self._names: set[str] = set()
        for field in self.given:
            parts = tuple(field.split("."))
            if not all(part.strip() for part in parts):
                raise ValueError(f"'{field}' is no field: write a name, or names with dots between them")
            if len(parts) == 1:
                self._names.add(plain_name(field))
            else:
                self.paths.append(parts)

    def named(self, name: str) -> bool:
        """Whether a header or a JSON field is meant by its name alone."""
        return bool(self._names) and plain_name(name) in self._names

    def without(self, value: Any) -> Any:
        """A JSON value without these fields; an element of a list that is meant by its number becomes null."""
        return self._without(value, self.paths)

    def _without(self, value: Any, paths: Paths) -> Any:
        if isinstance(value, dict):
            kept = {}
            for name, each in value.items():
                rest, meant = below(paths, name)
                if not meant and not self.named(name):
                    kept[name] = self._without(each, rest)
            return kept
        if isinstance(value, list):
            items = []
            for index, each in enumerate(value):
                rest, meant = within(paths, index)
                items.append(None if meant else self._without(each, rest))
            return items
        return value


def below(paths: Paths, name: str) -> tuple[Paths, bool]:
    """What is left of the paths for an object's field, and whether one of them means the field itself."""
    rest = [path[1:] for path in paths if path[0] in ("*", name)]
    return [path for path in rest if path], () in rest


def within(paths: Paths, index: int) -> tuple[Paths, bool]:
    """The same for an element of a list, which is looked through or counted."""
    counted = [path[1:] for path in paths if path[0] in ("*", str(index))]
    return [*paths, *(path for path in counted if path)], () in counted


def plain_name(name: str) -> str:
    """A name in the one form that all ways of writing it have: `access-token`."""
    return re.sub(r"[ _]", "-", _CAPITAL.sub("-", name.strip())).lower()
