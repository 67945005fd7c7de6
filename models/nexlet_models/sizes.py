"""Sizes with a unit, `64MiB`, to and from bytes.

The unit is required and its case counts: a bare number leaves open what it counts, and `mb` could be meant as anything
from a millibit up. `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024, `kB`, `MB`, `GB`, `TB` powers of 1000 (IEC 80000-13).
"""

from __future__ import annotations

import re
from fractions import Fraction

from nexlet_models.errors import InvalidSize

__all__ = ["format_size", "parse_size"]

_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_BY_LOWER_CASE = {
    unit.lower(): unit for unit in ("B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")
} | {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB", "ki": "KiB", "mi": "MiB", "gi": "GiB", "ti": "TiB"}  # fmt: skip
_SIZE = re.compile(r"([-+]?)(\d{1,19}(?:\.\d{1,18})?)([A-Za-z]*)", re.ASCII)
_LARGEST = 2**63 - 1
_ADVICE = "write it as 64MiB, 900kB or 512B"


def parse_size(text: str) -> int:
    """The bytes that a text such as "64MiB", "1.5GiB" or "900kB" stands for. "0" needs no unit.

    Raises:
        InvalidSize: no such text, a negative one, no whole number of bytes, or more than 2**63 - 1.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidSize(f"{text[:64]!r} is not a size", _ADVICE)
    sign, number, unit = found.groups()
    if sign == "-":
        raise InvalidSize(f"{text!r} is negative", "a size is 0 or more, such as 64MiB")
    amount = Fraction(number)
    if not unit:
        if amount == 0:
            return 0
        raise InvalidSize(f"{text!r} is a size without a unit", f"write it as {number}MiB, {number}kB or {number}B")
    if unit not in _UNITS:
        meant = _BY_LOWER_CASE.get(unit.lower())
        hint = f"write it as {number}{meant}" if meant else "units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"
        raise InvalidSize(f"{text!r} has the unknown unit '{unit}'", hint)
    size = amount * _UNITS[unit]
    if size.denominator != 1:
        raise InvalidSize(f"{text!r} is no whole number of bytes", _ADVICE)
    if size > _LARGEST:
        raise InvalidSize(f"{text!r} is larger than the {_LARGEST} bytes that a size can be", _ADVICE)
    return int(size)


def format_size(size: int) -> str:
    """Bytes with the largest unit that divides them: 67108864 is "64MiB", 1000 is "1000B".

    Raises:
        InvalidSize: it is negative.
    """
    if size < 0:
        raise InvalidSize(f"{size} bytes are no size", "a size is 0 or more")
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"
