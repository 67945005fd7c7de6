"""Where HTTP may go: urls, the hosts that a grant names, and the addresses that are nobody's to reach.

A url is read once, by `Url.parse`, and by a stricter grammar than any client's: what two readers could understand in
two ways (userinfo, backslashes, white space, addresses in decimal, octal or hexadecimal, zone ids, percent signs in a
host) is refused. What remains is normalised, and the rest of the program works with the parts, never with the text.

A name is granted by `HostPattern`, an address is permitted by `refused_address`: a granted name that leads to a private
address is refused all the same, unless the operator permits that range.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Self
from urllib.parse import quote, urljoin

__all__ = ["Address", "HostPattern", "Network", "Url", "UrlRefused", "plain", "read_host", "refused_address"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL: Final = 8 * 1024
"""Characters of a url; what servers commonly take of a request line."""

PORTS: Final = {"http": 80, "https": 443}

# --- addresses -----------------------------------------------------------------------------------------------------

# What is not globally reachable of IANA's registries of special-purpose addresses, and the services that clouds put at
# addresses of their own. In the order in which they are looked at: the first that fits says what it is.
_SPECIAL: Final[tuple[tuple[Network, str], ...]] = (
    (IPv4Network("169.254.169.254/32"), "the metadata service of clouds"),
    (IPv4Network("100.100.100.200/32"), "the metadata service of a cloud"),
    (IPv4Network("192.0.0.192/32"), "the metadata service of a cloud"),
    (IPv4Network("168.63.129.16/32"), "the platform service of a cloud"),
    (IPv6Network("fd00:ec2::254/128"), "the metadata service of a cloud"),
    (IPv6Network("fd20:ce::254/128"), "the metadata service of a cloud"),
    (IPv4Network("0.0.0.0/8"), "an address of this machine"),
    (IPv4Network("10.0.0.0/8"), "a private address"),
    (IPv4Network("100.64.0.0/10"), "an address behind a carrier's NAT"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("169.254.0.0/16"), "a link-local address"),
    (IPv4Network("172.16.0.0/12"), "a private address"),
    (IPv4Network("192.0.0.0/24"), "an address of protocols"),
    (IPv4Network("192.0.2.0/24"), "an address for documentation"),
    (IPv4Network("192.88.99.0/24"), "a relay of 6to4"),
    (IPv4Network("192.168.0.0/16"), "a private address"),
    (IPv4Network("198.18.0.0/15"), "an address for benchmarks"),
    (IPv4Network("198.51.100.0/24"), "an address for documentation"),
    (IPv4Network("203.0.113.0/24"), "an address for documentation"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved address"),
    (IPv6Network("::/128"), "an address of this machine"),
    (IPv6Network("::1/128"), "a loopback address"),
    (IPv6Network("::/96"), "an IPv4 address in a form that is out of use"),
    (IPv6Network("64:ff9b:1::/48"), "an address that is translated locally"),
    (IPv6Network("100::/64"), "an address that discards"),
    (IPv6Network("2001::/32"), "an address of a Teredo tunnel"),
    (IPv6Network("2001::/23"), "an address of protocols"),
    (IPv6Network("2001:db8::/32"), "an address for documentation"),
    (IPv6Network("2002::/16"), "an address of a 6to4 tunnel"),
    (IPv6Network("3fff::/20"), "an address for documentation"),
    (IPv6Network("fc00::/7"), "a private address"),
    (IPv6Network("fe80::/10"), "a link-local address"),
    (IPv6Network("fec0::/10"), "a private address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
)
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
_GLOBAL: Final = IPv6Network("2000::/3")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # RFC 5214: the upper half of the interface id, an IPv4 address follows


def plain(address: Address) -> Address:
    """An IPv4 address that was written as an IPv6 one, as what it is; any other as it came."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def refused_address(address: Address, permitted: Sequence[Network] = ()) -> str | None:
    """What forbids to connect to an address: "a private address". None where nothing does.

    Args:
        address: as it is connected to (see `plain`).
        permitted: ranges that the operator permits whatever they are.
    """
    address = plain(address)
    if any(address in network for network in permitted):
        return None
    for network, what in _SPECIAL:
        if address in network:
            return what
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if address in _TRANSLATED:
        inner = refused_address(IPv4Address(number & 0xFFFFFFFF))
        return None if inner is None else f"{inner} behind NAT64"
    if address not in _GLOBAL:
        return "a reserved address"
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return "an address of an ISATAP tunnel"
    return None


# --- hosts ---------------------------------------------------------------------------------------------------------

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# As browsers have it: a host whose last label is a number is an IPv4 address in one of its many forms, never a name.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTTED: Final = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")


def read_host(text: str) -> tuple[str, Address | None]:
    """A host in its one form, and its address where it is one.

    Args:
        text: a name, an IPv4 address, or an IPv6 address in brackets.

    Raises:
        UrlRefused: it is none of these.
    """
    if text.startswith("["):
        return _bracketed(text)
    name = text if text.isascii() else _international(text)
    name = name.lower().removesuffix(".")
    if not name:
        raise UrlRefused("has no host")
    if len(name) > 253:
        raise UrlRefused("has a host of more than 253 characters")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if not _DOTTED.fullmatch(name):
            raise UrlRefused("has an address in a form that is not taken: write it as four decimal numbers, 192.0.2.1")
        try:
            return name, IPv4Address(name)
        except AddressValueError:
            raise UrlRefused("has a host that looks like an address and is none") from None
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise UrlRefused("has a host that is no name of DNS")
    return name, None


