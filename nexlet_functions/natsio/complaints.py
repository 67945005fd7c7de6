"""What a server complains about while connected, read from its words.

nats-py passes them on in lower case, so that `Orders` and `orders` look alike here; who compares, compares with `key`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TOO_MANY_SUBSCRIPTIONS", "Violation", "key", "read"]

TOO_MANY_SUBSCRIPTIONS = "maximum subscriptions exceeded"
"""What a server says to one subscription too many; it does not say which, and goes on with the others."""

_REFUSED = re.compile(
    r'permissions violation for (subscription|publish) to "(.*?)(?<!\\)"(?: using queue "(.*?)(?<!\\)")?', re.S
)


@dataclass(frozen=True, slots=True)
class Violation:
    """Something the server forbade after the fact.

    Attributes:
        kind: `publish` or `subscription`.
        subject: where, in lower case.
        queue: the queue group of a subscription, in lower case; None where the server does not name one.
        text: the server's words, in lower case.
    """

    kind: str
    subject: str
    queue: str | None
    text: str


def read(text: str) -> Violation | None:
    """The violation that a complaint is about; None where it is about something else."""
    found = _REFUSED.search(text)
    if found is None:
        return None
    return Violation(found[1], _unquoted(found[2]), None if found[3] is None else _unquoted(found[3]), text)


def key(subject: str, queue: str) -> tuple[str, str]:
    """What a subscription is called in a complaint."""
    return subject.lower(), queue.lower()


def _unquoted(text: str) -> str:
    return text.replace('\\"', '"').replace("\\\\", "\\")
