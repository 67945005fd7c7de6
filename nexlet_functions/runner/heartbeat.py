"""Heartbeats: how the node knows that we live and whether to send us work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

__all__ = ["HEARTBEAT_INTERVAL", "Heartbeats"]

HEARTBEAT_INTERVAL = 5.0
"""Seconds. The contract's interval is ten, and a node sends starts only to an agent whose newest heartbeat is at most
ten seconds old: at exactly ten, a heartbeat that is a little late would now and then cost an auction."""

_LEAST = 0.05
"""Seconds between two heartbeats: changes of state that come in a burst are told once."""

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Heartbeats:
    """Sends one at once, one each interval, and one soon after each `soon()`."""

    def __init__(self, beat: Callable[[], Awaitable[None]], *, interval: float = HEARTBEAT_INTERVAL) -> None:
        """Nothing runs yet.

        Args:
            beat: sends one.
            interval: seconds.
        """
        self._beat = beat
        self._interval = interval
        self._due = asyncio.Event()

    def soon(self) -> None:
        """Send one now; calls that come together become one."""
        self._due.set()

    async def run(self) -> None:
        """Until cancelled. What `beat` raises is logged: an agent that fails to tell its state once tells it again."""
        while True:
            self._due.clear()
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001  # see above
                _log.error("a heartbeat failed", exc_info=error)
            await asyncio.sleep(_LEAST)
            try:
                async with asyncio.timeout(self._interval - _LEAST):
                    await self._due.wait()
            except TimeoutError:
                pass  # it is time