def _bracketed(text: str) -> tuple[str, Address | None]:
    inner = text[1:-1]
    if not text.endswith("]") or not inner:
        raise UrlRefused("has a host in brackets that is no IPv6 address")
    if "%" in inner:
        raise UrlRefused("has an address with a zone: those of a link cannot be reached")
    try:
        address = IPv6Address(inner)
    except AddressValueError:
        raise UrlRefused("has a host in brackets that is no IPv6 address") from None
    known = plain(address)
    return str(known), known


def _international(text: str) -> str:
    import idna  # comes with the extra, and is asked only where a name is not ASCII

    if len(text) > 253:
        raise UrlRefused("has a host of more than 253 characters")
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise UrlRefused("has a host that is no internationalised name") from None


# --- urls ----------------------------------------------------------------------------------------------------------


class UrlRefused(ValueError):
    """A url that is not taken. The text goes on from "the url": "has no host"."""


_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TAKEN: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%\"<>^`{|}\u00a1-\ud7ff\ue000-\U0010ffff]*")
_SAFE: Final = "-._~:/?[]@!$&'()*+,;=%"


@dataclass(frozen=True, slots=True)
class Url:
    """A url that was taken apart.

    Attributes:
        scheme: http or https.
        host: in its one form: lower case, IDN as ASCII, an IPv6 address without brackets.
        address: where the host is one.
        port: given, or that of the scheme.
        target: path and query, as they go into the request line.
    """

    scheme: str
    host: str
    address: Address | None
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a url.

        Raises:
            UrlRefused: it is not in order, or not to be trusted.
        """
        if len(text) > MAX_URL:
            raise UrlRefused(f"is longer than {MAX_URL} characters")
        text, _, fragment = text.partition("#")
        if not _TAKEN.fullmatch(text) or not _TAKEN.fullmatch(fragment.replace("#", "")):
            raise UrlRefused(
                "has white space, a backslash or a control character in it: "
                "give what is to be in the query as params=, and quote the rest with urllib.parse.quote"
            )
        found = _SCHEME.match(text)
        if found is None:
            raise UrlRefused("has no scheme: write https://HOST/PATH")
        scheme = found[1].lower()
        if scheme not in PORTS:
            raise UrlRefused(f"is of the scheme '{scheme[:20]}': only http and https are taken")
        rest = text[found.end() :]
        if not rest.startswith("//") or rest.startswith("///"):
            raise UrlRefused(f"is not of the form {scheme}://HOST/PATH")
        authority = re.split(r"[/?]", rest[2:], maxsplit=1)[0]
        target = rest[2 + len(authority) :]
        host, port = _split_authority(authority)
        name, address = read_host(host)
        if not target.startswith("/"):
            target = "/" + target
        return cls(scheme, name, address, PORTS[scheme] if port is None else port, quote(target, safe=_SAFE))

    def follow(self, location: str) -> Self:
        """Where a redirect from here leads.

        Raises:
            UrlRefused: as `parse` does.
        """
        if not _TAKEN.fullmatch(location.replace("#", "")):
            raise UrlRefused("has white space, a backslash or a control character in it")
        try:
            return self.parse(urljoin(str(self), location))
        except UrlRefused:
            raise
        except ValueError:  # urljoin looks into brackets, too
            raise UrlRefused("is no url") from None

    @property
    def authority(self) -> str:
        """Host and port, as they go into the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Without path and query, which may hold what nobody should read: for messages."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def _split_authority(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        raise UrlRefused("has a user in it: give credentials as a header")
    if authority.startswith("["):
        host, bracket, port = authority.partition("]")
        host += bracket
        if port and not port.startswith(":"):
            raise UrlRefused("has something behind the brackets of its host")
        port = port[1:]
    else:
        host, _, port = authority.partition(":")
    if not port:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UrlRefused("has a port that is none: 1 to 65535")
    return host, int(port)


# --- grants --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of `grants.http.hosts`.

    `api.example.com` is that name on the ports of http and https, `*.example.com` any name below that one, not itself,
    `api.example.com:8443` that port and no other. An address is granted where it is written: `192.0.2.1`,
    `[2001:db8::1]`; it has to be a permitted one as well.
    """

    host: str
    address: Address | None
    port: int | None
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an entry.

        Raises:
            UrlRefused: it names no host.
        """
        below = text.startswith("*.")
        host, port = _split_authority(text.removeprefix("*."))
        name, address = read_host(host)
        if below and address is not None:
            raise UrlRefused("has a wildcard before an address")
        return cls(name, address, port, below)

    def grants(self, url: Url) -> bool:
        """Whether a url's host and port are granted by this entry."""
        if url.port != (PORTS[url.scheme] if self.port is None else self.port):
            return False
        if self.below:
            return url.address is None and url.host.endswith(f".{self.host}")
        return url.host == self.host
