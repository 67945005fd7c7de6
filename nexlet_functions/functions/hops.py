"""How many functions a message has gone through: the header `Nex-Hops`, against functions that run each other for ever.

Whatever a function publishes carries one more than the message that it was run by, and so do the copies of messages
that failed. Beyond the setting `max_hops` a message is not run. A publisher that leaves the header out begins anew;
it is there against mistakes, not against somebody who wants a loop. Looked for in the raw bytes, and only in messages
that have headers.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HOPS_HEADER", "LOOP", "hops_line", "hops_of", "too_far"]

HOPS_HEADER: Final = "Nex-Hops"

LOOP: Final = 508
"""The code of a message that is not run for it; what HTTP calls a loop that was detected (RFC 5842)."""

_LINE: Final = re.compile(rb"\r\n" + HOPS_HEADER.encode() + rb":[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)


def hops_of(headers: bytes) -> int:
    """The functions that a message has gone through; 0 where its headers do not say."""
    found = _LINE.search(headers) if headers else None
    return int(found[1]) if found is not None else 0


def hops_line(*headers: bytes) -> bytes:
    """The header line, without a line end, of what is published because of messages with these headers."""
    return b"%b: %d" % (HOPS_HEADER.encode(), max(map(hops_of, headers)) + 1)


def too_far(limit: int) -> str:
    """What is said of a message that is not run."""
    return f"it has gone through more than {limit} functions (max_hops): they run each other in a loop"
