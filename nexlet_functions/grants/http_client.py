"""HTTP for functions: the call that a function asked for, made in its place and watched all the way.

`HttpClient.call` makes one call of one function. httpcore, the layer that httpx stands on, does HTTP itself: it parses,
keeps connections and does TLS, and nothing else. It has no proxies, cookies, netrc, redirects or decompression that
would have to be turned off, and all its connections come from one place, which is ours. The guard is ours, too:

- *Where to*: each url, a redirect's as well, is held to the grant before anything is looked up. A name is looked up
  once for a connection, its addresses are held to the operator's ranges, and that very address is connected to; Host,
  SNI and the certificate's name stay the name. So a name that says something else the second time gains nothing.
- *What goes out*: headers that frame a message or name its host are not a function's to set; after a redirect to
  another origin only those are sent that say nothing about who asks.
- *What comes in*: bytes are counted where they are read, headers and pieces where they are parsed, and what is
  compressed is unpacked step by step up to the same bound.
- *How long*: all of it within one deadline, that of the invocation or a nearer one.

A client belongs to one function, with its connections: what one leaves behind on a connection meets nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

import httpcore
import structlog

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.http_requests import MAX_HEAD, MAX_HEADERS, HttpRequest, Reach
from nexlet_functions.grants.network import METER, Meter, Network, Trust
from nexlet_functions.grants.outwards import Address, Url, UrlRefused
from nexlet_functions.grants.resolving import Resolver
from nexlet_functions.grants.unpacking import Unpacking
from nexlet_functions.rules import MAX_ANSWER, HttpRules
from nexlet_models.durations import format_duration
from nexlet_models.sizes import format_size
from nexlet_models.start_request import HttpGrant

__all__ = ["HttpAnswer", "HttpClient", "HttpMemory", "HttpRequest"]

MAX_REDIRECTS: Final = 5
MAX_CONNECTIONS: Final = 16
"""Of one function. A call more waits for one of them, within its time."""
MAX_IDLE: Final = 4
KEEP_ALIVE: Final = 5.0
"""Seconds for which an idle connection is kept: less than servers do, which then close them under a request."""
FREE_PIECES: Final = 4096
SMALL_PIECE: Final = 64
"""So many pieces of a body may be of any size; beyond them a piece has as many bytes on average. A small one costs as
much time as a large one."""
TURN: Final = 0.001
"""Seconds of work on one answer before others have their turn."""

_AGENT: Final = f"nexlet-functions/{version('nexlet-functions')}"
# What says nothing about who asks, and so may go to another origin.
_HARMLESS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "content-encoding", "user-agent"}
)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_log = structlog.stdlib.get_logger("nexlet_functions.functions")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back.

    Attributes:
        url: where it came from, after redirects.
        headers: name in lower case and value, in the order they came; not those of a compression that was undone.
        body: unpacked where it was compressed with gzip or deflate.
    """

    status: int
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


@dataclass(slots=True, eq=False)
class _Pool:
    rules: HttpRules
    connections: httpcore.AsyncConnectionPool
    users: int = 0


class HttpMemory:
    """How much of answers all functions may hold at a time while they are read.

    A namespace has half of it at most, and a function half of that, so that there is some for the others however much
    one of them reads. An answer that a function reads alone may take all that its namespace has.

    Attributes:
        held: bytes, at this moment.
    """

    def __init__(self, size: int = 2 * MAX_ANSWER) -> None:
        """Room for so many bytes."""
        self._size = size
        self._owners: Counter[str] = Counter()
        self.held = 0

    def take(self, size: int, owner: str, *, by_function: int, by_call: int) -> None:
        """Hold so many bytes more.

        Args:
            owner: the namespace that they are held for.
            by_function, by_call: bytes that are held for this function already, and for this call of it.

        Raises:
            CallFailed: there is no room for them.
        """
        all_full = self.held + size > self._size
        owner_full = self._owners[owner] + size > self._size // 2
        function_full = by_function > by_call and by_function + size > self._size // 4
        if all_full or owner_full or function_full:
            whose = "" if all_full else " for this namespace" if owner_full else " for this function"
            text = f"too many answers are being read{whose} at this moment: try again later"
            raise CallFailed(Failure.UNAVAILABLE, text)
        self.held += size
        self._owners[owner] += size

    def give_back(self, size: int, owner: str) -> None:
        """Hold them no more."""
        self.held -= size
        self._owners[owner] -= size
        if not self._owners[owner]:
            del self._owners[owner]


