"""`nexfn up` as a process: beside a node, started by a node, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.nexfile import read_function
from nexlet_models import subjects
from nexlet_models.registration import RegisterRemoteAgentResponse
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support.cli import PROGRAM, environment, nexfn
from tests.support.polling import eventually
from tests.support.processes import catches, descendants, none_left

ROOT = Path(__file__).parents[2]
StartLive = Callable[..., Awaitable[Any]]


@pytest.fixture
async def node(nats_server: EmbeddedServer) -> AsyncIterator[DevNode]:
    """A stand-in node on this test's server."""
    async with await DevNode.start(nats_server.url) as node:
        yield node


@pytest.fixture
async def client(nats_server: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection to this test's server."""
    connection = await nats.connect(nats_server.url)
    yield connection
    await connection.close()


async def deploy(client: Client, request: Mapping[str, object], *, name: str = "made", description: str = "") -> str:
    control = ControlClient(client, "demo", nodes=1)
    started = await control.start(
        StartWorkloadRequest(
            name=name,
            namespace="demo",
            description=description,
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps(request),
            tags={},
        )
    )
    return started.id


async def deploy_greet(client: Client) -> str:
    function = read_function(ROOT / "samples" / "greet")
    return await deploy(client, function.request, name=function.name, description=function.description)


async def registered(node: DevNode) -> None:
    """Return once the node would send starts to a nexlet."""
    await eventually(lambda: node.registrations.healthy("python"), within=30, what="no nexlet has registered")


async def test_it_registers_serves_and_ends_in_order(
    live: StartLive, node: DevNode, client: Client, nats_server: EmbeddedServer, temporary: Path
) -> None:
    up = await live("up", "-s", nats_server.url, "--no-state")
    await registered(node)
    await deploy_greet(client)
    answer = await client.request("greet.hello", b'{"name": "Ada"}', timeout=10)
    assert json.loads(answer.data) == {"greeting": "Hello, Ada!"}
    processes = descendants(up.process.pid)
    assert processes
    assert await up.end(signal.SIGTERM) == 0, up.errors
    await none_left(processes)
    assert list(temporary.iterdir()) == []
    assert up.records == []  # what it says is a log, on standard error


async def test_started_by_a_node_it_needs_no_argument_and_no_other_variable(
    live: StartLive, node: DevNode, client: Client, nats_server: EmbeddedServer
) -> None:
    given = RegisterRemoteAgentResponse.from_json(
        (await client.request(subjects.remote_register("nexus"), b"{}", timeout=5)).data
    )
    env = {
        "NEX_AGENT_NATS_SERVERS": nats_server.url,
        "NEX_AGENT_NODE_ID": given.respond_to,
        "NEX_AGENT_ASSIGNED_ID": given.assigned_agent_id,
    }
    up = await live("up", env=env)
    await registered(node)
    await deploy_greet(client)
    assert (await client.request("greet.hello", b'{"name": "Ada"}', timeout=10)).data
    started = await up.until_logged("nexlet starts")
    assert (started["by"], started["state"]) == ("the node", "none is kept")
    assert await up.end(signal.SIGINT) == 0, up.errors  # which is how a node stops its agents


async def test_started_by_a_node_it_ends_with_that_node(
    node: DevNode, client: Client, nats_server: EmbeddedServer
) -> None:
    given = RegisterRemoteAgentResponse.from_json(
        (await client.request(subjects.remote_register("nexus"), b"{}", timeout=5)).data
    )
    env = {
        "NEX_AGENT_NATS_SERVERS": nats_server.url,
        "NEX_AGENT_NODE_ID": given.respond_to,
        "NEX_AGENT_ASSIGNED_ID": given.assigned_agent_id,
    }
    # A node's process, which is killed: it takes nobody along.
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, sys.executable, PROGRAM, "up", env=env)
    try:
        await registered(node)
        processes = descendants(parent.pid)
    finally:
        parent.kill()
        await parent.wait()
    assert len(processes) >= 2, "the nexlet and its zygote"
    await none_left(processes, within=15)


async def test_it_waits_for_a_server_that_is_not_there_yet(live: StartLive, nats_server: EmbeddedServer) -> None:
    await nats_server.kill()
    up = await live("up", "-s", nats_server.url, "--no-state")
    await up.until_logged("cannot connect, trying on")
    await nats_server.start()
    async with await DevNode.start(nats_server.url) as node:
        await registered(node)
        assert await up.end(signal.SIGTERM) == 0


