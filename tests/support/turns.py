"""The turns of the event loop: what a test of who waits for whom counts instead of time, and who always waits."""

from __future__ import annotations

import asyncio

__all__ = ["Turns", "somebody_waits"]


class Turns:
    """A context manager; `count` grows by one with each turn of the loop that it is entered in."""

    def __init__(self) -> None:
        self.count = 0
        self._on = False

    def __enter__(self) -> Turns:
        self._on = True
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _turn(self) -> None:
        if self._on:
            self.count += 1
            self._loop.call_soon(self._turn)


def somebody_waits() -> bool:
    """For what is to give way after every piece."""
    return True
