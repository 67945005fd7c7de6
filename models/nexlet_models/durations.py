"""Durations as Go writes them, `300ms` or `1m30s`, to and from seconds.

The rules are those of `time.ParseDuration` and `Duration.String` in Go's standard library, counted in whole
nanoseconds, because the text goes to and comes from Go programs.
"""

from __future__ import annotations

import re
from fractions import Fraction

from nexlet_models.errors import InvalidDuration

__all__ = ["format_duration", "parse_duration"]

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_LONGEST_TEXT = 64
_ADVICE = "write it as 300ms, 5s or 1m30s"
_LONGEST = 2**63 - 1  # nanoseconds: Go's Duration is a signed 64-bit number


def parse_duration(text: str) -> float:
    """The seconds that a Go duration text stands for: "1m30s" is 90.0. "0" needs no unit; a sign is allowed.

    Raises:
        InvalidDuration: it is no such text, or more than Go can hold (292 years).
    """
    if text in ("0", "+0", "-0"):
        return 0.0
    if len(text) > _LONGEST_TEXT:
        raise InvalidDuration(f"a text of {len(text)} characters is not a duration", _ADVICE)
    unsigned = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    nanoseconds = 0
    position = 0
    while position < len(unsigned):
        part = _PART.match(unsigned, position)
        if part is None:
            break
        # Fractions, because what a float makes of 0.3 would be cut to a nanosecond too few.
        nanoseconds += int(Fraction(part[1].rstrip(".") or "0") * _UNITS[part[2]])
        position = part.end()
    if not unsigned or position < len(unsigned):
        if _NUMBER.fullmatch(text):
            raise InvalidDuration(f"{text!r} is a duration without a unit", f"write it as {text}s or {text}ms")
        raise InvalidDuration(f"{text!r} is not a duration", _ADVICE)
    if nanoseconds > _LONGEST:
        raise InvalidDuration(f"{text!r} is longer than the 292 years that a duration can hold", _ADVICE)
    return (-nanoseconds if text.startswith("-") else nanoseconds) / 1_000_000_000


def format_duration(seconds: float) -> str:
    """Seconds as Go prints a duration: 90 is "1m30s", 0.3 is "300ms", 0 is "0s".

    Raises:
        InvalidDuration: it is no finite number, or more than Go can hold.
    """
    try:
        total = round(seconds * 1_000_000_000)
    except (ValueError, OverflowError):
        raise InvalidDuration(f"{seconds} seconds are no duration", "give a finite number") from None
    sign, total = ("-", -total) if total < 0 else ("", total)
    if total > _LONGEST:
        raise InvalidDuration(f"{seconds} seconds are more than a duration can hold", "292 years is the most")
    if total == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if total < size * 1000:
            return f"{sign}{_decimal(total, size)}{unit}"
    minutes, rest = divmod(total, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(count: int, size: int) -> str:
    """`count / size` exactly, `size` being a power of ten, without trailing zeros."""
    whole, rest = divmod(count, size)
    digits = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
