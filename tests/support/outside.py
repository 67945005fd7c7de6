"""A world around an HTTP client: a server that it may reach, one that nobody may, and names that lead to either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nexlet_functions.grants.http_client import HttpClient, HttpMemory
from nexlet_functions.grants.network import Trust
from nexlet_functions.grants.resolving import ThreadResolver
from nexlet_functions.rules import HttpRules
from nexlet_models.start_request import HttpGrant
from tests.support.http_server import Server

__all__ = ["HOME", "METHODS", "TRUST", "Names", "Outside"]

TRUST = Trust()
"""Of all clients in tests: reading the system's certificates takes its time."""
HOME = "127.0.0.2"
"""Where the servers of these tests live; permitted by the rules below, as nothing else of this machine is."""
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


@dataclass
class Names:
    """What names lead to: each look-up gets the next list of addresses, and the last one again and again.

    Attributes:
        asked: each name that was looked up.
    """

    table: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        if name not in self.table:
            raise OSError("no such name")
        lists = self.table[name]
        return lists.pop(0) if len(lists) > 1 else lists[0]


@dataclass
class Outside:
    """A client with a world around it: a server at `HOME`, its names, and a server that nobody may reach.

    Attributes:
        trap: on the same port of 127.0.0.1, which is not permitted.
    """

    server: Server
    trap: Server
    names: Names
    rules: HttpRules
    clients: list[HttpClient] = field(default_factory=list)

    def client(
        self,
        *hosts: str,
        methods: Sequence[str] = METHODS,
        memory: HttpMemory | None = None,
        owner: str = "",
        **rules: Any,
    ) -> HttpClient:
        """A client with a grant; `{port}` stands for the server's."""
        granted = tuple(host.replace("{port}", str(self.server.port)) for host in hosts)
        current = self.rules.model_copy(update=rules)
        client = HttpClient(
            HttpGrant(hosts=granted, methods=tuple(methods)),
            lambda: current,
            resolver=ThreadResolver(self.names),
            trust=TRUST,
            memory=memory or HttpMemory(),
            owner=owner,
        )
        self.clients.append(client)
        return client

    def url(self, path: str = "/", *, host: str = "api.example.com", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server.port}{path}"
