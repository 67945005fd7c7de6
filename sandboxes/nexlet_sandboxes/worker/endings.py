"""How an invocation ends, as bytes: return values become replies, exceptions the endings that a RESULT frame names.

What an author returns or raises is theirs to the last attribute: whatever is asked of it may raise, and anything.
"""

from __future__ import annotations

import enum
import math
from typing import Final

import orjson

from nexlet_sandboxes.frames import Ending
from nexlet_sandboxes.language import Loaded
from nexlet_sandboxes.texts import plain_int, text_of
from nexlet_sandboxes.worker.event import HeaderRefused, Reject

__all__ = ["WRITES_JSON", "Said", "Unserialisable", "encode", "raised", "too_large"]

WRITES_JSON: Final = 3
"""The word of the marker that is 1 while JSON is written: where there is no memory for it, orjson ends the process."""

Said = tuple[Ending, int, bytes, bytes]
"""An ending, the code that a `Reject` chose (0 for others), and the two sections of a RESULT frame."""


class Unserialisable(Exception):
    """A return value that is no reply. The text says which, and what to return instead."""


def raised(error: BaseException, loaded: Loaded) -> Said:
    """What an exception of the author's answers."""
    # By type alone: what a class of theirs says that it is does not count.
    kind = type(error)
    if issubclass(kind, Reject):
        return _rejected(error)  # type: ignore[arg-type]  # the type was just looked at
    if issubclass(kind, MemoryError):
        return Ending.MEMORY, 0, b"", b""
    if issubclass(kind, (Unserialisable, HeaderRefused)):
        return Ending.ERROR, 0, _bounded(str(error)), b""
    first = loaded.summary(error).encode("utf-8", "replace")
    return Ending.ERROR, 0, first, loaded.explain(error).encode("utf-8", "replace")


def too_large(size: int, most: int) -> Unserialisable:
    """What to raise of a reply that is larger than its limit, both in bytes."""
    return Unserialisable(f"the reply is {size} bytes, more than the {most} allowed")


def _rejected(reject: Reject) -> Said:
    """What a rejection answers. A class of the author's may derive from `Reject` and have neither code nor text."""
    try:
        code, text = reject.code, reject.text
        if isinstance(code, int) and isinstance(text, str):
            number = plain_int(code)
            if 400 <= number <= 599:
                return Ending.REJECT, number, b"", _bounded(text_of(text))
    except MemoryError:
        return Ending.MEMORY, 0, b"", b""
    except BaseException as error:  # noqa: BLE001  # a property of the author's, whatever it raises
        return Ending.ERROR, 0, b"a Reject whose code or text cannot be read", _bounded(type(error).__name__)
    return Ending.ERROR, 0, b"a Reject without code and text: call super().__init__(code, text)", b""


def _bounded(text: str, limit: int = 4096) -> bytes:
    return text.encode("utf-8", "replace")[:limit]


def encode(value: object, marker: memoryview) -> bytes:
    """The bytes of a reply: None is empty, bytes and str go as they are, everything else as JSON.

    Raises:
        Unserialisable: it is none of these; the message names what it met and what to return instead.
    """
    kind = type(value)
    if value is None:
        return b""
    if kind is bytes:
        return value  # type: ignore[return-value]  # the type was just looked at
    if kind is str:
        try:
            return value.encode()  # type: ignore[attr-defined,no-any-return]
        except UnicodeEncodeError as error:
            raise Unserialisable(f"the return value holds {_LONE_SURROGATE}") from error
    if kind is bytearray or kind is memoryview:
        return bytes(value)  # type: ignore[call-overload,no-any-return]
    try:
        marker[WRITES_JSON] = 1
        data = orjson.dumps(value, default=_member, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Unserialisable(_advice(value, str(error))) from None
    finally:
        marker[WRITES_JSON] = 0
    # orjson writes NaN and the infinities as null. Only a body with a null in it can have met one.
    if b"null" in data:
        _refuse_nan(value)
    return data


def _member(value: object) -> object:
    """What stands for a member of an enumeration: orjson does so itself for those with the standard metaclass."""
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError


_INSTEAD: Final = {
    "datetime": "return value.isoformat()",
    "date": "return value.isoformat()",
    "time": "return value.isoformat()",
    "timedelta": "return value.total_seconds()",
    "set": "return a list: sorted(value)",
    "frozenset": "return a list: sorted(value)",
    "Decimal": "return str(value), or float(value) where rounding is no matter",
    "Fraction": "return str(value)",
    "generator": "return a list: list(value)",
    "bytes": "inside JSON bytes need a text form: base64.b64encode(value).decode()",
    "complex": "return the two parts: [value.real, value.imag]",
    "coroutine": "a handler is a plain function: def, not async def",
}

_LONE_SURROGATE: Final = (
    "half a character (a lone surrogate), which no UTF-8 can say; return text.encode('utf-8', 'replace')"
)
_SAID: Final = {
    "Recursion limit reached": "the return value holds itself, or is nested more than 254 levels deep; "
    "return a copy that ends",
    "Dict key must be str": "the return value holds a dict with a key that is not text (Dict key must be str); "
    "return {str(key): value for key, value in ...}",
    "Integer exceeds 64-bit range": "the return value holds an integer of more than 64-bit; return str(value)",
    "str is not valid UTF-8: surrogates not allowed": f"the return value holds {_LONE_SURROGATE}",
}
"""What orjson says of a value, in words for its author. Texts it does not know yet are passed on."""


def _advice(value: object, said: str) -> str:
    if said in _SAID:
        return _SAID[said]
    met = said.removeprefix("Type is not JSON serializable: ")
    instead = _INSTEAD.get(met.rsplit(".", 1)[-1], "return None, bytes, str, or what JSON can say")
    if met == said:
        return f"the return value is not JSON: {said}"
    article = "an" if met.startswith(tuple("AEIOUaeiou")) else "a"
    return f"the return value holds {article} {met}, which is not JSON; {instead}"


def _refuse_nan(value: object) -> None:
    # An explicit stack: the value may be as deep as orjson takes it, deeper than Python recurses.
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                raise Unserialisable(f"the return value holds {item}, which is not JSON; return None or a text instead")
        # As orjson reads them: what an author's class says of itself does not count.
        elif isinstance(item, dict):
            stack.extend(dict.values(item))
        elif isinstance(item, list):
            stack.extend(list.__iter__(item))
        elif isinstance(item, tuple):
            stack.extend(tuple.__iter__(item))
        elif isinstance(item, enum.Enum):
            stack.append(item.value)
        elif fields := getattr(type(item), "__dataclass_fields__", None):
            stack.extend(
                vars(item).values() if hasattr(item, "__dict__") else [getattr(item, name, None) for name in fields]
            )
