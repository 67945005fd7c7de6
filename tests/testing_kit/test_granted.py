"""What a function under test was granted: one suite over the double and over real buckets and a real responder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.authoring import Reject, Reply, TimedOut
from nexlet_functions.testing import AsyncFunction, HttpReply, HttpSent, Invocation, Sent, load_function

NEXFILE = """\
name: demo
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [run, {subject: mute, reply: false}]
  grants:
    publish: ["out.>"]
    request: ["prices.*", nobody]
    kv: {settings: write, other: read, missing: read}
    objects: {reports: write, archive: read}
"""

SOURCE = """\
from nexlet_functions.authoring import CallFailed, Entry, Message, ObjectInfo, StoredObject

def handler(event, context):
    return [done(step, context) for step in event.json()]

def done(step, context):
    target, verb, *arguments = step
    try:
        if target == "context":
            subject, data, headers = [*arguments, None, None][:3]
            return show({"publish": context.publish, "request": context.request}[verb](subject, data, headers=headers))
        kind, name = target
        store = context.kv(name) if kind == "kv" else context.objects(name)
        return show(called(store, verb, arguments))
    except CallFailed as error:
        return [type(error).__name__, str(error)]

def called(store, verb, arguments):
    match verb:
        case "get": return store.get(*arguments)
        case "put": return store.put(*arguments)
        case "create": return store.create(*arguments)
        case "update": return store.update(*arguments)
        case "delete": return store.delete(*arguments)
        case "keys": return store.keys()
        case "info": return store.info(*arguments)
        case "list": return store.list()

def show(value):
    if isinstance(value, Entry): return [value.text, value.revision]
    if isinstance(value, Message): return [value.text, value.headers, value.error]
    if isinstance(value, ObjectInfo): return [value.name, value.size, value.digest, value.description]
    if isinstance(value, StoredObject): return [value.text, show(value.info)]
    if isinstance(value, list): return [show(each) for each in value]
    return value
"""


@pytest.fixture(params=[False, True], ids=["double", "nats"])
def nats(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def loading(path: Path, *, nats: bool, **there: Any) -> load_function:
    path.mkdir(exist_ok=True)
    (path / "Nexfile").write_text(NEXFILE)
    (path / "function.py").write_text(SOURCE)
    return load_function(path, nats=nats, **there)


async def run(function: AsyncFunction, *steps: Any, subject: str = "run") -> Invocation:
    return await function.invoke(json=steps, subject=subject)


async def test_messages(tmp_path: Path, nats: bool) -> None:
    def price(sent: Sent) -> object:
        if sent.text == "none":
            raise Reject(404, "no such thing")
        return Reply({"of": sent.text, "for": sent.headers.get("For")}, headers={"Currency": "EUR"})

    async with loading(tmp_path, nats=nats, replies={"prices.fixed": "9.90", "prices.*": price}) as function:
        told = await run(
            function,
            ["context", "publish", "out.a", {"n": 1}, {"Kind": "first"}],
            ["context", "publish", "out.b.c", "text"],
            ["context", "publish", "elsewhere", ""],
            ["context", "request", "prices.book", "book", {"For": "Ada"}],
            ["context", "request", "prices.fixed"],
            ["context", "request", "prices.book", "none"],
            ["context", "request", "nobody", ""],
            ["context", "request", "orders.x", ""],
        )
        denied = "was not granted; add to start_request in the Nexfile: grants:"
        assert told.json() == [
            None,
            None,
            ["Denied", f"publishing on 'elsewhere' {denied} {{publish: [elsewhere]}}"],
            ['{"of":"book","for":"Ada"}', {"Currency": "EUR"}, ""],
            ["9.90", {}, ""],
            [
                "no such thing",
                {"Nats-Service-Error": "no such thing", "Nats-Service-Error-Code": "404"},
                "no such thing",
            ],
            ["Unavailable", "nobody listens on 'nobody'"],
            ["Denied", f"a request to 'orders.x' {denied} {{request: [orders.x]}}"],
        ]
        assert told.published == (Sent("out.a", b'{"n":1}', {"Kind": "first"}), Sent("out.b.c", b"text"))
        assert told.published[0].json() == {"n": 1}
        assert told.requested == (
            Sent("prices.book", b"book", {"For": "Ada"}), Sent("prices.fixed", b""), Sent("prices.book", b"none"),
        )  # fmt: skip
        later = await run(function, ["context", "publish", "out.later", ""])
        assert later.published == (Sent("out.later", b""),)
        assert later.requested == ()


async def test_what_is_published_without_an_answer(tmp_path: Path, nats: bool) -> None:
    async with loading(tmp_path, nats=nats) as function:
        for number in range(20):
            told = await run(function, ["context", "publish", "out.x", str(number)], subject="mute")
            assert told.published == (Sent("out.x", str(number).encode()),)


async def test_keys_and_values(tmp_path: Path, nats: bool) -> None:
    there = {"settings": {"theme": "dark", "limits": {"max": 3}}, "missing": None}
    async with loading(tmp_path, nats=nats, kv=there) as function:
        settings = ["kv", "settings"]
        told = await run(
            function,
            [settings, "keys"],
            [settings, "get", "limits"],
            [settings, "put", "theme", "light"],
            [settings, "create", "theme", "x"],
            [settings, "update", "theme", "blue", 3],
            [settings, "update", "theme", "red", 3],
            [settings, "get", "nothing"],
            [settings, "delete", "limits"],
            [settings, "delete", "limits"],
            [settings, "keys"],
            [settings, "create", "limits", "back"],
            [settings, "get", "theme"],
            [["kv", "other"], "keys"],
            [["kv", "other"], "put", "a", "b"],
            [["kv", "missing"], "get", "a"],
            [["kv", "secret"], "get", "a"],
        )
        denied = "was not granted; add to start_request in the Nexfile: grants: {kv:"
        assert told.json() == [
            ["limits", "theme"],
            ['{"max":3}', 2],
            3,
            ["Conflict", "the key 'theme' is in the bucket 'settings' already"],
            4,
            ["Conflict", "the key 'theme' of the bucket 'settings' has not the revision 3: get it again, then update"],
            ["NotFound", "there is no key 'nothing' in the bucket 'settings'"],
            None,
            None,
            ["theme"],
            7,
            ["blue", 4],
            [],
            ["Denied", f"writing the bucket 'other' {denied} {{other: write}}}}"],
            ["NotFound", "there is no bucket 'missing'"],
            ["Denied", f"reading the bucket 'secret' {denied} {{secret: read}}}}"],
        ]
        assert await function.kv("settings") == {"limits": b"back", "theme": b"blue"}
        assert await function.kv("other") == {}
        with pytest.raises(KeyError):
            await function.kv("missing")


async def test_objects(tmp_path: Path, nats: bool) -> None:
    async with loading(tmp_path, nats=nats, objects={"reports": {"a.txt": "Ada"}}) as function:
        reports = ["objects", "reports"]
        told = await run(
            function,
            [reports, "get", "a.txt"],
            [reports, "put", "b.txt", "Bob"],
            [reports, "list"],
            [reports, "get", "c.txt"],
            [reports, "delete", "a.txt"],
            [reports, "delete", "a.txt"],
            [["objects", "archive"], "list"],
            [["objects", "archive"], "put", "x", "y"],
        )
        ada = ["a.txt", 3, "SHA-256=bvzi_jMV31v9cSqE-vKTnLpNFAFqS4yJNFLvVsn4hxM=", ""]
        answer = told.json()
        assert answer[0][0] == "Ada"
        assert answer[0][1][:2] == ada[:2]
        assert [each[:2] for each in answer[2]] == [["a.txt", 3], ["b.txt", 3]]
        assert all(each[2].startswith("SHA-256=") for each in answer[2])
        assert answer[3:] == [
            ["NotFound", "there is no object 'c.txt' in the object store 'reports'"],
            None,
            ["NotFound", "there is no object 'a.txt' in the object store 'reports'"],
            [],
            ["Denied", "writing the object store 'archive' was not granted; add to start_request in the Nexfile: "
             "grants: {objects: {archive: write}}"],
        ]  # fmt: skip
        assert await function.objects("reports") == {"b.txt": b"Bob"}
        assert await function.objects("archive") == {}


def test_for_a_test_without_a_loop(tmp_path: Path, nats: bool) -> None:
    with loading(tmp_path, nats=nats, kv={"settings": {"theme": "dark"}}) as function:
        steps = [[["kv", "settings"], "put", "theme", "light"], ["context", "publish", "out.a", json.dumps(1)]]
        assert function.invoke(json=steps, subject="run").published == (Sent("out.a", b"1"),)
        assert function.kv("settings") == {"theme": b"light"}
        assert function.objects("reports") == {}


HTTP = """\
def handler(event, context):
    asked = event.json()
    try:
        answer = context.http.request(asked[0], asked[1], json=asked[2] if len(asked) > 2 else None)
    except CallFailed as error:
        return [isinstance(error, Denied), isinstance(error, TimedOut), str(error)]
    return [answer.status, answer.text, answer.headers.get("X-A", "")]
