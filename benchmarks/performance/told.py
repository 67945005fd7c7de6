"""Figures that were read from a file, so that what is missing there is named by its place.

A file of figures may be of another version of a benchmark, or written by hand. `Told` is a value in it together with
the way to it; whoever asks it for something that is not there gets a `Malformed` that says where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Malformed", "Told"]


class Malformed(ValueError):
    """Something is missing, or is of another kind."""


@dataclass(frozen=True, slots=True)
class Told:
    """A value, and where it stands.

    Attributes:
        value: as `json` read it.
        place: the way to it: `throughput[0].ratio`.
    """

    value: Any
    place: str

    def __getitem__(self, key: str) -> Told:
        """What an object has under this name.

        Raises:
            Malformed: it is no object, or has nothing of that name.
        """
        if key not in self.fields():
            raise Malformed(f"{self.place} has no '{key}'")
        return Told(self.value[key], f"{self.place}.{key}")

    def __contains__(self, key: str) -> bool:
        return key in self.fields()

    def fields(self) -> Mapping[str, Any]:
        """It as an object.

        Raises:
            Malformed: it is none.
        """
        if not isinstance(self.value, dict):
            raise Malformed(f"{self.place} is no object")
        return self.value

    def each(self) -> Iterator[Told]:
        """What a list holds.

        Raises:
            Malformed: it is no list.
        """
        if not isinstance(self.value, list):
            raise Malformed(f"{self.place} is no list")
        for at, one in enumerate(self.value):
            yield Told(one, f"{self.place}[{at}]")

    def where(self, **fields: object) -> Told:
        """The first object of a list that has these fields with these values.

        Raises:
            Malformed: there is none.
        """
        for one in self.each():
            if all(name in one and one.value[name] == value for name, value in fields.items()):
                return one
        wanted = ", ".join(f"{name} {value!r}" for name, value in fields.items())
        raise Malformed(f"{self.place} has nothing with {wanted}")

    def number(self) -> float:
        """It as a number.

        Raises:
            Malformed: it is none, or none that can be measured.
        """
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise Malformed(f"{self.place} is no number")
        return float(self.value)

    def number_or_none(self) -> float | None:
        """It as a number; None where nothing could be looked at.

        Raises:
            Malformed: it is something else.
        """
        return None if self.value is None else self.number()

    def text(self) -> str:
        """It as a text.

        Raises:
            Malformed: it is none.
        """
        if not isinstance(self.value, str):
            raise Malformed(f"{self.place} is no text")
        return self.value
