"""A steady stream of requests, for as long as something else breaks, with an account of every one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

__all__ = ["Load"]


class Load:
    """Asks on a subject, several at once and one after another. An async context manager.

    Attributes:
        answered: how many were answered as they should be.
        lost: the others, by what happened to them.
        answers: how often each answer was given.
    """

    def __init__(self, url: str, subject: str, *, at_once: int = 8, pause: float = 0.0, **connect: Any) -> None:
        """Nothing is asked yet.

        Args:
            pause: seconds between an answer and the next request.
            connect: what nats-py's `connect` needs besides, where the server wants to know who asks.
        """
        self._url = url
        self._subject = subject
        self._at_once = at_once
        self._pause = pause
        self._connect = connect
        self._asking: list[asyncio.Task[None]] = []
        self._client: Client | None = None
        self._ending = False
        self.answered = 0
        self.lost: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    async def more(self, count: int = 200) -> None:
        """Return when so many more were answered."""
        wanted = self.answered + count
        async with asyncio.timeout(60):
            while self.answered < wanted:
                assert not self.lost, f"{self.lost} beside {self.answered} that were answered"
                await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Ask no more, and return when all that was asked is answered."""
        self._ending = True  # and each asker ends with the answer it waits for: a cancelled one would go unaccounted
        await asyncio.gather(*self._asking)

    async def _ask(self, client: Client) -> None:
        while not self._ending:
            try:
                answer = await client.request(self._subject, b"", timeout=20)
            except nats.errors.Error as error:
                self.lost[type(error).__name__] += 1
                continue
            if answer.headers and "error" in answer.headers:
                self.lost[answer.headers["error"]] += 1
            else:
                self.answered += 1
                self.answers[answer.data.decode()] += 1
            await asyncio.sleep(self._pause)

    async def __aenter__(self) -> Self:
        self._client = client = await nats.connect(self._url, **self._connect)
        self._asking = [asyncio.create_task(self._ask(client)) for _ in range(self._at_once)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.end()
        assert self._client is not None
        await self._client.close()
        if kind is None:
            assert not self.lost, f"{self.lost} beside {self.answered} that were answered"
            assert self.answered
