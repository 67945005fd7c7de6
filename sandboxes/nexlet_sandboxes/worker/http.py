"""`context.http`: what a function says of an HTTP call, and what it is shown of the answer.

Nothing here connects anywhere: a call becomes a question to the nexlet, which holds it to the grant and makes it. So
what is checked here is only what an author should be told by Python's own errors; everything else is refused where the
call is made, whatever a worker sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlencode

import orjson

from nexlet_sandboxes.asking import Verb
from nexlet_sandboxes.texts import text_of
from nexlet_sandboxes.worker.grants import Calls, Data
from nexlet_sandboxes.worker.uncopyable import Uncopyable

__all__ = ["Headers", "Http", "HttpResponse"]

Params = Mapping[str, object] | Iterable[tuple[str, object]]

_CHARSETS: Final = {"iso-8859-1": "latin-1", "latin-1": "latin-1", "latin1": "latin-1", "us-ascii": "ascii"}


class Headers(Uncopyable, Mapping[str, str]):
    """Headers of an answer: names in any case, several of one name joined by commas."""

    __slots__ = ("__values",)

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        values: dict[str, str] = {}
        for name, value in entries:
            values[name] = f"{values[name]}, {value}" if name in values else value
        self.__values: Final = values

    def __getitem__(self, name: str) -> str:
        return self.__values[text_of(name).lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.__values))

    def __len__(self) -> int:
        return len(self.__values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and text_of(name).lower() in self.__values

    def copy(self) -> dict[str, str]:
        """The same as a dict of one's own, names in lower case."""
        return dict(self.__values)

    def __repr__(self) -> str:
        return f"<Headers: {', '.join(self.__values)}>"


class HttpResponse(Data):
    """What a server answered. A status that says failure is an answer like any other: look at `ok`.

    Attributes:
        status: 200, 404, ...
        url: where it came from, after redirects.
        headers: by name, in any case.
        data: the body; what was compressed for the way is unpacked.
    """

    __slots__ = ("headers", "status", "url")

    def __init__(self, status: int, url: str, headers: Iterable[tuple[str, str]], data: bytes) -> None:
        super().__init__(data)
        self.status = status
        self.url = url
        self.headers: Mapping[str, str] = Headers(headers)

    @property
    def ok(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status <= 299

    @property
    def text(self) -> str:
        """The body as text: UTF-8, or Latin-1 where the answer says so; what is neither is replaced."""
        kind = self.headers.get("content-type", "").lower()
        named = kind.partition("charset=")[2].partition(";")[0].strip(" \"'")
        return self.data.decode(_CHARSETS.get(named, "utf-8"), "replace")

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.data)} bytes>"


