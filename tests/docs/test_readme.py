"""Every command of the README and of the guides is run, and prints what it says.

Three kinds have an equivalent in their place. `make run` and `make test` set up a virtual environment from a package
registry, which a test must not: what they run after that is read off `make --dry-run`, and `make run ARGS=--once` is
run by `tests/cli/test_dev.py` as the very command that make would run. Commands of `nex` are run where there is one (in
NEX_BIN or on PATH); elsewhere the stand-in node and the control client do the same over the same protocol. `nats sub`
waits for ever: its subject is checked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml

from nexlet_functions.control import ControlClient, NoBid
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.deadlines import DEADLINE_HEADER
from nexlet_functions.settings import Settings
from nexlet_models.subjects import valid_subject
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from nexlet_sandboxes.profiles import PROFILES
from tests.support.documents import Command, Equivalent, Walk, blocks

ROOT = Path(__file__).parents[2]
NEX = os.environ.get("NEX_BIN") or shutil.which("nex")


def dry_run(*arguments: str) -> list[str]:
    """What make would run once everything is set up."""
    ready = ROOT / ".venv" / ".ready"
    flags = ["-o", str(ready.relative_to(ROOT))]
    # The tests themselves may have been started by make, which hands its own options and variables on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(
        ["make", "-n", *flags, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    return said.stdout.splitlines()


async def make(walk: Walk, command: Command) -> None:
    target = shlex.split(command.line)[1:]
    lines = dry_run(*target)
    if target[0] == "run":
        assert lines[-1].endswith("bin/nexlet-functions dev samples ")
        assert dry_run("run", "ARGS=--once")[-1].endswith("bin/nexlet-functions dev samples --once")
    else:
        assert target == ["test"]
        for tool in ("ruff check", "ruff format --check", "lint-imports", "mypy", "basedpyright", "pytest"):
            assert any(tool in line for line in lines), tool


class NodeEquivalents:
    """The stand-in in place of a real node, and the control API in place of Nex's command line."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._node: DevNode | None = None
        self.deployed: list[str] = []

    @property
    def table(self) -> dict[str, Equivalent]:
        if NEX is not None:
            return {"nexfn pack samples/greet | nex workload start": self.start_for_real}
        return {
            "nex node up": self.node_up,
            "nexfn pack samples/greet | nex workload start": self.start,
            "nex workload ls": self.ls,
        }

    async def node_up(self, walk: Walk, command: Command) -> None:
        assert "--allow-remote-agent-registration" in command.line
        self._node = await DevNode.start(self._server.url)

    async def start(self, walk: Walk, command: Command) -> None:
        pack, _, start = command.line.partition(" | ")
        options = shlex.split(start)
        assert options[3:5] == ["-f", "/dev/stdin"]
        nexfile: dict[str, Any] = yaml.safe_load((await walk.outcome(pack))[1])
        request = StartWorkloadRequest(
            name=nexfile["name"],
            namespace=options[options.index("--namespace") + 1],
            description=nexfile["description"],
            workload_type=nexfile["type"],
            workload_lifecycle=WorkloadLifecycle(nexfile["lifecycle"]),
            run_request=json.dumps(nexfile["start_request"]),
            tags={},
        )
        client = await nats.connect(self._server.url)
        control = ControlClient(client, request.namespace, nodes=1)
        for attempt in range(20):  # an auction waits for a second: the nexlet may have to register first
            try:
                self.deployed.append((await control.start(request)).id)
                break
            except NoBid:
                assert attempt < 19, "the nexlet never registered"
        await client.close()

    async def start_for_real(self, walk: Walk, command: Command) -> None:
        """The command as it stands, again and again while the nexlet has not registered yet."""
        for attempt in range(20):  # each waits for a second, for bids
            code, said = await walk.outcome(command.line)
            if code == 0:
                return
            assert "no agents available" in said, said
            assert attempt < 19, "the nexlet never registered"

    async def ls(self, walk: Walk, command: Command) -> None:
        client = await nats.connect(self._server.url)
        found = await ControlClient(client, "demo", nodes=1).workloads()
        assert [each.id for each in found] == self.deployed
        await client.close()

    async def close(self) -> None:
        if self._node is not None:
            await self._node.close()


async def nats_sub(walk: Walk, command: Command) -> None:
    assert valid_subject(shlex.split(command.line)[2], wildcards=True) is None


async def nats_request(walk: Walk, command: Command) -> None:
    """With nobody there to answer it: what is looked at is what is asked."""
    words = shlex.split(command.line)
    assert valid_subject(words[2], wildcards=False) is None
    json.loads(words[3])
    assert words[4] == "-H"
    name, _, value = words[5].partition(": ")
    assert name == DEADLINE_HEADER
    assert value.isdigit()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the samples in it, and greet once more by itself."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shutil.copytree(ROOT / "samples" / "greet", tmp_path / "greet")
    (tmp_path / "greet" / "test_function.py").unlink()
    return tmp_path


def programs(folder: Path) -> Path:
    """A folder with the `nex` of NEX_BIN, whatever the file is called."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    if NEX is not None:
        (bin_folder / "nex").symlink_to(Path(NEX).resolve())
    return bin_folder


async def test_readme(folder: Path, nats_server: EmbeddedServer) -> None:
    local, real = (ROOT / "README.md").read_text().split("## On a real node")
    walk = Walk(folder, equivalents={"make ": make})
    await walk.through(local)
    assert {"make run", "make test", "nexfn dev hello", "nexfn check hello"} <= set(walk.ran)

    equivalents = NodeEquivalents(nats_server)
    beside_a_node = Walk(folder, url=nats_server.url, equivalents=equivalents.table, programs=programs(folder))
    try:
        await beside_a_node.through(real)
    finally:
        await equivalents.close()
    assert any(line.startswith("nexfn invoke -s nats://127.0.0.1:4222 greet.hello") for line in beside_a_node.ran)


async def test_authoring(folder: Path) -> None:
    walk = Walk(folder, equivalents={"nats request": nats_request})
    await walk.through((ROOT / "docs" / "authoring.md").read_text())
    assert "nexfn check broken" in walk.ran


async def test_operations(folder: Path, nats_server: EmbeddedServer) -> None:
    equivalents = NodeEquivalents(nats_server)
    table = {**equivalents.table, "nats sub": nats_sub}
    walk = Walk(folder, url=nats_server.url, equivalents=table, programs=programs(folder))
    try:
        await walk.through((ROOT / "docs" / "operations.md").read_text())
    finally:
        await equivalents.close()
    assert walk.ran


def test_the_settings_file_of_the_guide_is_one(tmp_path: Path) -> None:
    (shown,) = [block for block in blocks((ROOT / "docs" / "operations.md").read_text()) if block.file]
    file = tmp_path / shown.file
    file.write_text(shown.text.replace("/srv/functions", str(tmp_path)))
    settings = Settings.read({"settings_file": file})
    assert settings.rules("acme").subjects == ("{namespace}.>",)
    assert settings.rules("internal").ceilings.timeout == 300.0
    assert settings.rules("internal").ceilings.memory == 256 * 1024 * 1024


def test_the_readme_names_every_profile_there_is() -> None:
    said = re.search(r"\*\*Sandbox profiles in this version: (.*?)\.\*\*", (ROOT / "README.md").read_text())
    assert said is not None
    assert re.findall(r"`([a-z-]+)`", said[1]) == list(PROFILES)


@pytest.mark.parametrize(
    "document", ["README.md", "docs/authoring.md", "docs/operations.md", "docs/observing.md", "samples/README.md"]
)
def test_what_is_linked_is_there(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        assert "://" in target or (file.parent / target).exists(), target
