"""How bytes stand in a sample event: as `json` where that says the same, else as text, else as base64.

A message is given to the function again, so that it has to be the same to it: numbers that JSON's reading would change
(`1.10`, `1e400`), names that come twice, and messages that were signed are kept as the text they were.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from nexlet_functions.recording.masks import Masks

__all__ = ["body_as", "event_text", "message_as"]

_SIGNED: Final = re.compile(r"signature|hmac|digest|content-md5", re.I)
"""In a header's name: it is about the very bytes."""


def event_text(event: Mapping[str, Any]) -> bytes:
    """The file, as a person would write it."""
    return (json.dumps(event, ensure_ascii=False, indent=2) + "\n").encode()


def message_as(masks: Masks, payload: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A message's payload under its key, masked, and the places that were."""
    if not payload:
        return {}, []
    signed = any(_SIGNED.search(name) for name in headers)
    return _as(masks, payload, "data", "", exact=signed)


def body_as(masks: Masks, body: bytes) -> tuple[dict[str, Any], list[str]]:
    """An answer's body under its key in `expect`, masked, and the places that were."""
    return _as(masks, body, "text", "expect.", exact=False)


def _as(masks: Masks, data: bytes, text_key: str, prefix: str, *, exact: bool) -> tuple[dict[str, Any], list[str]]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        kept = masks.data(data)
        masked = [f"{prefix}base64"] if kept != data else []
        return {"base64": base64.b64encode(kept).decode()}, masked
    try:
        value, same = _read(text)
    except (ValueError, RecursionError):
        pass
    else:
        kept_value, masked = masks.json(value, f"{prefix}json")
        # What is masked is another message in any case; then rather one that keeps its fields.
        if masked or (same and not exact):
            return {"json": kept_value}, masked
    kept_text = masks.text(text)
    return {text_key: kept_text}, [f"{prefix}{text_key}"] if kept_text != text else []


def _read(text: str) -> tuple[Any, bool]:
    """A JSON value, and whether it says all that the text does.

    Raises:
        ValueError: it is none.
    """
    same = True

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal same
        read = dict(pairs)
        same = same and len(read) == len(pairs)
        return read

    def number(digits: str) -> float:
        nonlocal same
        read = float(digits)
        same = same and repr(read) == digits
        return read

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    value = json.loads(text, object_pairs_hook=table, parse_float=number, parse_constant=constant)
    json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair can be escaped, but not written
    return value, same
