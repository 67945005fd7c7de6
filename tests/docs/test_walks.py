"""Every command of every document is run, and prints what it says; a page that is added is walked through by itself.

Some have an equivalent in their place. `make` sets up a virtual environment from a package registry, which a test must
not: what it runs after that is read off `make --dry-run`, and `make run ARGS=--once` is run by `tests/cli/test_dev.py`
as the very command that make would run. Commands of `nex` are run where there is one (in NEX_BIN or on PATH); elsewhere
the stand-in node and the control client do the same over the same protocol. Those of `nats`, which no package registry
for Python has, are looked at: subjects, headers, payload.
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
from nexlet_models.subjects import valid_subject
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle
from tests.support import session
from tests.support.documents import ROOT, Command, Equivalent, Walk, blocks, matches, pages
from tests.support.polling import eventually

NEX = os.environ.get("NEX_BIN") or shutil.which("nex")

WALKED = [
    page for page in pages() if page != session.PAGE and any(block.commands for block in blocks(page.read_text()))
]


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


MAKES = {
    "run": ("bin/nexlet-functions dev samples",),
    "test": ("ruff check", "ruff format --check", "lint-imports", "mypy", "basedpyright", "pytest"),
    "lint": ("ruff check", "ruff format --check", "lint-imports"),
    "types": ("mypy", "basedpyright"),
    "pytest": ("python -m pytest",),
    "faults": ("python -m pytest", "tests/faults"),
    "attacks": ("tests.support.corpus",),
    "soak": ("benchmarks.soak",),
    "bench": ("python -m benchmarks",),
    "gate": ("python -m benchmarks.gate",),
    "bench-record": ("python -m benchmarks.gate --record",),
    "anchors": ("python -m benchmarks.anchors",),
    "performance": ("python -m benchmarks.performance",),
    "coverage": ("--cov",),
    "session": ("tests.support.session",),
}
"""What a target runs."""


async def make(walk: Walk, command: Command) -> None:
    target, *variables = shlex.split(command.line)[1:]
    lines = dry_run(target, *variables)
    for part in MAKES[target]:
        assert any(part in line for line in lines), part
    for variable in variables:
        assert any(variable.partition("=")[2] in line for line in lines), variable


class NodeEquivalents:
    """The stand-in in place of a real node, and the control API in place of Nex's command line."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._node: DevNode | None = None
        self.deployed: list[str] = []

    @property
    def table(self) -> dict[str, Equivalent]:
        if NEX is not None:
            return {"nexfn pack * | nex workload start": self.for_real, "nex workload start": self.for_real}
        return {
            "nex node up": self.node_up,
            "nexfn pack * | nex workload start": self.start,
            "nex workload start": self.start,
            "nex workload ls": self.ls,
        }

    async def node_up(self, walk: Walk, command: Command) -> None:
        assert "--allow-remote-agent-registration" in command.line
        self._node = await DevNode.start(self._server.url)

    async def start(self, walk: Walk, command: Command) -> None:
        pack, _, start = command.line.rpartition(" | ")
        words = shlex.split(start)[3:]
        options = {name.lstrip("-"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        nexfile: dict[str, Any] = {"start_request": json.loads(options.get("start-request", "null"))}
        if pack:
            assert options["f"] == "/dev/stdin"
            nexfile = yaml.safe_load((await walk.outcome(pack))[1])
        request = StartWorkloadRequest(
            name=nexfile.get("name") or options["name"],
            namespace=options["namespace"],
            description=nexfile.get("description", ""),
            workload_type=nexfile.get("type") or options["type"],
            workload_lifecycle=WorkloadLifecycle(nexfile.get("lifecycle") or options["lifecycle"]),
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

    async def for_real(self, walk: Walk, command: Command) -> None:
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


async def when_recorded(walk: Walk, command: Command) -> None:
    """The command as it stands, once what was sent before is on the disk: it is written in the background."""
    await eventually(lambda: list((walk.folder / "kept").glob("*/*.json")), what="a recorded event")
    _, said = await walk.outcome(command.line)
    assert matches(command.expected, said), said


async def nats_kv_add(walk: Walk, command: Command) -> None:
    """The bucket is made, with what else is said of it."""
    bucket, *options = shlex.split(command.line)[3:]
    assert [each for each in options if each.partition("=")[0] not in ("--replicas", "--ttl", "--history")] == []
    client = await nats.connect(walk.url)
    await client.jetstream().create_key_value(bucket=bucket)
    await client.close()


async def piped_nats_pub(walk: Walk, command: Command) -> None:
    """What is sent is made; `tests/docs/test_samples.py` sends it."""
    making, _, publishing = command.line.rpartition(" | ")
    code, _ = await walk.outcome(f"{making} | od -An -tx1")
    assert code == 0
    words = shlex.split(publishing)
    assert words[:2] == ["nats", "pub"]
    assert valid_subject(words[2], wildcards=False) is None
    assert words[3] == "--reply"
    assert valid_subject(words[4], wildcards=False) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the project's own has for its readers, and the sample greet once more by itself."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
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


@pytest.mark.parametrize("page", WALKED, ids=lambda page: str(page.relative_to(ROOT)))
async def test_its_commands_do_what_it_says(page: Path, folder: Path, nats_server: EmbeddedServer) -> None:
    equivalents = NodeEquivalents(nats_server)
    table = {
        **equivalents.table,
        "make ": make,
        "nats kv add": nats_kv_add,
        "nats sub": nats_sub,
        "nats request": nats_request,
        "nexfn replay kept": when_recorded,
        "echo AQEAEWlVuQD+Pi4v | base64 -d | nats pub": piped_nats_pub,
    }
    walk = Walk(folder, url=nats_server.url, equivalents=table, programs=programs(folder))
    try:
        await walk.through(page.read_text())
    finally:
        await equivalents.close()
    assert walk.ran


def test_the_readme_takes_a_newcomer_all_the_way() -> None:
    ran = [command.line for block in blocks((ROOT / "README.md").read_text()) for command in block.commands]
    way = [
        "make run",
        "make test",
        "nexfn check hello",
        "nexfn dev hello",
        "nexfn invoke hello.world",
        "python -m pytest",
        "nex node up",
        "nexfn up",
        "nexfn pack samples/greet | nex workload start",
        "nexfn deploy",
        "nexfn list",
        "nexfn stop",
    ]
    assert [step for step in way if not any(line.startswith(step) for line in ran)] == []
    places = [next(at for at, line in enumerate(ran) if line.startswith(step)) for step in way]
    assert places == sorted(places)


def test_the_pages_that_show_commands_are_those_that_are_walked() -> None:
    assert {str(page.relative_to(ROOT)) for page in WALKED} >= {
        "README.md",
        "samples/README.md",
        "docs/authoring.md",
        "docs/contributing.md",
        "docs/local-loop.md",
        "docs/operations.md",
        "docs/runner.md",
        "docs/security.md",
    }
    assert re.search("^```sh", "\n".join(page.read_text() for page in pages()), re.M) is None, "write it as console"
