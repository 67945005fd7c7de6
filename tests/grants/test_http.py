"""What a function's HTTP is like when nobody attacks: a real client, real servers, names of our own."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from nexlet_functions.grants.failures import CallFailed, Failure
from nexlet_functions.grants.http_client import KEEP_ALIVE, HttpAnswer, HttpClient, HttpMemory
from nexlet_functions.grants.http_requests import HttpRequest
from nexlet_functions.grants.resolving import MAX_LOOKUPS, ThreadResolver
from nexlet_functions.rules import HttpRules
from nexlet_models.start_request import HttpGrant
from tests.support.http_server import Asked, answer, serving, silent
from tests.support.outside import HOME, TRUST, Outside
from tests.support.polling import eventually
from tests.support.row import row

ENOUGH = 60.0


async def call(client: HttpClient, method: str, url: str, *, within: float = ENOUGH, **request: Any) -> HttpAnswer:
    deadline = asyncio.get_running_loop().time() + within
    return await client.call(HttpRequest(method, url, **request), deadline)


async def refused(client: HttpClient, method: str, url: str, **request: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await call(client, method, url, **request)
    return failed.value


async def test_a_call_and_its_answer(outside: Outside) -> None:
    outside.server.pages["/prices"] = answer(b'{"eur": 3}', Content_Type="application/json", X_Odd="gr\xfcn")
    client = outside.client("api.example.com:{port}")
    got = await call(client, "GET", outside.url("/prices?of=tea"), headers=(("X-Key", "k"),))
    assert (got.status, got.body, got.url) == (200, b'{"eur": 3}', outside.url("/prices?of=tea"))
    assert got.headers == (("content-type", "application/json"), ("x-odd", "gr\xfcn"), ("content-length", "10"))
    asked = outside.server.asked[0]
    assert asked.line == "GET /prices?of=tea HTTP/1.1"
    assert asked.headers["host"] == f"api.example.com:{outside.server.port}"
    assert asked.headers["x-key"] == "k"
    assert asked.headers["user-agent"].startswith("nexlet-functions/")
    assert set(asked.headers) == {"host", "user-agent", "accept", "accept-encoding", "x-key"}


async def test_a_status_is_an_answer(outside: Outside) -> None:
    outside.server.pages["/broken"] = answer(b"oh", 503)
    client = outside.client("api.example.com:{port}")
    assert (await call(client, "GET", outside.url("/broken"))).status == 503
    assert (await call(client, "GET", outside.url("/missing"))).status == 404


async def test_what_is_sent_arrives(outside: Outside) -> None:
    outside.server.pages["/orders"] = answer(b"", 201)
    client = outside.client("api.example.com:{port}")
    for body in (b"", b"x", bytes(range(256)) * 1000):
        await call(client, "POST", outside.url("/orders"), body=body, headers=(("Content-Type", "a/b"),))
    assert [len(asked.body) for asked in outside.server.asked] == [0, 1, 256_000]
    assert outside.server.asked[2].body == bytes(range(256)) * 1000
    assert outside.server.asked[0].headers["content-length"] == "0"
    failed = await refused(client, "POST", outside.url("/orders"), body=bytes(1024 * 1024 + 1))
    assert failed.failure is Failure.TOO_LARGE
    assert len(outside.server.asked) == 3


async def test_a_head_has_no_body_whatever_its_headers_say(outside: Outside) -> None:
    outside.server.pages["/file"] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nContent-Encoding: gzip\r\n\r\n"
    outside.server.pages["/none"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    client = outside.client("api.example.com:{port}")
    assert (await call(client, "HEAD", outside.url("/file"))).body == b""
    assert (await call(client, "DELETE", outside.url("/none"))).status == 204


async def test_a_connection_is_used_again_and_looked_up_once(outside: Outside) -> None:
    outside.server.pages["/"] = answer(b"hello")
    client = outside.client("api.example.com:{port}")
    for _ in range(3):
        await call(client, "GET", outside.url())
    assert (outside.server.connections, outside.names.asked) == (1, ["api.example.com"])
    assert KEEP_ALIVE < ENOUGH


async def test_two_functions_share_no_connection(outside: Outside) -> None:
    outside.server.pages["/"] = answer(b"hello")
    for _ in range(2):
        await call(outside.client("api.example.com:{port}"), "GET", outside.url())
    assert outside.server.connections == 2


async def test_a_name_that_changes_its_mind_gains_nothing(outside: Outside) -> None:
    """Rebinding: looked at, then connected to, with another answer in between."""
    outside.server.pages["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    outside.names.table["api.example.com"] = [[HOME], ["127.0.0.1"]]
    client = outside.client("api.example.com:{port}")
    assert (await call(client, "GET", outside.url())).body == b"hi"
    assert outside.names.asked == ["api.example.com"], "one look-up for one connection"
    assert (await refused(client, "GET", outside.url())).failure is Failure.DENIED


async def test_of_a_names_addresses_only_the_permitted_are_tried(outside: Outside) -> None:
    outside.server.pages["/"] = answer(b"hi")
    outside.names.table["api.example.com"] = [["127.0.0.1", "::1", "10.0.0.1", HOME]]
    assert (await call(outside.client("api.example.com:{port}"), "GET", outside.url())).body == b"hi"


async def test_an_address_that_does_not_answer_leaves_the_next(outside: Outside) -> None:
    outside.server.pages["/"] = answer(b"hi")
    rules = HttpRules.model_validate({"addresses": ["127.0.0.0/24"]})
    outside.names.table["api.example.com"] = [["127.0.0.3", HOME]]  # nobody listens on the first
    client = outside.client("api.example.com:{port}", addresses=rules.addresses)
    assert (await call(client, "GET", outside.url())).body == b"hi"
    outside.names.table["api.example.com"] = [["127.0.0.3", "127.0.0.4"]]
    client = outside.client("api.example.com:{port}", addresses=rules.addresses)
    assert (await refused(client, "GET", outside.url())).text.endswith("cannot be connected to")


async def test_a_refusal_says_what_to_add_and_nothing_of_the_query(outside: Outside) -> None:
    client = outside.client("api.example.com", methods=["GET"])
    failed = await refused(client, "GET", "https://other.example.com:8443/a?key=secret")
    assert failed.text == (
        "HTTP to https://other.example.com:8443 was not granted; "
        "add to start_request in the Nexfile: grants: {http: {hosts: [other.example.com:8443]}}"
    )
    failed = await refused(client, "POST", "https://api.example.com/hooks/secret")
    assert failed.text == (
        "POST to https://api.example.com was not granted; "
        "add to start_request in the Nexfile: grants: {http: {methods: [POST]}}"
    )
    assert outside.names.asked == []


# --- redirects -----------------------------------------------------------------------------------------------------


def redirect(location: str, status: int = 302) -> bytes:
    return answer(b"moved", status, Location=location)


@pytest.mark.parametrize(
    ("method", "status", "then", "keeps"),
    [
        ("GET", 301, "GET", True),
        ("HEAD", 302, "HEAD", True),
        ("POST", 301, "GET", False),
        ("POST", 302, "GET", False),
        ("PUT", 302, "PUT", True),
        ("POST", 303, "GET", False),
        ("DELETE", 303, "GET", False),
        ("HEAD", 303, "HEAD", True),
        ("POST", 307, "POST", True),
        ("PUT", 308, "PUT", True),
    ],
)
async def test_what_a_redirect_makes_of_a_method(
    outside: Outside, method: str, status: int, then: str, keeps: bool
) -> None:
    outside.server.pages |= {"/old": redirect("/new", status), "/new": b"HTTP/1.1 204 It\r\n\r\n"}
    if method == "HEAD":
        outside.server.pages["/old"] = f"HTTP/1.1 {status} It\r\nLocation: /new\r\n\r\n".encode()
    client = outside.client("api.example.com:{port}")
    body = b"" if method in ("GET", "HEAD") else b"sent"
    got = await call(client, method, outside.url("/old"), body=body, headers=(("Content-Type", "a/b"), ("X-Key", "k")))
    assert (got.status, got.url) == (204, outside.url("/new"))
    asked = outside.server.asked[1]
    assert asked.line == f"{then} /new HTTP/1.1"
    assert asked.body == (body if keeps else b"")
    assert ("content-type" in asked.headers) is keeps
    assert asked.headers["x-key"] == "k", "within one origin all headers stay"


async def test_another_origin_is_not_told_who_asks(outside: Outside) -> None:
    outside.server.pages |= {"/old": redirect(outside.url("/new", host="other.example.com")), "/new": answer(b"hi")}
    secret = ("Authorization", "Cookie", "X-Api-Key", "X-Amz-Security-Token")
    client = outside.client("*.example.com:{port}")
    await call(
        client, "GET", outside.url("/old"), headers=(*((name, "s") for name in secret), ("Accept", "text/plain"))
    )
    first, second = outside.server.asked
    assert {name.lower() for name in secret} <= set(first.headers)
    assert set(second.headers) == {"host", "user-agent", "accept", "accept-encoding"}
    assert second.headers["accept"] == "text/plain"
    assert second.headers["host"] == f"other.example.com:{outside.server.port}"


async def test_redirects_are_followed_so_often_and_only_if_wanted(outside: Outside) -> None:
    outside.server.pages |= {f"/{number}": redirect(f"/{number + 1}") for number in range(6)} | {"/6": answer(b"end")}
    client = outside.client("api.example.com:{port}")
    assert (await call(client, "GET", outside.url("/1"))).body == b"end"
    assert (await refused(client, "GET", outside.url("/0"))).failure is Failure.UNAVAILABLE
    got = await call(client, "GET", outside.url("/0"), follow=False)
    assert (got.status, dict(got.headers)["location"]) == (302, "/1")


async def test_a_redirect_that_says_nothing_is_an_answer(outside: Outside) -> None:
    outside.server.pages |= {"/304": answer(b"", 304), "/300": redirect("/", 300), "/302": answer(b"where?", 302)}
    client = outside.client("api.example.com:{port}")
    for status in (304, 300, 302):
        assert (await call(client, "GET", outside.url(f"/{status}"))).status == status


# --- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"tea" * 50_000)),
        ("x-gzip", gzip.compress(b"tea" * 25_000) + gzip.compress(b"tea" * 25_000)),
        ("gzip", gzip.compress(b"tea" * 50_000) + b"\0\0\0"),
        ("deflate", zlib.compress(b"tea" * 50_000)),
        ("Deflate", zlib.compress(b"tea" * 50_000)[2:-4]),
    ],
)
async def test_what_is_compressed_is_unpacked(outside: Outside, encoding: str, body: bytes) -> None:
    outside.server.pages["/"] = answer(body, Content_Encoding=encoding, ETag="1")
    got = await call(outside.client("api.example.com:{port}"), "GET", outside.url())
    assert got.body == b"tea" * 50_000
    assert got.headers == (("etag", "1"),)


async def test_a_compression_that_is_not_ours_is_left_as_it_is(outside: Outside) -> None:
    outside.server.pages["/"] = answer(b"\x1b\x01", Content_Encoding="br")
    got = await call(outside.client("api.example.com:{port}"), "GET", outside.url())
    assert (got.body, dict(got.headers)["content-encoding"]) == (b"\x1b\x01", "br")


async def test_an_answer_in_chunks_and_one_that_ends_with_its_connection(outside: Outside) -> None:
    async def until_the_end(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()
        raise ConnectionResetError

    outside.server.pages["/chunks"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n"
    )
    outside.server.pages["/end"] = until_the_end
    client = outside.client("api.example.com:{port}")
    assert (await call(client, "GET", outside.url("/chunks"))).body == b"hello!"
    assert (await call(client, "GET", outside.url("/end"))).body == b"until the end"


async def test_an_answer_as_large_as_permitted(outside: Outside) -> None:
    outside.server.pages |= {"/most": answer(bytes(100_000)), "/more": answer(bytes(100_001))}
    client = outside.client("api.example.com:{port}", max_response=100_000)
    assert len((await call(client, "GET", outside.url("/most"))).body) == 100_000
    assert (await refused(client, "GET", outside.url("/more"))).failure is Failure.TOO_LARGE
    assert len((await call(client, "GET", outside.url("/most"))).body) == 100_000, "the next one is not hurt"


async def test_answers_of_all_functions_together_take_so_much_memory_and_no_more(outside: Outside) -> None:
    memory = HttpMemory(400_000)
    outside.server.pages["/"] = answer(bytes(150_000))
    outside.server.pages["/stays"] = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(150_000)
    first, second, third = (outside.client("api.example.com:{port}", memory=memory, owner=owner) for owner in "abc")
    stays = [asyncio.create_task(call(one, "GET", outside.url("/stays"))) for one in (first, second)]
    await eventually(lambda: memory.held == 300_000)
    for client in (first, third):  # the one has too much, the other finds none left
        assert (await refused(client, "GET", outside.url())).failure is Failure.UNAVAILABLE
    for task in stays:
        task.cancel()
    await asyncio.gather(*stays, return_exceptions=True)
    assert memory.held == 0
    assert len((await call(third, "GET", outside.url())).body) == 150_000
    assert memory.held == 0


@row("more is read by HTTP than a namespace's share of the memory for it")
async def test_a_namespace_leaves_room_for_the_answers_of_others(outside: Outside) -> None:
    memory = HttpMemory(400_000)
    outside.server.pages["/"] = answer(bytes(150_000))
    outside.server.pages["/stays"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(60_000)
    one, two, three, other = (outside.client("api.example.com:{port}", memory=memory, owner=name) for name in "aaab")
    stays = [asyncio.create_task(call(client, "GET", outside.url("/stays"))) for client in (one, two)]
    await eventually(lambda: memory.held == 120_000)
    with_two = await refused(one, "GET", outside.url("/stays"))
    assert "for this function" in with_two.text
    last = await refused(three, "GET", outside.url())
    assert (last.failure, "for this namespace" in last.text) == (Failure.UNAVAILABLE, True)
    assert len((await call(other, "GET", outside.url())).body) == 150_000
    for task in stays:
        task.cancel()
    await asyncio.gather(*stays, return_exceptions=True)
    assert memory.held == 0
    assert len((await call(three, "GET", outside.url())).body) == 150_000, "alone it has the room of its namespace"


# --- time ----------------------------------------------------------------------------------------------------------


async def test_a_call_that_is_given_up_lets_go_of_its_connection(outside: Outside) -> None:
    outside.server.pages |= {"/silent": silent, "/": answer(b"hi")}
    client = outside.client("api.example.com:{port}")
    asking = asyncio.create_task(call(client, "GET", outside.url("/silent")))
    await eventually(lambda: outside.server.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: outside.server.open == 0)
    assert (await call(client, "GET", outside.url())).body == b"hi"


async def test_the_operators_time_ends_a_call_before_its_deadline(outside: Outside) -> None:
    outside.server.pages["/"] = silent
    client = outside.client("api.example.com:{port}", timeout=0.1)
    assert (await refused(client, "GET", outside.url())).failure is Failure.TIMED_OUT


async def test_more_calls_than_connections_wait_within_their_time(outside: Outside) -> None:
    go, full = asyncio.Event(), asyncio.Event()

    async def when_told(_: Asked, writer: asyncio.StreamWriter) -> None:
        if outside.server.connections == 16:
            full.set()
        await go.wait()
        writer.write(answer(b"hi"))

    outside.server.pages["/"] = when_told
    client = outside.client("api.example.com:{port}")
    calls = [asyncio.create_task(call(client, "GET", outside.url())) for _ in range(40)]
    await full.wait()
    late = await refused(client, "GET", outside.url(), within=0.1)
    assert late.failure is Failure.TIMED_OUT
    assert outside.server.connections == 16
    go.set()
    assert [(await one).body for one in calls] == [b"hi"] * 40


async def test_a_name_server_that_is_silent_holds_up_nobody_else(outside: Outside) -> None:
    answers = threading.Event()

    def lookup(name: str) -> Sequence[str]:
        assert answers.wait(ENOUGH)
        return [HOME]

    outside.server.pages["/"] = answer(b"hi")
    grant = HttpGrant(hosts=(f"*.example.com:{outside.server.port}",))
    stuck = HttpClient(grant, lambda: outside.rules, resolver=ThreadResolver(lookup), trust=TRUST, memory=HttpMemory())
    outside.clients.append(stuck)
    try:
        tried = [asyncio.create_task(refused(stuck, "GET", outside.url(), within=0.2)) for _ in range(MAX_LOOKUPS + 3)]
        assert [(await one).failure for one in tried] == [Failure.TIMED_OUT] * len(tried)
        assert [thread.name for thread in threading.enumerate()].count("look-up") == MAX_LOOKUPS
        assert (await call(outside.client("api.example.com:{port}"), "GET", outside.url())).body == b"hi"
    finally:
        answers.set()
    assert (await call(stuck, "GET", outside.url())).body == b"hi", "the name is looked up again"


# --- TLS -----------------------------------------------------------------------------------------------------------


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def believed(authority: trustme.CA, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file


async def test_https_names_the_host_and_holds_the_server_to_it(
    outside: Outside, authority: trustme.CA, believed: Path
) -> None:
    async with serving(HOME, tls=server_context(authority, "api.example.com")) as server:
        server.pages["/"] = answer(b"hi")
        client = outside.client(f"*.example.com:{server.port}", tls_ca=believed)
        assert (await call(client, "GET", f"https://API.example.com:{server.port}/")).body == b"hi"
        assert server.names == ["api.example.com"]
        failed = await refused(client, "GET", f"https://other.example.com:{server.port}/")
        assert failed.failure is Failure.UNAVAILABLE
        assert "certificate that is not to be trusted: Hostname mismatch" in failed.text
        assert len(server.asked) == 1, "nothing was said to it"


async def test_an_address_is_what_a_certificate_has_to_name(
    outside: Outside, authority: trustme.CA, believed: Path
) -> None:
    async with serving(HOME, tls=server_context(authority, HOME)) as server:
        server.pages["/"] = answer(b"hi")
        client = outside.client(f"{HOME}:{server.port}", tls_ca=believed)
        assert (await call(client, "GET", f"https://{HOME}:{server.port}/")).body == b"hi"
        assert outside.names.asked == []


async def test_an_authority_that_nobody_named_is_not_believed(outside: Outside, authority: trustme.CA) -> None:
    async with serving(HOME, tls=server_context(authority, "api.example.com")) as server:
        failed = await refused(
            outside.client(f"api.example.com:{server.port}"), "GET", f"https://api.example.com:{server.port}/"
        )
        assert "certificate that is not to be trusted" in failed.text
        assert server.asked == []


async def test_a_server_without_tls_is_not_spoken_to(outside: Outside) -> None:
    def answers_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"speak HTTP", 400))
        writer.close()

    async with await asyncio.start_server(answers_at_once, HOME, 0) as server:
        port = server.sockets[0].getsockname()[1]
        failed = await refused(
            outside.client(f"api.example.com:{port}"), "GET", f"https://api.example.com:{port}/?key=secret"
        )
    assert failed.failure is Failure.UNAVAILABLE
    assert "do not come to terms in TLS" in failed.text


async def test_https_does_not_lead_to_http(outside: Outside, authority: trustme.CA, believed: Path) -> None:
    async with serving(HOME, tls=server_context(authority, "api.example.com")) as server:
        server.pages["/"] = redirect(outside.url())
        client = outside.client(f"api.example.com:{server.port}", "api.example.com:{port}", tls_ca=believed)
        failed = await refused(client, "GET", f"https://api.example.com:{server.port}/")
        assert failed.failure is Failure.DENIED
        assert "from https to http" in failed.text
        assert outside.server.connections == 0


async def test_certificates_that_are_gone_are_the_operators_to_mend(outside: Outside, tmp_path: Path) -> None:
    client = outside.client("api.example.com:{port}", tls_ca=tmp_path / "gone.pem")
    failed = await refused(client, "GET", outside.url())
    assert failed.failure is Failure.UNAVAILABLE
    assert "ask the operator" in failed.text
    assert str(tmp_path) not in failed.text


# --- around it -----------------------------------------------------------------------------------------------------


async def test_nothing_of_the_nexlets_environment_goes_along(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.example.com login ada password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{outside.trap.port}")
    outside.server.pages |= {"/": answer(b"hi", Set_Cookie="a=b"), "/again": answer(b"hi")}
    client = outside.client("api.example.com:{port}")
    await call(client, "GET", outside.url())
    await call(client, "GET", outside.url("/again"))
    assert [set(asked.headers) & {"cookie", "authorization"} for asked in outside.server.asked] == [set(), set()]


async def test_what_an_operator_takes_back_ends_with_the_call_that_has_it(outside: Outside) -> None:
    go, reached = asyncio.Event(), asyncio.Event()

    async def when_told(_: Asked, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await go.wait()
        writer.write(answer(b"hi"))

    outside.server.pages["/"] = when_told
    rules = [outside.rules]
    client = HttpClient(
        HttpGrant(hosts=(f"api.example.com:{outside.server.port}",)),
        lambda: rules[-1],
        resolver=ThreadResolver(outside.names),
        trust=TRUST,
        memory=HttpMemory(),
    )
    outside.clients.append(client)
    running = asyncio.create_task(call(client, "GET", outside.url()))
    await reached.wait()
    rules.append(HttpRules())
    assert "loopback" in (await refused(client, "GET", outside.url())).text
    go.set()
    assert (await running).body == b"hi"
    assert "loopback" in (await refused(client, "GET", outside.url())).text
