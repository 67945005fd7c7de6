"""What a function asks of HTTP, looked at before anything is done: the form of a call, its headers, its grant.

Without any library for HTTP: whoever only wants to know whether a call may be made (a test's double) needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from nexlet_functions.grants.checks import parts_of
from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.outwards import HostPattern, Url, UrlRefused
from nexlet_models.sizes import format_size
from nexlet_models.start_request import METHODS, HttpGrant
from nexlet_sandboxes.asking import not_granted
from nexlet_sandboxes.frames import FrameError

__all__ = ["MAX_HEAD", "MAX_HEADERS", "MAX_SAID", "HttpRequest", "Reach", "answer_parts", "request_of"]

MAX_HEADERS: Final = 100
"""Headers of a request or of an answer, as most servers have it."""
MAX_SAID: Final = 128 * 1024
"""Bytes of the JSON that says method, url and headers: more is not parsed."""

MAX_HEAD: Final = 32 * 1024
"""Bytes of these."""

_KEYS: Final = frozenset({"method", "url", "headers", "follow"})
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
# What frames a message, belongs to a single connection, or names another host than the one that was granted.
_OURS: Final = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "te", "trailer", "expect"),
        *("connection", "keep-alive", "upgrade", "http2-settings", "forwarded", "via"),
    }
)
_OURS_BEGIN: Final = ("proxy-", "x-forwarded-")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a function asks for, not looked at yet.

    Attributes:
        headers: name and value, in the order to send them.
        follow: whether redirects are followed.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    follow: bool = True


class Reach:
    """How far a grant of HTTP goes."""

    def __init__(self, grant: HttpGrant) -> None:
        """Read a grant.

        Raises:
            UrlRefused: an entry of it names no host.
        """
        self._hosts = tuple(HostPattern.parse(text) for text in grant.hosts)
        self._methods = frozenset(grant.methods)

    def begin(self, request: HttpRequest, max_request: int) -> tuple[str, Url, list[tuple[str, str]]]:
        """Method, url and headers of a function's call.

        Args:
            max_request: bytes of the largest body.

        Raises:
            CallFailed: it may not be made.
        """
        method, body = request.method.upper(), request.body
        if len(body) > max_request:
            raise CallFailed(
                Failure.TOO_LARGE,
                f"the request's body is {format_size(len(body))}, at most {format_size(max_request)} are "
                "sent: ask the operator for more",
            )
        headers = _own_headers(request.headers)
        try:
            url = Url.parse(request.url)
        except UrlRefused as refused:
            raise CallFailed(Failure.DENIED, f"the url {refused}") from None
        self.check(method, url)
        return method, url, headers

    def check(self, method: str, url: Url, *, by: Url | None = None) -> None:
        """Hold a call to the grant.

        Args:
            by: what redirects there.

        Raises:
            CallFailed: it is not granted.
        """
        whence = f" (where {by.origin} redirects to)" if by is not None else ""
        if not any(pattern.grants(url) for pattern in self._hosts):
            raise CallFailed(
                Failure.DENIED,
                not_granted(f"HTTP to {url.origin}{whence}", f"http: {{hosts: [{_in_yaml(url.authority)}]}}"),
            )
        if method not in self._methods:
            if method not in METHODS:
                raise CallFailed(
                    Failure.DENIED, f"the method {method[:20]!a} is not one that is taken: {', '.join(METHODS)}"
                )
            raise CallFailed(
                Failure.DENIED,
                not_granted(f"{method} to {url.origin}{whence}", f"http: {{methods: [{method}]}}"),
            )


def _in_yaml(host: str) -> str:
    return f'"{host}"' if host.startswith("[") else host


def _own_headers(given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A function's headers.

    Raises:
        CallFailed: one of them is none, or is not a function's to set.
    """
    too_many = CallFailed(
        Failure.TOO_LARGE, f"a request has at most {MAX_HEADERS} headers, of {format_size(MAX_HEAD)} together"
    )
    if len(given) > MAX_HEADERS:
        raise too_many
    headers: list[tuple[str, str]] = []
    names: set[str] = set()
    size = 0
    for name, value in given:
        lower = name.lower()
        value = value.strip(" \t")
        if not _NAME.fullmatch(name):
            raise CallFailed(Failure.DENIED, f"{name[:50]!a} cannot be the name of a header")
        if not _VALUE.fullmatch(value):
            raise CallFailed(
                Failure.DENIED,
                f"the value of the header '{name[:50]}' has a line end, a control character or one beyond ASCII "
                "in it: encode it, as with base64 or urllib.parse.quote",
            )
        if lower in _OURS or lower.startswith(_OURS_BEGIN):
            raise CallFailed(Failure.DENIED, f"the header '{name[:50]}' is written by the nexlet: leave it out")
        if lower in names:
            raise CallFailed(Failure.DENIED, f"the header '{name[:50]}' is given twice")
        names.add(lower)
        headers.append((name, value))
        size += len(name) + len(value)
    if size > MAX_HEAD:
        raise too_many
    return headers


def request_of(parts: Sequence[bytes]) -> HttpRequest:
    """What a worker asks for (`Verb.HTTP`): JSON that says it, and a body.

    Raises:
        CallFailed: its url and headers are too large to be looked at.
        FrameError: no worker of ours asks so.
    """
    head, body = parts_of(parts, 2)
    if len(head) > MAX_SAID:
        raise CallFailed(
            Failure.TOO_LARGE, f"url and headers of a request have at most {format_size(MAX_SAID)} together"
        )
    try:
        said = orjson.loads(head)
    except orjson.JSONDecodeError:
        raise FrameError("an HTTP call that is not JSON") from None
    match said:
        case {"method": str(method), "url": str(url), "headers": list(headers), "follow": bool(follow)} if (
            said.keys() == _KEYS and all(map(_is_header, headers))
        ):
            return HttpRequest(method, url, tuple((name, value) for name, value in headers), body, follow)
    raise FrameError("an HTTP call of another form")


def _is_header(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)


def answer_parts(status: int, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> Sequence[bytes]:
    """What a worker is told: JSON, and the body."""
    return orjson.dumps({"status": status, "url": url, "headers": list(headers)}), body
