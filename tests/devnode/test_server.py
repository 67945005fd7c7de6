"""The embedded nats-server: started, restarted, paused, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import sysconfig
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from nexlet_functions.devnode.server import EmbeddedServer, ServerNotFound, find_nats_server
from tests.support.polling import eventually


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def lets_in(server: EmbeddedServer, **credentials: str) -> bool:
    client = Client()
    try:
        await client.connect(server.url, connect_timeout=1, allow_reconnect=False, error_cb=_ignore, **credentials)  # type: ignore[arg-type]  # texts all
    except (nats.errors.Error, TimeoutError, OSError):
        return False
    finally:
        await client.close()
    return True


async def _ignore(error: Exception) -> None:
    """What went wrong is raised as well."""


async def test_nothing_is_left_behind() -> None:
    async with EmbeddedServer() as server:
        pid, log = server.pid, server.log_file
        assert pid is not None
        connected = await nats.connect(server.url)
        assert (await connected.jetstream().account_info()).streams == 0
        await connected.close()
    assert server.pid is None
    assert not alive(pid)
    assert not log.parent.exists()


async def test_many_side_by_side() -> None:
    servers = [EmbeddedServer(jetstream=False) for _ in range(5)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        assert len({server.url for server in servers}) == 5
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def test_a_restart_keeps_address_and_streams(nats_server: EmbeddedServer) -> None:
    url = nats_server.url
    connected = await nats.connect(url)
    await connected.jetstream().add_stream(name="kept", subjects=["kept.>"])
    await connected.close()
    await nats_server.restart()
    assert nats_server.url == url
    connected = await nats.connect(url)
    assert (await connected.jetstream().stream_info("kept")).config.name == "kept"
    await connected.close()
    await nats_server.kill()
    assert nats_server.pid is None
    await nats_server.start()
    assert nats_server.url == url


async def test_its_configuration_is_read_again() -> None:
    async with EmbeddedServer(config='authorization { user: "a", password: "a" }') as server:
        assert await lets_in(server, user="a", password="a")
        assert not await lets_in(server, user="b", password="b")
        server.reconfigure('authorization { user: "b", password: "b" }')
        async with asyncio.timeout(10):
            while not await lets_in(server, user="b", password="b"):
                pass  # a server reads its configuration when it comes to it
        assert not await lets_in(server, user="a", password="a")


async def test_a_server_that_cannot_start_says_why() -> None:
    server = EmbeddedServer(config="this is no configuration {")
    with pytest.raises(RuntimeError, match="did not start") as failed:
        await server.start()
    assert "Parse error on line 4" in str(failed.value)
    assert server.pid is None


async def test_it_can_be_paused(nats_server: EmbeddedServer) -> None:
    nats_server.signal(signal.SIGSTOP)
    assert not await lets_in(nats_server)
    nats_server.signal(signal.SIGCONT)
    assert await lets_in(nats_server)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent by itself")
async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, os\n"
        "from nexlet_functions.devnode.server import EmbeddedServer\n"
        "async def main():\n"
        "    server = await EmbeddedServer(jetstream=False).start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    assert alive(pid)
    process.kill()
    await process.wait()
    await eventually(lambda: not running(pid), what="the server is gone")


def running(pid: int) -> bool:
    """Alive, and not only waiting to be reaped by whoever inherited it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_no_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_nats_server().exists()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerNotFound, match=r"nexlet-functions\[dev\]"):
        find_nats_server()
