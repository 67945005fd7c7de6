"""HTTP as a function does it: from its own code, in its own worker, through the agent, to a real server."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import AgentBench, agent_bench
from tests.support.http_server import Server, answer, serving, silent
from tests.support.outside import HOME
from tests.support.polling import eventually

RUN = """
from nexlet_functions.authoring import Http, HttpResponse


def handler(event, context):
    out = []
    for method, url, options in event.json():
        try:
            out.append(show(context.http.request(method, url, **options)))
        except CallFailed as error:
            out.append([type_of(error), str(error)])
    return out


def type_of(error):
    kinds = {"Denied": Denied, "TimedOut": TimedOut, "TooLarge": TooLarge, "Unavailable": Unavailable}
    return [name for name, kind in kinds.items() if isinstance(error, kind)][0]


def show(answer):
    return [answer.status, answer.text, answer.headers.get("X-Odd", "")]
"""
RULES = {"http": {"addresses": [f"{HOME}/32"], "max_request": "64KiB", "max_response": "128KiB"}}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(HOME) as made:
        yield made


@pytest.fixture
async def bench(nats_server: EmbeddedServer, server: Server) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server, defaults=RULES) as made:
        yield made


async def deploy(bench: AgentBench, server: Server, **start: Any) -> None:
    grant = {"hosts": [f"{HOME}:{server.port}"], "methods": ["GET", "POST"]}
    await bench.start(**{"source": RUN, "triggers": ["run"], "grants": {"http": grant}, **start})


async def run(bench: AgentBench, *steps: Any) -> list[Any]:
    answered = await bench.ask("run", json.dumps(steps).encode())
    assert answered.headers is not None
    assert "error" not in answered.headers, answered.headers
    found: list[Any] = json.loads(answered.data)
    return found


async def test_a_function_calls_what_it_was_granted(bench: AgentBench, server: Server) -> None:
    await deploy(bench, server)
    server.pages |= {"/tea": answer(b"3 EUR", X_Odd="a"), "/orders": answer("grün".encode(), 201)}
    url = f"http://{HOME}:{server.port}"
    assert await run(
        bench,
        ["GET", f"{url}/tea#now", {"params": {"of": "green tea", "size": [1, 2], "fresh": True}}],
        ["post", f"{url}/orders", {"json": {"n": 1}, "headers": {"X-Key": "k"}}],
        ["POST", f"{url}/orders?a=b", {"data": {"a": "1 2", "b": "ü"}, "params": {"c": "d"}}],
        ["POST", f"{url}/orders", {"data": "text"}],
        ["GET", f"{url}/none", {}],
    ) == [
        [200, "3 EUR", "a"],
        [201, "grün", ""],
        [201, "grün", ""],
        [201, "grün", ""],
        [404, "nothing here", ""],
    ]
    tea, order, form, text, _ = server.asked
    assert tea.line == "GET /tea?of=green+tea&size=1&size=2&fresh=true HTTP/1.1"
    assert (order.body, order.headers["content-type"], order.headers["x-key"]) == (b'{"n":1}', "application/json", "k")
    assert form.line == "POST /orders?a=b&c=d HTTP/1.1"
    assert form.body == b"a=1+2&b=%C3%BC"
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert text.body == b"text"
    assert server.connections == 1
    assert (await bench.event("WORKLOADTRIGGERED"))["calls"] == 5


async def test_what_fails_has_a_name(bench: AgentBench, server: Server) -> None:
    await deploy(bench, server)
    server.pages |= {"/large": answer(bytes(200_000)), "/silent": silent, "/not": b"SSH-2.0\r\n\r\n"}
    url = f"http://{HOME}:{server.port}"
    found = await run(
        bench,
        ["GET", "http://127.0.0.1/", {}],
        ["DELETE", url, {}],
        ["GET", url, {"headers": {"Host": "inside"}}],
        ["GET", f"{url}/large", {}],
        ["POST", url, {"data": "x" * 70_000}],
        ["GET", f"{url}/silent", {"timeout": 0.1}],
        ["GET", f"{url}/not", {}],
    )
    assert [name for name, _ in found] == [
        *("Denied", "Denied", "Denied", "TooLarge", "TooLarge", "TimedOut", "Unavailable"),
    ]
    assert found[0][1] == (
        "HTTP to http://127.0.0.1 was not granted; "
        "add to start_request in the Nexfile: grants: {http: {hosts: [127.0.0.1]}}"
    )
    assert [asked.path for asked in server.asked] == ["/large", "/silent", "/not"]


@pytest.mark.parametrize(("grants", "whom"), [({}, "'api"), ({"publish": ["out.>"]}, "https://api")])
async def test_a_function_that_was_granted_no_http_reads_what_to_add(
    bench: AgentBench, server: Server, grants: dict[str, Any], whom: str
) -> None:
    await deploy(bench, server, grants=grants)
    ((name, text),) = await run(bench, ["GET", "https://api.example.com:8443/a?key=secret", {}])
    assert name == "Denied"
    assert text.startswith(f"HTTP to {whom}.example.com:8443")
    assert text.endswith(
        "was not granted; add to start_request in the Nexfile: grants: {http: {hosts: [api.example.com:8443]}}"
    )


async def test_a_slip_in_a_call_is_pythons_own_error(bench: AgentBench, server: Server) -> None:
    await deploy(bench, server)
    for options, said in (
        ({"json": 1, "data": "a"}, "json= or data=, not both"),
        ({"timeout": 0}, "timeout= takes seconds"),
        ({"headers": {"X-A": 1}}, "headers= takes texts"),
        ({"data": 1}, "data= takes bytes, a text, or a mapping"),
    ):
        answered = await bench.ask("run", json.dumps([["POST", f"http://{HOME}", options]]).encode())
        assert answered.headers is not None
        assert said in answered.headers["error"]
    assert server.asked == []


async def test_a_call_ends_with_its_invocation(bench: AgentBench, server: Server) -> None:
    await deploy(bench, server, limits={"timeout": "300ms"})
    server.pages["/silent"] = silent
    ((name, _),) = await run(bench, ["GET", f"http://{HOME}:{server.port}/silent", {}])
    assert name == "TimedOut", "it is told in time to say something itself"
    await eventually(lambda: server.open == 0)


async def test_a_function_that_stops_leaves_no_connection(bench: AgentBench, server: Server) -> None:
    await deploy(bench, server)
    server.pages["/"] = answer(b"hi")
    await run(bench, ["GET", f"http://{HOME}:{server.port}/", {}])
    assert server.open == 1
    await bench.agent.stop_workload("W1", "acme")
    await eventually(lambda: server.open == 0)


async def test_without_the_library_a_function_is_refused_and_says_what_to_install(
    bench: AgentBench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nexlet_functions.grants.http_client", "nexlet_functions.grants.network"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "httpcore", None)
    importlib.invalidate_caches()
    grant = {"http": {"hosts": ["api.example.com"]}}
    refused = await bench.refusal(source=RUN, triggers=["run"], grants=grant)
    assert "grants.http" in refused.text
    assert "nexlet-functions[http]" in refused.text
