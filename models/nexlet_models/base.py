"""What all messages share: frozen, tolerant of unknown fields when read, exact when written.

Nex's programs are written in Go, and two habits of its JSON are kept here. A field that may be absent ("?" in the
contract) is left out when it has no value; every other field is always written, as `null` where it is an empty Go map
or slice. A field given as `null` that cannot be null reads as if it were its type's empty value.

- `Message`: the base of every message that is a JSON object.
- `ListMessage`, `MapMessage`: the few that are a bare array or a bare map.
- `Timestamp`: an RFC 3339 text, kept as it came: Go writes nanoseconds, which `datetime` would lose.

Secrets are `SecretStr`. `to_json` is the one way in which their values leave a message; `repr`, `str` and
`model_dump` show stars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    RootModel,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from nexlet_models.errors import MalformedMessage

__all__ = [
    "ListMessage",
    "MapMessage",
    "Message",
    "NullableTags",
    "Secret",
    "Text",
    "Timestamp",
    "parse_timestamp",
    "timestamp",
]

_CONFIG = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, ser_json_inf_nan="null")


class _Wire:
    """Bytes in, bytes out."""

    @classmethod
    def from_json(cls, data: bytes | bytearray | str) -> Self:
        """Read a message off the wire. Types are strict, as in Go: `"1"` is no number.

        Raises:
            MalformedMessage: it is not JSON, a required field is missing, or a field has another type.
        """
        assert issubclass(cls, BaseModel)
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            # What came in may hold secrets: the text names places and reasons, and nothing of the input.
            details = error.errors(include_url=False, include_input=False, include_context=False)
        problems = tuple(
            f"field {'.'.join(str(step) for step in detail['loc'])}: {detail['msg']}"
            if detail["loc"]
            else detail["msg"]
            for detail in details
        )
        raise MalformedMessage(cls.__name__, problems)

    def to_json(self) -> bytes:
        """The bytes that go over the wire, the values of secrets included."""
        assert isinstance(self, BaseModel)
        return self.model_dump_json(context=_TO_THE_WIRE).encode()


_TO_THE_WIRE = {"wire": True}


class Message(_Wire, BaseModel):
    """A message that is a JSON object. A field whose default is None is left out when it is None."""

    model_config = _CONFIG

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name, field in type(self).model_fields.items():
            if field.default is None and getattr(self, name) is None:
                written.pop(field.serialization_alias or name, None)
        return written


_Item = TypeVar("_Item")


class ListMessage(_Wire, RootModel[tuple[_Item, ...]], Generic[_Item]):
    """A message that is a JSON array; `null`, an empty Go slice, reads as none."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @classmethod
    def from_json(cls, data: bytes | bytearray | str) -> Self:
        """See `Message.from_json`."""
        return super().from_json(b"[]" if data in (b"null", "null") else data)

    def __len__(self) -> int:
        return len(self.root)

    def items(self) -> Iterator[_Item]:
        """The entries, in order."""
        return iter(self.root)


class MapMessage(_Wire, RootModel[dict[str, _Item]], Generic[_Item]):
    """A message that is a JSON object with keys of any name; `null`, an empty Go map, reads as none."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @classmethod
    def from_json(cls, data: bytes | bytearray | str) -> Self:
        """See `Message.from_json`."""
        return super().from_json(b"{}" if data in (b"null", "null") else data)


def _write_secret(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if info.context is _TO_THE_WIRE else str(value)


def _no_text(value: object) -> object:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_no_text)]
"""A text that Go may send as null."""

Secret = Annotated[SecretStr, BeforeValidator(_no_text), PlainSerializer(_write_secret, return_type=str)]
"""A secret text; "" when there is none."""

NullableTags = dict[str, str] | None
"""Placement tags: an empty Go map is written as null."""


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)


def parse_timestamp(text: str) -> datetime:
    """The moment that an RFC 3339 text names, to the microsecond, with its zone.

    Raises:
        ValueError: it is no such text.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("not a time as RFC 3339 writes it, such as 2026-11-23T15:44:04Z")
    *numbers, fraction, zone = found.groups()
    zone = "+00:00" if zone in "Zz" else zone
    date = "-".join(numbers[:3])
    return datetime.fromisoformat(f"{date}T{':'.join(numbers[3:])}.{(fraction or '0').ljust(6, '0')[:6]}{zone}")


def timestamp(moment: datetime | None = None) -> str:
    """`moment`, or now, as RFC 3339 in UTC: `2026-11-23T15:44:04.821949Z`.

    Raises:
        ValueError: `moment` has no zone.
    """
    if moment is None:
        moment = datetime.now(UTC)
    if moment.tzinfo is None:
        raise ValueError("a moment without a zone cannot be put on the wire")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _check_timestamp(text: str) -> str:
    parse_timestamp(text)
    return text


Timestamp = Annotated[str, AfterValidator(_check_timestamp)]
"""A moment as RFC 3339 writes it, kept as it came. `timestamp` makes one, `parse_timestamp` reads one."""
