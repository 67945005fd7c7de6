"""A caller's own deadline: the header `Nex-Deadline-Ms`, how many milliseconds it will go on waiting.

It shortens what the function's limits allow and never lengthens it, and it covers the time in the queue, too. The
number is what is left and not a time of day, so that it needs no clocks that agree; what the message spent on its way
is not in it. Looked for in the raw bytes, and only in messages that have headers: the others pay nothing.
"""

from __future__ import annotations

import re
from typing import Final

from nexlet_sandboxes.calls import NEVER_NS

__all__ = ["DEADLINE_HEADER", "DeadlineRefused", "deadline_ns"]

DEADLINE_HEADER: Final = "Nex-Deadline-Ms"

_LINE: Final = re.compile(rb"\r\n" + DEADLINE_HEADER.encode() + rb":[ \t]*([^\r\n]*)", re.IGNORECASE)
_NUMBER: Final = re.compile(rb"-?[0-9]{1,40}[ \t]*")
_SHOWN: Final = 40


class DeadlineRefused(ValueError):
    """A deadline that is no number. Its text is for the caller."""


def deadline_ns(headers: bytes, received_ns: int) -> int:
    """When the sender of a message gives up, on the clock of `received_ns`; `NEVER_NS` where it does not say.

    Args:
        headers: the raw block. Of several such headers the first counts, as for `event.headers`.
        received_ns: when the message came, in nanoseconds.

    Raises:
        DeadlineRefused: it is no whole number. Left alone it would let work run for a caller who has gone.
    """
    found = _LINE.search(headers)
    if found is None:
        return NEVER_NS
    text = found[1]
    if _NUMBER.fullmatch(text) is None:
        shown = text[:_SHOWN].decode("utf-8", "replace")
        raise DeadlineRefused(f"the header {DEADLINE_HEADER} is a whole number of milliseconds, not {shown!r}")
    return min(received_ns + int(text) * 1_000_000, NEVER_NS)
