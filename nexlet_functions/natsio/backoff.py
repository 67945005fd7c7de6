"""When to try again, and where: pauses that grow and vary, and the servers in an order of chance.

A server that goes down loses all of its clients at once. What keeps them from coming back at once, and all to the same
neighbour, is chance: in the pause before the first attempt, in every further one, and in the order of the servers.

- `Backoff`: the pauses.
- `Servers`: the order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from nexlet_functions.natsio.credentials import Credentials

__all__ = ["STEADY", "Backoff", "Servers"]

STEADY = 5.0
"""Seconds after which a connection counts as good, and the next pause is short again."""


class Backoff:
    """The pauses of one connection, in seconds."""

    def __init__(
        self,
        *,
        first: float,
        longest: float,
        refused: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Nothing has failed yet.

        Args:
            first: the longest pause after a loss; doubled from failure to failure.
            longest: the longest pause there is, where no server can be reached.
            refused: the same where a server answers and turns us down: it will not change its mind by itself.
            uniform: chance.
        """
        self._first = first
        self._longest = longest
        self._refused = refused
        self._uniform = uniform
        self._failures = 0

    def after_loss(self, lived: float) -> float:
        """Before the first attempt after a connection that lived so many seconds: anything up to `first`."""
        if lived <= STEADY:
            return self.after_failure()
        self._failures = 0
        return self._uniform(0.0, self._first)

    def after_failure(self, *, refused: bool = False) -> float:
        """Before the next attempt, when every server has been tried: a growing pause, shortened by up to half."""
        self._failures += 1
        longest = min(self._refused if refused else self._longest, self._first * 2 ** min(self._failures, 16))
        return self._uniform(longest / 2, longest)


class Servers:
    """Where one connection may go: the servers it was given, and those that they tell of."""

    def __init__(self, credentials: Credentials, *, shuffle: Callable[[list[str]], None] = random.shuffle) -> None:
        """Nothing was told yet. `shuffle` is chance."""
        self._credentials = credentials
        self._told: list[str] = []
        self._shuffle = shuffle

    def round(self, *, after: str = "") -> list[str]:
        """Each once, in an order of chance; `after`, the one that was just lost, comes last."""
        servers = [*self._credentials.servers, *self._told]
        self._shuffle(servers)
        servers.sort(key=lambda server: server == after)  # stable
        return servers

    def learn(self, found: Iterable[str]) -> None:
        """What a server told of its cluster, as URLs. It stands in place of what was told before: servers come and go.

        A server that tells of none stands alone, or its cluster does not advertise: what is known stays.
        """
        told = [self._credentials.with_user_part(url) for url in found]
        if told:
            given = _places(self._credentials.servers)
            self._told = [url for url in dict.fromkeys(told) if _places((url,)).isdisjoint(given)]


def _places(urls: Sequence[str]) -> set[str]:
    return {url.rpartition("://")[2].rpartition("@")[2] for url in urls}
