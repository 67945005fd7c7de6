"""A sink that keeps what it is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

__all__ = ["KeepingSink", "Kept"]


@dataclass(frozen=True)
class Kept:
    subject: str
    reply: str
    payload: bytes
    headers: bytes


class KeepingSink:
    """Keeps messages in the order they came."""

    def __init__(self) -> None:
        self.messages: list[Kept] = []
        self._more = asyncio.Event()

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        self.messages.append(Kept(subject, reply, payload, headers))
        self._more.set()

    @property
    def payloads(self) -> list[bytes]:
        return [kept.payload for kept in self.messages]

    async def count(self, number: int, *, within: float = 10.0) -> list[Kept]:
        """The messages, once there are `number`."""
        async with asyncio.timeout(within):
            while len(self.messages) < number:
                self._more.clear()
                await self._more.wait()
        return self.messages