async def test_state_outlives_a_restart(
    live: StartLive, node: DevNode, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    arguments = ("up", "-s", nats_server.url, "--state-dir", tmp_path / "state")
    first = await live(*arguments)
    await registered(node)
    await deploy_greet(client)
    first.process.kill()
    await first.ended()
    second = await live(*arguments)

    async def answers() -> bool:
        try:
            return bool((await client.request("greet.hello", b'{"name": "Ada"}', timeout=5)).data)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            return False

    await second.until_logged("resumed the former registration")
    async with asyncio.timeout(30):
        while not await answers():  # noqa: ASYNC110  # each look is a request
            await asyncio.sleep(0.01)
    assert await second.end(signal.SIGTERM) == 0


async def test_settings_are_read_again_on_sighup(live: StartLive, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("events: all\n")
    up = await live("up", "-s", nats_server.url, "--no-state", "--settings-file", file)
    await up.until_logged("nexlet starts")
    file.write_text("events: failures\ngrace: 3s\n")
    up.process.send_signal(signal.SIGHUP)
    assert (await up.until_logged("settings read again"))["changed"] == ["events"]
    assert (await up.until_logged("some settings changed that take a restart"))["settings"] == ["grace"]
    file.write_text("evnts: all\n")
    up.process.send_signal(signal.SIGHUP)
    refused = await up.until_logged("the settings stay as they are: what was read is refused")
    assert "did you mean 'events'?" in refused["problems"]
    assert await up.end(signal.SIGTERM) == 0


async def test_modules_that_the_operator_permits_are_judged_and_given(
    live: StartLive, node: DevNode, client: Client, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("modules: {colorsys: [rgb_to_hsv], shutil: [rmtree]}\n")
    up = await live("up", "-s", nats_server.url, "--no-state", "--settings-file", file)
    warned = await up.until_logged("a module that the settings permit reaches further than a function should")
    assert warned["module"] == "shutil"
    assert any(line.startswith("rmtree uses os.") for line in warned["findings"])
    await registered(node)
    source = "import colorsys\ndef handler(event, context):\n    return colorsys.rgb_to_hsv(1, 1, 1)\n"
    await deploy(client, {"source": source, "triggers": ["color"]})
    assert json.loads((await client.request("color", b"", timeout=10)).data) == [0.0, 0.0, 1]
    file.write_text("modules: {colorsys: [rgb_to_hsv, hsv_to_rgb]}\n")
    up.process.send_signal(signal.SIGHUP)
    assert (await up.until_logged("some settings changed that take a restart"))["settings"] == ["modules"]
    assert await up.end(signal.SIGTERM) == 0


async def test_a_permitted_module_that_is_not_there_ends_it_at_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("modules: {no_such_module_anywhere: [x]}\n")
    ended = await nexfn("up", "--no-state", "--settings-file", file, env=environment(), timeout=20)
    assert ended.code == 1, ended.err
    assert "module 'no_such_module_anywhere' cannot be given: No module named" in ended.error["message"]


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--grace", "soon"], {}, "--grace"),
        ([], {"NEXFN_GRACE": "soon"}, "NEXFN_GRACE"),
        (["--events", "some"], {}, "--events"),
        (["--settings-file", "/nowhere/at/all"], {}, "/nowhere/at/all"),
        (["--state-dir", "/tmp", "--no-state"], {}, "state"),
        (["-s", "nats://ada:s-e-c@127.0.0.1"], {}, "everyone on this machine"),
        ([], {"NEX_AGENT_NODE_ID": "N1"}, "NEX_AGENT_ASSIGNED_ID"),
    ],
)
async def test_settings_that_are_wrong_end_it_at_once(
    arguments: list[str], variables: dict[str, str], says: str
) -> None:
    ended = await nexfn("up", *arguments, env=environment(**variables), timeout=20)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert "s-e-c" not in ended.err


async def test_no_secret_is_ever_logged(live: StartLive) -> None:
    config = 'authorization { user: ada, password: "s-e-c-r-e-t" }'
    async with EmbeddedServer(config=config, jetstream=False) as server:
        env = environment(NEXFN_USER="ada", NEXFN_PASSWORD="s-e-c-r-e-t", NEXFN_LOG_LEVEL="debug")
        right = await live("up", "-s", server.url, "--no-state", env=env)
        wrong = await live("up", "-s", server.url, "--no-state", env=env | {"NEXFN_PASSWORD": "w-r-o-n-g"})
        await right.until_logged("connected")
        await wrong.until_logged("cannot connect, trying on")
        for up, secret in ((right, "s-e-c-r-e-t"), (wrong, "w-r-o-n-g")):
            assert await up.end(signal.SIGTERM) == 0
            assert secret not in json.dumps(up.errors)


def test_the_installed_command_runs_with_this_python() -> None:
    assert PROGRAM.exists()
    assert PROGRAM.parent == Path(sys.executable).parent


READ_BY_ITS_USER = """
import os, sys
pid = sys.argv[1]
assert f"Uid:\\t{os.getuid()}\\t" in open(f"/proc/{pid}/status").read(), "it is somebody else's"
for name in ("environ", "mem", "maps", "auxv"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(1)
    except PermissionError:
        continue
    except OSError:
        pass  # let in, and found nothing where it looked
    print(name)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_nobody_of_its_own_user_reads_its_memory_or_its_environment() -> None:
    """Where it is no root, workers whose files are not closed to them are of its user; and both hold secrets."""
    as_user = [sys.executable, "-m", "tests.support.unprivileged"] if os.geteuid() == 0 else []
    command = [*as_user, sys.executable, str(PROGRAM), "up", "-s", "nats://127.0.0.1:1", "--no-state"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    try:
        await eventually(lambda: catches(process.pid, signal.SIGTERM), within=30, what="it has begun")
        reader = await asyncio.create_subprocess_exec(
            *as_user, sys.executable, "-c", READ_BY_ITS_USER, str(process.pid), cwd=ROOT, stdout=subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(reader.communicate(), 30)
        assert (reader.returncode, said.decode()) == (0, "")
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
