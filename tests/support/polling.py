"""Wait for a state that nothing announces: look again and again until a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["eventually"]


async def eventually(holds: Callable[[], object], *, within: float = 10.0, what: str = "") -> None:
    """Return once `holds()` is true; fail where it is not after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not holds():
        assert loop.time() < deadline, f"not within {within} s: {what or holds}"
        await asyncio.sleep(0.005)
