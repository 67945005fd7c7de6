"""A secret as it stands in a bucket: closed to the curve keys of those who may open it, and to its own name.

What is sealed says for which namespace and key it is, so that whoever may write into the bucket cannot have another
namespace read a value by copying it there. Each value is sealed once for each nexlet's key, by a sender's key that is
made for it and forgotten.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime

import orjson
from pydantic import SecretStr

from nexlet_functions.functions.keys import CannotOpen, CurveKey

__all__ = ["NotForUs", "keys_of", "seal", "set_at", "unseal"]


class NotForUs(Exception):
    """A sealed secret that cannot be opened; the text says why, and has nothing of the value."""


def seal(namespace: str, key: str, value: SecretStr, recipients: Sequence[str], *, now: datetime) -> bytes:
    """A secret, as it is kept.

    Args:
        recipients: public curve keys; at least one.
        now: with its zone; stands beside it in the clear.

    Raises:
        ValueError: one of them is no public curve key.
    """
    content = orjson.dumps({"namespace": namespace, "key": key, "value": value.get_secret_value()})
    sender = CurveKey.generate()
    sealed = {to: base64.b64encode(sender.seal(content, to)).decode() for to in recipients}
    return orjson.dumps({"set": now.isoformat(timespec="seconds"), "sealed_by": sender.public, "sealed": sealed})


def unseal(data: bytes, namespace: str, key: str, by: CurveKey) -> SecretStr:
    """The value.

    Raises:
        NotForUs: it is sealed to other keys, is for another name, or is damaged.
    """
    said = _read(data)
    box = said["sealed"].get(by.public)
    if box is None:
        raise NotForUs(f"it is not sealed to this nexlet's key, {by.public}: set it again, for that key too")
    try:
        content = orjson.loads(by.open(base64.b64decode(box, validate=True), str(said["sealed_by"])))
        names, value = (content["namespace"], content["key"]), content["value"]
    except CannotOpen as error:
        raise NotForUs(f"{error}: set it again") from None
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise NotForUs("it is damaged: set it again") from None
    if names != (namespace, key) or not isinstance(value, str):
        raise NotForUs("it was sealed for another name, and copied here: set it again")
    return SecretStr(value)


def keys_of(data: bytes) -> tuple[str, ...]:
    """The public curve keys that can open it.

    Raises:
        NotForUs: it is no sealed secret.
    """
    return tuple(_read(data)["sealed"])


def set_at(data: bytes) -> str:
    """When it was sealed, as its sealer says it.

    Raises:
        NotForUs: it is no sealed secret.
    """
    return str(_read(data).get("set", ""))


def _read(data: bytes) -> dict[str, dict[str, str]]:
    try:
        said = orjson.loads(data)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("sealed"), dict) or "sealed_by" not in said:
        raise NotForUs("what is in the bucket is no sealed secret: set it with nexfn secrets set")
    return said
