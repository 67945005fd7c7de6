"""How bytes stand in a sample event: as `json` where that says the same, else as text, else as base64.

A message is given to the function again, so that it has to be the same to it: numbers that JSON's reading would change
(`1.10`, `1e400`), names that come twice, and messages that were signed are kept as the text they were. Where something
in them is to be masked they are kept as JSON all the same, or not at all.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from nexlet_functions.recording.masks import Masks, Repeated

__all__ = ["NotKept", "body_as", "event_text", "message_as"]

_TOO_DEEP: Final = "JSON that is nested too deep to be masked"

_SIGNED: Final = re.compile(r"signature|hmac|digest|content-md5", re.I)
"""In a header's name: it is about the very bytes."""


class NotKept(Exception):
    """What can neither be kept as it is nor masked; the text says why."""


def event_text(event: Mapping[str, Any]) -> bytes:
    """The file, as a person would write it."""
    return (json.dumps(event, ensure_ascii=False, indent=2) + "\n").encode()


def message_as(masks: Masks, payload: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A message's payload under its key, masked, and the places that were.

    Raises:
        NotKept: it cannot be.
    """
    if not payload:
        return {}, []
    signed = any(_SIGNED.search(name) for name in headers)
    return _as(masks, payload, "data", "", exact=signed)


def body_as(masks: Masks, body: bytes) -> tuple[dict[str, Any], list[str]]:
    """An answer's body under its key in `expect`, masked, and the places that were.

    Raises:
        NotKept: it cannot be.
    """
    return _as(masks, body, "text", "expect.", exact=False)


def _as(masks: Masks, data: bytes, text_key: str, prefix: str, *, exact: bool) -> tuple[dict[str, Any], list[str]]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        kept = masks.data(data)
        masked = [f"{prefix}base64"] if kept != data else []
        return {"base64": base64.b64encode(kept).decode()}, masked
    try:
        value, same, sayable = _read(text)
    except RecursionError:
        raise NotKept(_TOO_DEEP) from None
    except ValueError:
        pass
    else:
        try:
            kept_value, masked = masks.json(value, f"{prefix}json")
        except RecursionError:
            raise NotKept(_TOO_DEEP) from None
        if masked and not sayable:
            raise NotKept("something to be masked in JSON that no sample event could say")
        # What is masked is another message in any case; then rather one that keeps its fields.
        if sayable and (masked or (same and not exact)):
            return {"json": kept_value}, masked
    kept_text = masks.text(text)
    return {text_key: kept_text}, [f"{prefix}{text_key}"] if kept_text != text else []


def _read(text: str) -> tuple[Any, bool, bool]:
    """A JSON value, whether it says all that the text does, and whether it can be written again.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep to be read.
    """
    same = sayable = True

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal same
        read = dict(pairs)
        if len(read) != len(pairs):
            same = False
            return Repeated(pairs)
        return read

    def number(digits: str) -> float:
        nonlocal same
        read = float(digits)
        same = same and repr(read) == digits
        return read

    def constant(name: str) -> None:
        nonlocal sayable
        sayable = False  # NaN: others read it, but it is no JSON

    value = json.loads(text, object_pairs_hook=table, parse_float=number, parse_constant=constant)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        sayable = False  # half of a surrogate pair can be escaped, but not written
    return value, same, sayable
