"""Two JSON values side by side: what is otherwise than expected, a line for each place.

JSON's kinds are kept apart (`true` is not 1, but 1 is 1.0), the order of an object's names does not matter, and where a
value was masked when it was recorded, `***` stands for anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, Final

__all__ = ["MASK", "compact", "json_differences", "matches_masked"]

MASK: Final = "***"
"""What stands in the place of a text that is not to be kept."""

_MOST: Final = 20
_SHOWN: Final = 200


def json_differences(expected: Any, got: Any, *, at: str, masked: Collection[str] = ()) -> list[str]:
    """What is different, a line each; at the end a line for those that are too many to be read.

    Args:
        at: what places begin with: `json` makes `json.items.0.price`.
        masked: places where anything will do; of a text, what is around its `***` has to fit.
    """
    found = _differences(expected, got, at, masked)
    lines = list(islice(found, _MOST))
    more = sum(1 for _ in found)
    return [*lines, f"{at}: {more} more differences"] if more else lines


def matches_masked(expected: str, got: str) -> bool:
    """Whether a text is the expected one, in which `***` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, expected.split(MASK))), got, re.S) is not None


def compact(value: object) -> str:
    """JSON in one line, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _differences(expected: Any, got: Any, at: str, masked: Collection[str]) -> Iterator[str]:
    if at in masked:
        if isinstance(expected, str) and isinstance(got, str) and not matches_masked(expected, got):
            yield f"{at}: expected {_shown(expected)}, got {_shown(got)}"
    elif _kind(expected) != _kind(got):
        yield f"{at}: expected {_shown(expected)}, got {_shown(got)}"
    elif isinstance(expected, dict):
        for name, value in expected.items():
            if name in got:
                yield from _differences(value, got[name], f"{at}.{name}", masked)
            else:
                yield f"{at}.{name}: missing, expected {_shown(value)}"
        for name, value in got.items():
            if name not in expected:
                yield f"{at}.{name}: not expected, got {_shown(value)}"
    elif isinstance(expected, list):
        for index, (one, other) in enumerate(zip(expected, got, strict=False)):
            yield from _differences(one, other, f"{at}.{index}", masked)
        if len(expected) != len(got):
            yield f"{at}: expected {len(expected)} elements, got {len(got)}"
    elif expected != got:
        yield f"{at}: expected {_shown(expected)}, got {_shown(got)}"


def _kind(value: Any) -> type:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float
    return type(value)


def _shown(value: Any) -> str:
    text = compact(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
