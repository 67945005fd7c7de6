"""What `deploy/` holds: read by the programs it is for where they are here, and run as they would run it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.settings import PREFIX, Settings
from tests.support import unprivileged
from tests.support.cli import PROGRAM, environment
from tests.support.polling import eventually
from tests.support.processes import descendants, none_left

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "nexlet-functions.service"
CONTAINER = ROOT / "deploy" / "Containerfile"


def unit() -> dict[str, list[str]]:
    """The settings of [Service], each with its values in order."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def known(variables: list[str]) -> None:
    """Every variable is one of a setting."""
    for name in variables:
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_the_units_variables_are_settings_and_its_times_fit() -> None:
    service = unit()
    variables = dict(line.split("=", 1) for line in service["Environment"])
    known(list(variables))
    grace = seconds(variables["NEXFN_GRACE"])
    # The runner bounds each step of its end; the agent's own is the grace and ten seconds.
    assert seconds(service["TimeoutStopSec"][0]) > grace + 30
    assert service["KillMode"] == ["mixed"]
    (credential,) = service["LoadCredential"]
    assert variables["NEXFN_CREDS"] == f"%d/{credential.partition(':')[0]}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/nexlet-functions/bin/nexlet-functions", str(PROGRAM)))
    verified = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", here], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no unit that is not running")
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert level is not None, judged.stderr
    assert float(level[1]) < 3.0, judged.stdout


LOCKED = """
import ctypes, sys
from tests.support.unprivileged import execute
libc = ctypes.CDLL(None, use_errno=True)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: CapabilityBoundingSet=; fails behind the last one
# PR_SET_NO_NEW_PRIVS: NoNewPrivileges=. Whoever is locked needs no bit for it.
assert libc.prctl(38, 1, 0, 0, 0) == 0
execute(sys.argv[1:])
"""
# MemoryDenyWriteExecute= as the kernel itself offers it (PR_SET_MDWE, 6.3 on), in the process that starts the rest.
DENYING = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_what_the_unit_takes_away_breaks_no_layer_of_the_sandbox() -> None:
    """`doctor`, as an ordinary user, finds the same with the unit's locks around it as without."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become an ordinary user with less and less")
    doctor = [sys.executable, str(PROGRAM), "doctor", "--json"]

    async def found(*command: str) -> list[object]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        if process.returncode == unprivileged.IMPOSSIBLE:
            pytest.skip("nobody else can be had here")
        assert out, errors.decode()
        return [json.loads(line) for line in out.splitlines()]

    plain = await found("-m", "tests.support.unprivileged", *doctor)
    locked = await found("-c", LOCKED, sys.executable, "-c", DENYING, *doctor)
    assert locked == plain


class Manager:
    """Plays systemd: a socket that is told of states."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        self.said += self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


async def test_the_units_command_runs_as_systemd_runs_it(tmp_path: Path) -> None:
    service = unit()
    for folder in ("state", "credentials"):
        (tmp_path / folder).mkdir(mode=0o755)
    async with EmbeddedServer(config="authorization { token: s3cret }") as server:
        # Here a token in place of creds: what systemd does with the credential is the same.
        (tmp_path / "credentials" / "nats.token").write_text("s3cret\n")
        variables = dict(line.split("=", 1) for line in service["Environment"])
        del variables["NEXFN_CREDS"]
        variables |= {
            "NEXFN_TOKEN_FILE": f"{tmp_path}/credentials/nats.token",
            "NEXFN_SERVERS": server.url,
            "NEXFN_METRICS": "127.0.0.1:0",
            "STATE_DIRECTORY": str(tmp_path / "state"),
            "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
            "WATCHDOG_USEC": "200000",
        }
        program, *arguments = shlex.split(service["ExecStart"][0])
        assert Path(program).name == "nexlet-functions"
        manager = Manager(tmp_path)
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM.with_name("nexlet-functions"), *arguments,
            env={**variables, "NOTIFY_SOCKET": manager.address, "PATH": os.defpath}, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            await eventually(lambda: "READY=1" in manager.said, within=30)
            assert "STATUS=waits for a server and a node" in manager.said
            async with await DevNode.start(server.url.replace("//", "//s3cret@")):
                await eventually(
                    lambda: any(line.startswith("STATUS=registered as ") for line in manager.said), within=30
                )
            await eventually(lambda: manager.said.count("WATCHDOG=1") > 3)
            ready = manager.said.count("READY=1")
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: manager.said.count("READY=1") > ready)
            assert any(line.startswith("MONOTONIC_USEC=") for line in manager.said)
            assert manager.said.index("RELOADING=1") > manager.said.index("READY=1")
            left = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            log = await asyncio.wait_for(process.stderr.read(), 30)
            assert await process.wait() == 0, log.decode()
            await eventually(lambda: "STOPPING=1" in manager.said)
            await none_left(left)
            assert (tmp_path / "state" / "registration.json").stat().st_mode & 0o777 == 0o600
            assert b"s3cret" not in log
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            manager.close()


# --- containers -------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction, lines that go on joined."""
    lines = [line for line in CONTAINER.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def test_the_container_file_says_what_is_there() -> None:
    said = instructions()
    assert [name for name, _ in said].count("FROM") == 2
    last = said[max(index for index, (name, _) in enumerate(said) if name == "FROM") :]
    assert ("USER", "nexlet") in last, "not root"
    known(re.findall(r"NEXFN_\w+(?==)", dict(last)["ENV"]))
    build = said[: len(said) - len(last)]
    for name, rest in build:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    extras = re.search(r"'\.\[([\w,]+)\]'", CONTAINER.read_text())
    assert extras is not None
    assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras[1].split(","))
    assert json.loads(dict(last)["ENTRYPOINT"]) + json.loads(dict(last)["CMD"]) == ["nexlet-functions", "up"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


async def test_the_containers_health_check_tells_a_nexlet_that_lives(nats_server: EmbeddedServer) -> None:
    (check,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    python, *arguments = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    variables = environment(NEXFN_METRICS=f"127.0.0.1:{free_port()}")

    async def healthy() -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=variables, stderr=subprocess.DEVNULL
        )
        return await process.wait() == 0

    assert not await healthy()
    up = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, "up", "-s", nats_server.url, "--no-state", env=variables, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while not await healthy():
                assert up.returncode is None
    finally:
        up.terminate()
        assert await asyncio.wait_for(up.wait(), 30) == 0


@pytest.mark.faults
def test_the_container_can_be_built_and_says_its_version() -> None:
    """Where there is somebody to build it, and a registry that has the base image."""
    builder = next((name for name in ("podman", "docker") if _works(name)), None)
    if builder is None:
        pytest.skip("neither podman nor docker can run anything here")
    tag = "nexlet-functions:test"
    built = subprocess.run([builder, "build", "-q", "-f", CONTAINER, "-t", tag, ROOT], capture_output=True, check=False)
    if built.returncode and b"pull" in built.stderr:
        pytest.skip(f"the base image cannot be had: {built.stderr.decode().strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr.decode()
    said = subprocess.run([builder, "run", "--rm", tag, "version"], capture_output=True, text=True, check=True)
    assert "nexlet-functions" in said.stdout


def _works(builder: str) -> bool:
    if shutil.which(builder) is None:
        return False
    return subprocess.run([builder, "info"], capture_output=True, check=False, timeout=30).returncode == 0
