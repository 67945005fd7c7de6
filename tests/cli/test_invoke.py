"""`nexfn invoke` as a process, against responders on a real server."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.cli import environment, nexfn
from tests.support.settle import settle


@pytest.fixture
def deadlines() -> list[str | None]:
    """What the callers of `echo` said about how long they wait."""
    return []


@pytest.fixture
async def client(nats_server: EmbeddedServer, deadlines: list[str | None]) -> AsyncIterator[Client]:
    """A connection that answers on `echo` and `fail`, as a function would."""
    connection = await nats.connect(nats_server.url)

    async def echo(message: Msg) -> None:
        headers = {"workload_id": "w1", "namespace": "demo", **(message.headers or {})}
        assert headers.pop("Nex-Invocation-Id", None) == "?", "it asks for the id"
        deadlines.append(headers.pop("Nex-Deadline-Ms", None))
        await connection.publish(message.reply, message.data, headers=headers)

    async def fail(message: Msg) -> None:
        error = {"error": "qty must be > 0", "Nats-Service-Error": "qty must be > 0", "Nats-Service-Error-Code": "422"}
        await connection.publish(message.reply, b"qty must be > 0", headers={"workload_id": "w1", **error})

    async def silent(_: Msg) -> None:
        pass

    await connection.subscribe("echo", cb=echo)
    await connection.subscribe("fail", cb=fail)
    await connection.subscribe("silent", cb=silent)
    await settle(connection)
    yield connection
    await connection.close()


async def test_an_answer_is_one_record(client: Client, nats_server: EmbeddedServer) -> None:
    ended = await nexfn("invoke", "-s", nats_server.url, "echo", '{"name": "Ada"}', "-H", "X-One: 1", "-H", "X-Two:2")
    assert ended.code == 0, ended.err
    (record,) = ended.records
    assert record["type"] == "answer"
    assert record["ok"] is True
    assert record["code"] == 200
    assert record["json"] == {"name": "Ada"}
    assert record["headers"] == {"workload_id": "w1", "namespace": "demo", "X-One": "1", "X-Two": "2"}
    assert record["round_trip_ms"] > 0
    assert "duration_ms" not in record, "nobody told"


async def test_for_people_the_body_comes_first_and_then_how_it_came(
    client: Client, nats_server: EmbeddedServer
) -> None:
    ended = await nexfn("invoke", "--text", "-s", nats_server.url, "echo", '{"a":1}', "-H", "X-One: 1")
    *body, header, how = ended.out.splitlines()
    assert json.loads("\n".join(body)) == {"a": 1}
    assert header == "X-One: 1"
    assert how.startswith("200 in ")
    assert how.endswith(" ms by demo/w1")


HALF = '{"word": "\\ud800", "name": "Zoë"}'
"""JSON that says half of a surrogate pair: every client may send it, and no encoding can write what it stands for."""


async def test_what_cannot_be_written_is_shown_all_the_same(client: Client, nats_server: EmbeddedServer) -> None:
    asked = ("invoke", "-s", nats_server.url, "echo", HALF)
    ended = await nexfn(*asked)
    assert (ended.code, ended.err) == (0, "")
    assert ended.records[0]["json"] == json.loads(HALF)
    shown = await nexfn(*asked, "--text")
    assert (shown.code, shown.err) == (0, "")
    assert json.loads(shown.out[: shown.out.index("}") + 1]) == {"word": "\ufffd", "name": "Zoë"}


async def test_an_output_that_is_not_utf_8_gets_what_it_can_show(client: Client, nats_server: EmbeddedServer) -> None:
    asked = ("invoke", "-s", nats_server.url, "echo", '{"name": "Zoë", "sign": "\U0001f600"}')
    latin = environment(PYTHONIOENCODING="ascii")
    ended = await nexfn(*asked, env=latin)
    assert ended.code == 0, ended.err
    assert ended.records[0]["json"] == {"name": "Zoë", "sign": "\U0001f600"}
    shown = await nexfn(*asked, "--text", env=latin)
    assert shown.code == 0, shown.err
    assert '"name": "Zo\\xeb"' in shown.out


async def test_an_error_as_the_answer_ends_with_1(client: Client, nats_server: EmbeddedServer) -> None:
    ended = await nexfn("invoke", "-s", nats_server.url, "fail")
    assert ended.code == 1
    assert ended.records[0] | {"round_trip_ms": 0} == {
        "type": "answer",
        "subject": "fail",
        "round_trip_ms": 0,
        "ok": False,
        "code": 422,
        "error": "qty must be > 0",
        "headers": ended.records[0]["headers"],
        "text": "qty must be > 0",
    }
    text = await nexfn("invoke", "--text", "-s", nats_server.url, "fail")
    assert text.out.splitlines()[0] == "error 422: qty must be > 0"
    assert len(text.out.splitlines()) == 2  # the body says the same, and is not said again


async def test_nobody_listening_ends_with_3(nats_server: EmbeddedServer) -> None:
    ended = await nexfn("invoke", "-s", nats_server.url, "nowhere")
    assert (ended.code, ended.out, ended.error["code"]) == (3, "", "no-responders")


async def test_no_answer_in_time_ends_with_4(client: Client, nats_server: EmbeddedServer) -> None:
    ended = await nexfn("invoke", "-s", nats_server.url, "silent", "--timeout", "200ms")
    assert (ended.code, ended.error["code"]) == (4, "request-timeout")


async def test_no_server_ends_with_3(nats_server: EmbeddedServer) -> None:
    await nats_server.kill()
    ended = await nexfn("invoke", "-s", nats_server.url, "x")
    assert (ended.code, ended.error["code"]) == (3, "connect-failed")


async def test_the_payload_may_come_from_a_file_or_from_standard_input(
    client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "payload").write_bytes(b"\xff\x00from a file")
    ended = await nexfn("invoke", "-s", nats_server.url, "echo", f"@{tmp_path / 'payload'}")
    assert ended.records[0]["base64"] == "/wBmcm9tIGEgZmlsZQ=="
    typed = await nexfn("invoke", "-s", nats_server.url, "echo", os.fsdecode(b"\xff"))
    assert base64.b64decode(typed.records[0]["base64"]) == b"\xff"
    ended = await nexfn("invoke", "-s", nats_server.url, "echo", "-", stdin=b"piped in")
    assert ended.records[0]["text"] == "piped in"


async def test_without_reply_a_message_is_published(client: Client, nats_server: EmbeddedServer) -> None:
    heard = await client.subscribe("fire")
    await settle(client)
    ended = await nexfn("invoke", "--no-reply", "-s", nats_server.url, "fire", "data", "-H", "A: b")
    assert ended.code == 0
    assert ended.records == [{"type": "published", "subject": "fire"}]
    message = await heard.next_msg(5)
    assert (message.data, message.reply, message.headers) == (b"data", "", {"A": "b"})


async def test_every_option_may_come_from_the_environment(client: Client, nats_server: EmbeddedServer) -> None:
    env = environment(NATS_URL=nats_server.url, NEXFN_HEADER="A: b\nC: d", NEXFN_TIMEOUT="3s", NEXFN_JSON="0")
    ended = await nexfn("invoke", "echo", "hi", env=env)
    assert ended.out.splitlines()[:3] == ["hi", "A: b", "C: d"]


async def test_a_message_that_is_too_large_is_not_sent(
    client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (1024 * 1024 + 1))
    ended = await nexfn("invoke", "-s", nats_server.url, "echo", f"@{tmp_path / 'large'}")
    assert (ended.code, ended.error["code"]) == (1, "payload-too-large")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["a b"], "invalid-subject"),
        (["orders.*"], "invalid-subject"),
        (["x", "@/nowhere/at/all"], "file-unreadable"),
        (["x", "-H", "no colon"], "invalid-header"),
        (["x", "-H", "A: b\r\nC: d"], "invalid-header"),
        (["x", "-H", "A: \udcff"], "invalid-header"),
        (["x", "--timeout", "3"], "invalid-duration"),
        (["x", "--timeout", "0s"], "invalid-duration"),
        (["x", "-s", "nats://ada:secret@127.0.0.1"], "secret-in-argument"),
        (["x", "-s", "ada:secret@127.0.0.1"], "secret-in-argument"),
        (["x", "--creds", "/nowhere/at/all"], "settings-refused"),
        (["x", "--user", "ada"], "credentials-invalid"),
    ],
)
async def test_wrong_arguments_end_with_2_before_anything_is_sent(arguments: list[str], code: str) -> None:
    ended = await nexfn("invoke", *arguments)
    assert (ended.code, ended.out, ended.error["code"]) == (2, "", code)
    assert "secret@" not in ended.err


AUTHORIZED = """
authorization {
  users: [
    { user: ada, password: "p-a-s-s", permissions: { publish: [">"], subscribe: [">"] } }
    { user: eve, password: "p-a-s-s", permissions: { publish: ["_INBOX.>"], subscribe: [">"] } }
  ]
}
"""


async def test_credentials_come_from_files_and_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p-a-s-s\n")
    async with EmbeddedServer(config=AUTHORIZED, jetstream=False) as server:
        by_file = await nexfn(
            "invoke", "-s", server.url, "--user", "ada", "--password-file", tmp_path / "password", "x"
        )
        assert by_file.error["code"] == "no-responders"
        by_variable = await nexfn(
            "invoke", "x", env=environment(NEXFN_SERVERS=server.url, NEXFN_USER="ada", NEXFN_PASSWORD="p-a-s-s")
        )
        assert by_variable.error["code"] == "no-responders"
        by_url = await nexfn("invoke", "x", env=environment(NATS_URL=server.url.replace("//", "//ada:p-a-s-s@")))
        assert by_url.error["code"] == "no-responders"
        wrong = await nexfn("invoke", "x", env=environment(NATS_URL=server.url.replace("//", "//ada:wr-o-ng@")))
        assert (wrong.code, wrong.error["code"]) == (3, "connect-failed")
        assert "wr-o-ng" not in wrong.err
        forbidden = await nexfn("invoke", "x", env=environment(NATS_URL=server.url.replace("//", "//eve:p-a-s-s@")))
        assert (forbidden.code, forbidden.error["code"]) == (1, "publish-refused")
        dropped = await nexfn(
            "invoke", "--no-reply", "x", env=environment(NATS_URL=server.url.replace("//", "//eve:p-a-s-s@"))
        )
        assert (dropped.code, dropped.error["code"]) == (1, "publish-refused")


async def test_the_function_is_told_how_long_the_caller_waits(
    client: Client, nats_server: EmbeddedServer, deadlines: list[str | None]
) -> None:
    for more in ((), ("--timeout", "1m"), ("-H", "nex-deadline-ms: 7"), ("-H", "Nex-Deadline-Ms: 8")):
        ended = await nexfn("invoke", "-s", nats_server.url, "echo", *more)
        assert ended.code == 0, ended.err
    assert deadlines == ["5000", "60000", None, "8"], "its own word about it is left alone"