class HttpClient:
    """HTTP for one function."""

    def __init__(
        self,
        grant: HttpGrant,
        rules: Callable[[], HttpRules],
        *,
        resolver: Resolver,
        trust: Trust,
        memory: HttpMemory,
        owner: str = "",
        who: str = "",
    ) -> None:
        """Nothing is connected yet.

        Args:
            grant: what its start request says.
            rules: the operator's for its namespace; asked anew for each call.
            resolver: makes addresses of names.
            trust, memory: shared with other functions.
            owner: of what it holds of that memory: its namespace.
            who: the function, for the log.

        Raises:
            UrlRefused: an entry of the grant names no host.
        """
        self._reach = Reach(grant)
        self._rules = rules
        self._resolver = resolver
        self._trust = trust
        self._memory = memory
        self._owner = owner
        self._held = 0
        self._pool: _Pool | None = None
        self._retired: set[_Pool] = set()
        self._log = _log.bind(function=who)
        self._told: set[str] = set()

    def check(self, request: HttpRequest) -> None:
        """Hold a call to the grant, before anything is done.

        Raises:
            CallFailed: it may not be made.
        """
        self._reach.begin(request, self._rules().max_request)

    async def call(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Make one call.

        Args:
            request: what the function asked for.
            deadline: by the event loop's clock.

        Raises:
            CallFailed: it may not be made, or came to nothing.
        """
        rules = self._rules()
        loop = asyncio.get_running_loop()
        began = loop.time()
        meter = Meter(2 * rules.max_response + 256 * 1024)
        token = METER.set(meter)
        try:
            async with asyncio.timeout_at(min(deadline, began + rules.timeout)):
                return await self._follow(request, rules, meter)
        except TimeoutError:
            taken = format_duration(round(loop.time() - began, 3))
            raise CallFailed(Failure.TIMED_OUT, f"{meter.at} had not answered within {taken}") from None
        finally:
            METER.reset(token)
            self._held -= meter.held
            self._memory.give_back(meter.held, self._owner)

    def _hold(self, meter: Meter, size: int) -> None:
        self._memory.take(size, self._owner, by_function=self._held, by_call=meter.held)
        self._held += size
        meter.held += size

    async def close(self) -> None:
        """Close its connections. Calls that are under way fail."""
        pools = [*self._retired, *([self._pool] if self._pool is not None else [])]
        self._pool = None
        self._retired.clear()
        for pool in pools:
            await pool.connections.aclose()

    async def _follow(self, request: HttpRequest, rules: HttpRules, meter: Meter) -> HttpAnswer:
        method, url, headers = self._reach.begin(request, rules.max_request)
        body = request.body
        for _ in range(MAX_REDIRECTS + 1):
            meter.at = url.origin
            answer = await self._once(method, url, headers, body, rules, meter)
            location = [value for name, value in answer.headers if name == "location"]
            if not request.follow or answer.status not in _REDIRECTS or not location:
                return answer
            goal = _goal(url, location)
            if (answer.status == 303 and method != "HEAD") or (answer.status in (301, 302) and method == "POST"):
                method, body = "GET", b""
                headers = [entry for entry in headers if not entry[0].lower().startswith("content-")]
            self._reach.check(method, goal, by=url)
            if goal.origin != url.origin:
                headers = [entry for entry in headers if entry[0].lower() in _HARMLESS]
            url = goal
        raise CallFailed(Failure.UNAVAILABLE, f"{meter.at} redirects more than {MAX_REDIRECTS} times")

    async def _once(
        self,
        method: str,
        url: Url,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        rules: HttpRules,
        meter: Meter,
    ) -> HttpAnswer:
        """One request and its answer."""
        given = {name.lower() for name, _ in headers}
        standard = [("User-Agent", _AGENT), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate")]
        sent = [("Host", url.authority), *(entry for entry in standard if entry[0].lower() not in given), *headers]
        if body or method in ("POST", "PUT", "PATCH"):
            sent.append(("Content-Length", str(len(body))))
        try:
            async with (
                self._connections(rules) as connections,
                connections.stream(
                    method,
                    httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
                    headers=sent,
                    content=body or None,
                    extensions={"timeout": {"connect": rules.connect_timeout}},
                ) as response,
            ):
                return await self._read(response, url, rules, meter)
        except httpcore.ConnectTimeout:
            within = format_duration(rules.connect_timeout)
            raise CallFailed(Failure.TIMED_OUT, f"no connection to {url.origin} within {within}") from None
        except httpcore.ConnectError as error:
            raise CallFailed(Failure.UNAVAILABLE, f"{url.origin} {_no_connection(error)}") from None
        except httpcore.RemoteProtocolError:
            # What the library says of it may show what the server sent.
            raise CallFailed(Failure.UNAVAILABLE, f"what {url.origin} answers is not HTTP") from None
        except (httpcore.NetworkError, ssl.SSLError, OSError):
            raise CallFailed(Failure.UNAVAILABLE, f"the connection to {url.origin} was lost") from None

    async def _read(self, response: httpcore.Response, url: Url, rules: HttpRules, meter: Meter) -> HttpAnswer:
        """An answer, as far as it is within its bounds."""
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEAD:
            raise CallFailed(
                Failure.TOO_LARGE,
                f"{url.origin} answers with more than {MAX_HEADERS} headers, or {format_size(MAX_HEAD)} of them",
            )
        names = {name for name, _ in headers}
        if {"content-length", "transfer-encoding"} <= names:
            # RFC 9112, 6.1: it may be an attempt to have the end of the answer read as the beginning of another one.
            raise CallFailed(Failure.UNAVAILABLE, f"{url.origin} gives two lengths for its answer")
        encodings = [value.strip().lower() for name, value in headers if name == "content-encoding"]
        unpack = Unpacking(encodings[0]) if len(encodings) == 1 and encodings[0] in Unpacking.KINDS else None
        body: list[bytes] = []
        size = pieces = 0
        loop = asyncio.get_running_loop()
        turn = loop.time()
        try:
            async for raw in response.aiter_stream():
                for piece in unpack.feed(raw) if unpack is not None else (raw,):
                    size += len(piece)
                    if size > rules.max_response:
                        raise CallFailed(
                            Failure.TOO_LARGE,
                            f"the answer of {url.origin} is larger than {format_size(rules.max_response)}: "
                            "ask for less of it, or the operator for more",
                        )
                    self._hold(meter, len(piece))
                    body.append(piece)
                    if loop.time() - turn > TURN:
                        await asyncio.sleep(0)
                        turn = loop.time()
                pieces += 1
                if pieces > FREE_PIECES + meter.read // SMALL_PIECE:
                    raise CallFailed(Failure.TOO_LARGE, f"{url.origin} answers in too many small pieces")
            if unpack is not None:
                unpack.end()
        except zlib.error:
            raise CallFailed(
                Failure.UNAVAILABLE, f"the answer of {url.origin} is not the {encodings[0]} that it says it is"
            ) from None
        if unpack is not None:
            headers = [entry for entry in headers if entry[0] not in ("content-encoding", "content-length")]
        return HttpAnswer(response.status, str(url), tuple(headers), b"".join(body))

    @contextlib.asynccontextmanager
    async def _connections(self, rules: HttpRules) -> AsyncIterator[httpcore.AsyncConnectionPool]:
        """The connections that were made under these rules: when an operator changes them, what they permitted ends."""
        pool = self._pool
        if pool is None or pool.rules != rules:
            try:
                context = await self._trust.context(rules.tls_ca)
            except OSError as error:
                _log.error("the certificates for HTTP cannot be used", file=str(rules.tls_ca), reason=str(error))
                raise CallFailed(
                    Failure.UNAVAILABLE, "the operator's certificates cannot be used: ask the operator"
                ) from None
            if self._pool is pool:  # nobody else was quicker
                if pool is not None:
                    self._retired.add(pool)
                    await self._close_retired()
                self._pool = _Pool(rules, self._make_connections(rules, context))
            pool = self._pool
            assert pool is not None, "a client that is closed is called"
        pool.users += 1
        try:
            yield pool.connections
        finally:
            pool.users -= 1
            if self._retired:
                await self._close_retired()

    def _make_connections(self, rules: HttpRules, context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=Network(self._resolver, rules.addresses, self._tell_refused),
        )

    async def _close_retired(self) -> None:
        for pool in [pool for pool in self._retired if not pool.users]:
            self._retired.discard(pool)
            await pool.connections.aclose()

    def _tell_refused(self, host: str, address: Address, what: str) -> None:
        """Once for each name: a function may ask as often as it likes."""
        if host not in self._told and len(self._told) < MAX_HEADERS:
            self._told.add(host)
            self._log.warning(
                "a granted host leads where HTTP is not permitted to go",
                host=host,
                address=str(address),
                reason=what,
                advice="if functions are to reach it, permit the range under http.addresses of the namespace",
            )


def _goal(url: Url, location: Sequence[str]) -> Url:
    """Where a redirect leads."""
    if len(set(location)) > 1:
        raise CallFailed(Failure.UNAVAILABLE, f"{url.origin} redirects to several places at once")
    try:
        # Bytes beyond ASCII are UTF-8 wherever somebody writes them, and came as latin-1.
        goal = url.follow(location[0].encode("latin-1").decode())
    except UnicodeDecodeError:
        raise CallFailed(Failure.DENIED, f"where {url.origin} redirects to is no url") from None
    except UrlRefused as refused:
        raise CallFailed(Failure.DENIED, f"the url that {url.origin} redirects to {refused}") from None
    if (url.scheme, goal.scheme) == ("https", "http"):
        raise CallFailed(Failure.DENIED, f"{url.origin} redirects to {goal.origin}, from https to http")
    return goal


def _no_connection(error: httpcore.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"shows a certificate that is not to be trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"and this nexlet do not come to terms in TLS: {cause.reason or 'it answers no TLS'}"
        cause = cause.__cause__ or cause.__context__
    return "cannot be connected to"
