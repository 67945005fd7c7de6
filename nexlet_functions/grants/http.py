"""HTTP to the hosts that were granted: what a worker says of a call, and what it is told of the answer.

The call itself is `http_client`'s. `Outside` makes the clients, and has what those of all functions share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nexlet_functions.grants.http_requests import MAX_SAID, Reach, answer_parts, request_of
from nexlet_functions.grants.resolving import Lookup, ThreadResolver, system_lookup
from nexlet_models.start_request import HttpGrant
from nexlet_sandboxes.asking import Ask, Verb

if TYPE_CHECKING:
    from nexlet_functions.grants.http_client import HttpClient, HttpMemory
    from nexlet_functions.grants.http_requests import HttpRequest
    from nexlet_functions.grants.network import Trust
    from nexlet_functions.rules import HttpRules

__all__ = ["Hosts", "HttpMissing", "NoHosts", "Outside"]

"""Bytes of what a worker says of a call, beside its body: more than a url and headers may have, written as JSON."""

Work = Callable[[], Awaitable[Sequence[bytes]]]


class HttpMissing(Exception):
    """What HTTP takes is not installed here (the extra `http`)."""


class Outside:
    """Where functions' HTTP leads to."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        """Nothing is read or connected before the first call.

        Args:
            lookup: addresses of a name.
        """
        self._lookup = lookup
        self._shared: tuple[Trust, HttpMemory] | None = None

    async def hosts(self, grant: HttpGrant, rules: Callable[[], HttpRules], *, namespace: str, name: str) -> Hosts:
        """What one function was granted. To be closed with it.

        Args:
            rules: the operator's for its namespace; asked anew for each call.
            namespace, name: of the function.

        Raises:
            HttpMissing: nobody may do HTTP here.
        """
        # Importing it takes a tenth of a second, in which others have their turn.
        client_class, memory_class, trust_class = await asyncio.to_thread(_library)
        if self._shared is None:
            self._shared = trust_class(), memory_class()
        trust, memory = self._shared
        client = client_class(
            grant,
            rules,
            resolver=ThreadResolver(self._lookup),
            trust=trust,
            memory=memory,
            owner=namespace,
            who=f"{namespace}/{name}",
        )
        return Hosts(client, rules().max_request + MAX_SAID)


class NoHosts:
    """HTTP of a function that was granted other things. See `calls.Further`."""

    max_size = 0

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.verbs: Mapping[int, Callable[[Ask], Work]] = {Verb.HTTP: self.call}
        self._reach = Reach(HttpGrant(hosts=()))

    def call(self, ask: Ask) -> Work:
        """Refuse a call, with the line that grants it."""
        request = request_of(ask.parts)
        self._reach.begin(request, len(request.body))
        raise AssertionError("no host is granted by no host")


def _library() -> tuple[type[HttpClient], type[HttpMemory], type[Trust]]:
    try:
        from nexlet_functions.grants.http_client import HttpClient, HttpMemory
        from nexlet_functions.grants.network import Trust
    except ImportError as error:
        raise HttpMissing(f"HTTP takes {error.name}, which is not installed") from None
    return HttpClient, HttpMemory, Trust


class Hosts:
    """The hosts that one function was granted.

    Attributes:
        max_size: see `calls.Further`.
    """

    def __init__(self, client: HttpClient, max_size: int) -> None:
        """Nothing is asked yet."""
        self._client = client
        self.max_size = max_size
        self.verbs: Mapping[int, Callable[[Ask], Work]] = {Verb.HTTP: self.call}

    def call(self, ask: Ask) -> Work:
        """JSON that says what is asked for, and a body; the same comes back."""
        request = request_of(ask.parts)
        self._client.check(request)
        return partial(self._call, request, ask.deadline_ns / 1e9)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _call(self, request: HttpRequest, deadline: float) -> Sequence[bytes]:
        answer = await self._client.call(request, deadline)
        return answer_parts(answer.status, answer.url, answer.headers, answer.body)