"""


def calling(path: Path, **there: Any) -> load_function:
    grant = "  grants: {http: {hosts: [api.example.com], methods: [GET, POST]}}\n"
    (path / "Nexfile").write_text(NEXFILE.partition("  grants:")[0] + grant)
    (path / "function.py").write_text(HTTP)
    return load_function(path, **there)


async def test_http_is_held_to_its_grant_and_answered_by_the_test(tmp_path: Path) -> None:
    def orders(call: HttpSent) -> Any:
        if call.json() == {"n": 0}:
            raise TimedOut("too slow")
        return HttpReply(201, call.json(), {"X-A": call.headers["content-type"]})

    answers = {"https://api.example.com/tea": "3 EUR", "https://api.example.com/orders/*": orders}
    async with calling(tmp_path, http=answers) as function:

        async def call(*asked: Any) -> Any:
            return (await function.invoke(json=list(asked), subject="run")).json()

        assert await call("GET", "https://api.example.com/tea?of=a") == [200, "3 EUR", ""]
        assert await call("POST", "https://api.example.com/orders/1", {"n": 1}) == [201, '{"n":1}', "application/json"]
        assert await call("POST", "https://api.example.com/orders/1", {"n": 0}) == [False, True, "too slow"]
        assert "nobody answers at https://api.example.com/" in (await call("GET", "https://api.example.com"))[2]
        for method, url, line in (
            ("GET", "https://example.com/", "http: {hosts: [example.com]}"),
            ("DELETE", "https://api.example.com/", "http: {methods: [DELETE]}"),
        ):
            denied, _, text = await call(method, url)
            assert denied
            assert line in text
        result = await function.invoke(json=["GET", "https://api.example.com/tea"], subject="run")
        assert [(each.method, each.url) for each in result.called] == [("GET", "https://api.example.com/tea")]


def test_who_says_who_answers_http_stays_at_the_desk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HTTP goes out"):
        calling(tmp_path, http={"https://api.example.com/": "hi"}, nats=True)
