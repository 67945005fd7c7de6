"""A secret on its way from `nexfn secrets set` to a function, by processes as users have them; and where it is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient, ControlRefused
from nexlet_functions.devnode.buckets import make_buckets
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.keys import CurveKey
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.cli import environment, nexfn
from tests.support.live import StartLive, live, temporary
from tests.support.polling import eventually
from tests.support.processes import descendants
from tests.support.row import row

__all__ = ["live", "temporary"]

CANARY = "canary-5ca1ab1e0ddba11"
SOURCE = """
import hashlib

def handler(event, context):
    context.log.info("asked")
    if event.text == "raise":
        raise ValueError("no")
    return hashlib.sha256(context.env["TOKEN"].encode()).hexdigest()
"""


@pytest.fixture
async def heard(nats_server: EmbeddedServer) -> AsyncIterator[tuple[Client, list[bytes]]]:
    """A client, and everything that anybody says on the server."""
    client, said = await nats.connect(nats_server.url), list[bytes]()

    async def hear(message: Msg) -> None:
        said.append(b" ".join([message.subject.encode(), str(message.headers).encode(), message.data]))

    await client.subscribe(">", cb=hear)
    await client.flush()
    yield client, said
    await client.close()


def request(name: str, **environment: str) -> StartWorkloadRequest:
    start = {"source": SOURCE, "triggers": [name], "environment": environment}
    return StartWorkloadRequest(
        name=name,
        namespace="acme",
        description="",
        workload_type="python",
        workload_lifecycle=WorkloadLifecycle.FUNCTION,
        run_request=json.dumps(start),
        tags={},
    )


def files_with(folder: Path, canary: bytes) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and canary in file.read_bytes()]


def told_in_proc(pids: list[int], canary: bytes) -> list[str]:
    found = []
    for pid in pids:
        for name in ("environ", "cmdline"):
            try:
                data = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue  # it ended, or nobody may look
            if canary in data:
                found.append(f"{pid}/{name}")
    return found


@row("a secret that is missing, or that this nexlet cannot open")
async def test_it_reaches_the_function_and_nothing_else(
    nats_server: EmbeddedServer, heard: tuple[Client, list[bytes]], live: StartLive, tmp_path: Path
) -> None:
    client, said = heard
    await make_buckets(nats_server.url, "nexlet-secrets")
    control = ControlClient(client, "acme", nodes=1)
    state = tmp_path / "state"
    async with await DevNode.start(nats_server.url) as node:
        up = await live("up", "-s", nats_server.url, "--state-dir", state, "--secrets-bucket", "nexlet-secrets",
                        "--log-level", "debug", env=environment(TMPDIR=str(tmp_path)))  # fmt: skip
        await eventually(lambda: node.registrations.healthy("python"), within=30, what="it has registered")
        common = ("-s", nats_server.url, "-n", "acme", "--nodes", "1")
        done = await nexfn("secrets", "set", "token", *common, stdin=f"{CANARY}\n".encode())
        assert done.code == 0, done.err
        listed = await nexfn("secrets", "list", *common)
        deployed = await control.start(request("tell", TOKEN="secret://token"))
        answer = await client.request("tell", b"", timeout=10)
        assert answer.data.decode() == hashlib.sha256(CANARY.encode()).hexdigest()
        await client.request("tell", b"raise", timeout=10)
        with pytest.raises(ControlRefused, match="secret://other"):
            await control.start(request("missing", TOKEN="secret://other"))
        elsewhere = ("--xkey", CurveKey.generate().public)
        assert (await nexfn("secrets", "set", "sealed", *common, *elsewhere, stdin=CANARY.encode())).code == 0
        with pytest.raises(ControlRefused, match="not sealed to this nexlet's key"):
            await control.start(request("sealed", TOKEN="secret://sealed"))
        assert (await nexfn("secrets", "remove", "sealed", *common)).code == 0

        # A new value is that of the function from its next deployment on.
        assert (await nexfn("secrets", "set", "token", *common, stdin=b"another")).code == 0
        assert (await client.request("tell", b"", timeout=10)).data == answer.data
        await control.stop(deployed.id)
        await control.start(request("tell", TOKEN="secret://token"))
        renewed = await client.request("tell", b"", timeout=10)
        assert renewed.data.decode() == hashlib.sha256(b"another").hexdigest()

        secret = CANARY.encode()
        workloads = await control.workloads()
        assert CANARY not in str([one.to_json() for one in workloads])
        processes = [pid for pid, _ in descendants(up.process.pid)]
        assert len(processes) >= 2, "the process that makes workers, and a worker"
        assert told_in_proc([up.process.pid, *processes, os.getpid()], secret) == []
        assert [line for line in said if secret in line] == []
        assert files_with(state, secret) == []
        assert files_with(nats_server.log_file.parent, secret) == []
        removed = await nexfn("secrets", "remove", "token", *common)
        assert removed.code == 0
        with pytest.raises(ControlRefused, match="none of that name"):
            await control.start(request("again", TOKEN="secret://token"))
        assert await up.end() == 0
        for ended in (done, listed, removed):
            assert CANARY not in ended.out + ended.err
        assert CANARY not in str(up.records) + str(up.errors)
        assert [record["key"] for record in listed.records] == ["token"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (("set", "token"), b"", "invalid-value"),
        (("set", "token"), b"\xff", "invalid-value"),
        (("set", "token"), b"x" * 70_000, "invalid-value"),
        (("set",), b"x", "invalid-key"),
        (("set", "../x"), b"x", "invalid-key"),
        (("list", "token"), b"", "invalid-key"),
        (("set", "token", "--xkey", "XNONE"), b"x", "invalid-xkey"),
        (("set", "token"), b"x", "no-bid"),
        (("list",), b"", "bucket-unavailable"),
        (("remove", "token"), b"", "bucket-unavailable"),
    ],
)
async def test_what_cannot_be_done_is_said(
    nats_server: EmbeddedServer, arguments: tuple[str, ...], stdin: bytes, code: str
) -> None:
    ended = await nexfn("secrets", *arguments, "-s", nats_server.url, "-n", "acme", "--nodes", "1", stdin=stdin)
    assert ended.code != 0
    assert ended.error["code"] == code, ended.err


async def test_a_value_is_no_argument(nats_server: EmbeddedServer) -> None:
    ended = await nexfn("secrets", "set", "token", CANARY, "-s", nats_server.url)
    assert ended.code == 2
