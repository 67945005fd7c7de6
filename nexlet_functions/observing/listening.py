"""Where metrics and health are served: how that is written, and the socket that listens there.

`HOST:PORT`; without a host it is this machine alone, because nothing there asks who is asking. Port 0 takes one that is
free, which the log then tells.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Final, NamedTuple

from nexlet_functions.errors import NexletFunctionsError

__all__ = ["LOOPBACK", "Address", "AddressUnusable", "listen", "parse_address"]

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 128


class Address(NamedTuple):
    """A host and a port, as a URL writes them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class AddressUnusable(NexletFunctionsError):
    """Nothing can be served at an address. The message names it, and says why."""

    code = "address-unusable"


def parse_address(text: str) -> Address:
    """What an operator writes: `9464`, `:9464`, `127.0.0.1:9464`, `[::1]:9464`, `0.0.0.0:9464`.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.strip().rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("HOST:PORT is expected, such as 127.0.0.1:9464, with a port of at most 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    host = host or LOOPBACK
    if host == "localhost":
        host = LOOPBACK
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"'{host}' is no address: a service listens at an address, not at a name") from None
    return Address(host, int(port))


def listen(address: Address) -> socket.socket:
    """A socket that listens there.

    Raises:
        AddressUnusable: the system does not let us.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressUnusable(
            f"metrics cannot be served at {address}: {os.strerror(error.errno or 0)}; choose another with --metrics"
        ) from None
