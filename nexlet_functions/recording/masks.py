"""What a recording must not keep: fields that somebody named, fields that are secret by their name, and secret values.

- A field's name says that it is secret: `Authorization`, `Cookie`, `X-Api-Key`, `access_token`, `password`. That holds
  for headers and for JSON at any depth, however the name is written (`apiKey`, `api_key`, `API-KEY`).
- Somebody names further fields, see `fields`.
- The values of a function's secrets are masked wherever they occur, also as JSON, in a URL, in hexadecimal or in
  base64.

Masking keeps the shape: a text becomes `***`, a number 0, a boolean false, so that a function can still be given the
message. Each place that was masked is told by its path, for whoever compares.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus

from nexlet_functions.recording.fields import Fields, Paths, below, plain_name, within
from nexlet_functions.testing.comparing import MASK

__all__ = ["Masks", "Repeated"]

_SECRET_NAME: Final = re.compile(
    r"(^|-)(auth|authorization|authentication|cookie|credentials?|passw(or)?d|passphrase|secret|session(-id)?|token"
    r"|api-?key|access-?key|private-?key|secret-?key|signing-?key)$"
)
"""Names as `plain_name` makes them. Only the end counts: `token-count` is a number somebody wants to see."""

_SHORTEST: Final = 4
"""Characters. A shorter secret is masked where it is a whole value: within a text it would be found everywhere."""

_SHORTEST_LINE: Final = 16
"""Characters of a line of a secret of several lines, such as a key in PEM, which is a secret by itself."""


class Repeated(dict[str, Any]):
    """A JSON object in which a name comes more than once: as everybody reads it, the last of each.

    Attributes:
        pairs: all of them. What they hide is in the message, too.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class Masks:
    """What is masked, for one function."""

    def __init__(self, fields: Sequence[str] = (), *, secrets: Iterable[str] = ()) -> None:
        """Names that are secret by themselves are always masked.

        Args:
            fields: further ones; see above.
            secrets: values.

        Raises:
            ValueError: a field is empty, or has an empty part.
        """
        self._fields = Fields(fields)
        values = {secret for secret in secrets if secret}
        self._whole = frozenset(values)
        forms = {form for value in values for form in _forms(value)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._within = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self._within_bytes = (
            re.compile(b"|".join(re.escape(form.encode()) for form in longest_first)) if forms else None
        )

    def beside(self, secrets: Iterable[str]) -> Masks:
        """The same fields, with these secrets."""
        return Masks(self._fields.given, secrets=secrets)

    def text(self, text: str) -> str:
        """`text` without the secret values in it."""
        if text in self._whole:
            return MASK
        return self._within.sub(MASK, text) if self._within is not None else text

    def data(self, data: bytes) -> bytes:
        """The same of bytes that are no text."""
        return self._within_bytes.sub(MASK.encode(), data) if self._within_bytes is not None else data

    def headers(self, headers: Mapping[str, str], at: str) -> tuple[dict[str, str], list[str]]:
        """Headers as they may be kept, and the places that were masked.

        Args:
            at: what places begin with.
        """
        kept: dict[str, str] = {}
        masked = []
        for name, value in headers.items():
            kept[name] = MASK if self._is_secret(name) else self.text(value)
            if kept[name] != value:
                masked.append(f"{at}.{name}")
        return kept, masked

    def json(self, value: Any, at: str) -> tuple[Any, list[str]]:
        """A JSON value as it may be kept, and the places that were masked.

        Args:
            at: what places begin with.
        """
        masked: list[str] = []
        return self._json(value, at, self._fields.paths, masked, all_of_it=False), masked

    def _json(self, value: Any, at: str, paths: Paths, masked: list[str], *, all_of_it: bool) -> Any:
        """
        Args:
            paths: what is left of those that lead here.
            masked: takes the places.
            all_of_it: whether everything from here on is masked.
        """
        if isinstance(value, dict):
            kept = {}
            for name, each in value.pairs if isinstance(value, Repeated) else value.items():
                rest, meant = below(paths, name)
                place = self.text(name)
                whole = all_of_it or meant or self._is_secret(name)
                kept[place] = self._json(each, f"{at}.{place}", rest, masked, all_of_it=whole)
            return kept
        if isinstance(value, list):
            items = []
            for index, each in enumerate(value):
                rest, meant = within(paths, index)
                items.append(self._json(each, f"{at}.{index}", rest, masked, all_of_it=all_of_it or meant))
            return items
        kept = _hidden(value) if all_of_it else self._scalar(value)
        if value is not None and (all_of_it or kept != value):
            masked.append(at)
        return kept

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and str(value) in self._whole:
            return 0
        return value

    def _is_secret(self, name: str) -> bool:
        return self._fields.named(name) or _SECRET_NAME.search(plain_name(name)) is not None


def _hidden(value: Any) -> Any:
    """What stands for a value: of the same kind, so that the message keeps its shape."""
    if value is None:
        return None
    if isinstance(value, bool):
        return False
    return 0 if isinstance(value, (int, float)) else MASK


def _forms(secret: str) -> Iterator[str]:
    """How a secret may stand within something else; none of a very short one."""
    pieces = [secret, *(line for line in secret.splitlines() if len(line) >= _SHORTEST_LINE)]
    for piece in pieces:
        if len(piece) < _SHORTEST:
            continue
        yield piece
        yield json.dumps(piece)[1:-1]
        yield json.dumps(piece, ensure_ascii=False)[1:-1]
        yield quote(piece, safe="")
        yield quote_plus(piece)
        yield piece.encode().hex()
        yield piece.encode().hex().upper()
        yield from _within_base64(piece.encode())


def _within_base64(data: bytes) -> Iterator[str]:
    """What is always the same of `data` in base64, whatever stands before and behind it (a user's name, say)."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        # Characters that also depend on a neighbour's bits are left out.
        first = (before * 8 + 5) // 6
        last = (before + len(data)) * 8 // 6
        part = encoded[first:last].decode()
        if len(part) >= 2 * _SHORTEST or (before == 0 and len(part) >= _SHORTEST):
            yield part
            yield part.replace("+", "-").replace("/", "_")