class Http(Uncopyable):
    """`context.http.get("https://api.example.com/prices", params={"of": "tea"})`: HTTP to the hosts that were granted.

    Of all methods: `params` are joined to the url; `json` is sent as JSON, `data` as it is if it is bytes or text, as a
    form if it is a mapping; `timeout` are seconds, never more than the invocation has; `redirects` says whether they
    are followed, each held to the grant as the first call is. A status of 400 or more is an answer and raises nothing.

    All raise:
        Denied: host, method or address was not granted or is not permitted, or a header is not a function's to set.
        TimedOut: no answer within the time.
        TooLarge: the request, or the answer.
        Unavailable: no such name, no connection, a certificate that is not to be trusted, no HTTP.
    """

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def get(
        self,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Ask for what is there."""
        return self.request("GET", url, params=params, headers=headers, timeout=timeout, redirects=redirects)

    def head(
        self,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Ask for its headers alone."""
        return self.request("HEAD", url, params=params, headers=headers, timeout=timeout, redirects=redirects)

    def options(
        self,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Ask what may be asked."""
        return self.request("OPTIONS", url, params=params, headers=headers, timeout=timeout, redirects=redirects)

    def post(
        self,
        url: str,
        *,
        json: object = None,
        data: object = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Hand something in."""
        return self.request(
            "POST", url, json=json, data=data, params=params, headers=headers, timeout=timeout, redirects=redirects
        )

    def put(
        self,
        url: str,
        *,
        json: object = None,
        data: object = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Put something in the place of what is there."""
        return self.request(
            "PUT", url, json=json, data=data, params=params, headers=headers, timeout=timeout, redirects=redirects
        )

    def patch(
        self,
        url: str,
        *,
        json: object = None,
        data: object = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Change a part of what is there."""
        return self.request(
            "PATCH", url, json=json, data=data, params=params, headers=headers, timeout=timeout, redirects=redirects
        )

    def delete(
        self,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Remove what is there."""
        return self.request("DELETE", url, params=params, headers=headers, timeout=timeout, redirects=redirects)

    def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        data: object = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        redirects: bool = True,
    ) -> HttpResponse:
        """Any of them, by name.

        Raises:
            TypeError, ValueError: an argument is none of what is said above.
        """
        if not isinstance(method, str) or not isinstance(url, str):
            raise TypeError("method and url are texts")
        sent = _pairs(headers, "headers")
        body, content_type = self._body(json, data)
        if content_type and not any(name.lower() == "content-type" for name, _ in sent):
            sent.append(("Content-Type", content_type))
        place = _with(text_of(url), params)
        said = {"method": text_of(method), "url": place, "headers": sent, "follow": bool(redirects)}
        try:
            question = orjson.dumps(said)
        except orjson.JSONEncodeError:  # the one thing that a text may hold and JSON may not
            raise ValueError("url, method or a header holds half a character (a lone surrogate)") from None
        host = place.partition("://")[2].partition("/")[0][:100]
        denied = (f"HTTP to {host!r}", f"http: {{hosts: [{host}]}}")
        head, answer = self._calls.ask(Verb.HTTP, question, body, denied=denied, wait=_seconds(timeout))
        told = orjson.loads(head)
        return HttpResponse(told["status"], told["url"], [tuple(entry) for entry in told["headers"]], answer)

    def _body(self, json: object, data: object) -> tuple[bytes, str]:
        if json is not None:
            if data is not None:
                raise TypeError("json= or data=, not both")
            if isinstance(json, (str, bytes, bytearray, memoryview)) and type(json) is not str:
                raise TypeError(f"json= takes what JSON can say, not {type(json).__name__}")
            return orjson.dumps(json) if isinstance(json, str) else self._calls.encode(json), "application/json"
        if data is None:
            return b"", ""
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(memoryview(data)), ""
        if isinstance(data, str):
            return text_of(data).encode("utf-8", "replace"), "text/plain; charset=utf-8"
        if isinstance(data, Mapping):
            return urlencode(_fields(data)).encode(), "application/x-www-form-urlencoded"
        raise TypeError(f"data= takes bytes, a text, or a mapping for a form, not {type(data).__name__}; or use json=")

    def __repr__(self) -> str:
        return "<Http>"


def _pairs(given: object, what: str) -> list[tuple[str, str]]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise TypeError(f"{what}= takes a mapping of names to texts, not {type(given).__name__}")
    pairs = []
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{what}= takes texts: a {type(value).__name__} has to be made one with str()")
        pairs.append((text_of(name), text_of(value)))
    return pairs


def _fields(given: Params) -> list[tuple[str, str]]:
    """Fields of a query or a form; a list stands for several of one name."""
    fields = []
    for name, value in given.items() if isinstance(given, Mapping) else given:
        several = value if isinstance(value, (list, tuple)) else (value,)
        fields += [(text_of(name), _field(one)) for one in several]
    return fields


def _field(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value).encode("utf-8", "replace").decode()


def _with(url: str, params: Params | None) -> str:
    fields = _fields(params) if params is not None else []
    if not fields:
        return url
    place, _, _ = url.partition("#")  # a fragment is never sent
    return f"{place}{'&' if '?' in place else '?'}{urlencode(fields)}"


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout= takes seconds, not {type(timeout).__name__}")
    if not timeout > 0:
        raise ValueError("timeout= takes seconds, more than none")
    return float(timeout)


for _kind in (Headers, HttpResponse, Http):
    _kind.__module__ = "nexlet_functions.authoring"  # where authors import it from: its text is theirs to see
