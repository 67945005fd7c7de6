"""The node's side in two makes: the stand-in, always, and a real `nex` where there is one.

A real one is taken from NEX_BIN, else from PATH; it is in no package registry, so that tests which need it are skipped
elsewhere and say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.devnode.minter import FullAccess
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.devnode.state import Identity
from nexlet_models import subjects

__all__ = ["NO_NEX", "Node", "RealNode", "StandIn", "find_nex", "node"]

NO_NEX = "no nex: set NEX_BIN to a Nex binary, or put one on PATH"


def find_nex() -> str | None:
    """A real `nex`, if there is one."""
    return os.environ.get("NEX_BIN") or shutil.which("nex")


class Node(ABC):
    """A node that takes remote agents and keeps its identity over a restart, and its workloads unless told otherwise.

    Attributes:
        node_id: known before it starts.
    """

    node_id: str

    @abstractmethod
    async def start(self) -> None:
        """Up; when this returns it answers."""

    @abstractmethod
    async def stop(self) -> None:
        """Down, in good order."""

    @abstractmethod
    async def wait_ended(self) -> None:
        """Return once it has ended by itself."""


class StandIn(Node):
    """The stand-in node."""

    def __init__(self, url: str, folder: Path, *, keeps: bool = True, tells: tuple[str, ...] = ()) -> None:
        """Nothing runs yet.

        Args:
            tells: which servers a nexlet and its workloads are to connect to; none means its own.
        """
        self._url = url
        self._state = folder / "devnode.json"
        self._keeps = keeps
        self._minter = FullAccess(tells) if tells else None
        self._node: DevNode | None = None
        self.node_id = ""

    async def start(self) -> None:
        if not self._keeps and self._state.exists():
            identity_alone = json.loads(self._state.read_bytes()) | {"workloads": {}}
            self._state.write_text(json.dumps(identity_alone))
        self._node = await DevNode.start(self._url, state_file=self._state, minter=self._minter)
        self.node_id = self._node.node_id

    async def stop(self) -> None:
        if self._node is not None:
            await self._node.close()
            self._node = None

    async def wait_ended(self) -> None:
        assert self._node is not None, "not started"
        await self._node.wait_closed()


class RealNode(Node):
    """`nex node up` as a child."""

    def __init__(self, binary: str, url: str, folder: Path, *, keeps: bool = True) -> None:
        self._binary = binary
        self._url = url
        self._keeps = keeps
        self._folder = folder
        identity = Identity.generate()
        self._seed = identity.node_seed.get_secret_value()
        self._process: asyncio.subprocess.Process | None = None
        self.node_id = identity.node_id

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "node", "up", "--allow-remote-agent-registration", "--disable-native-start",
            "--disable-upgrade-check", "--events", "nats", "--node-seed", self._seed, "--nats.servers", self._url,
            *(("--state", "kv") if self._keeps else ()),
            cwd=self._folder, env={"HOME": str(self._folder), "PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        client = await nats.connect(self._url)
        try:
            async with asyncio.timeout(20):
                while not await _answers(client, self.node_id):
                    assert self._process.returncode is None, "nex ended at once"
                    await asyncio.sleep(0.02)
        finally:
            await client.close()

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait_ended(self) -> None:
        assert self._process is not None, "not started"
        await self._process.wait()


async def _answers(client: Client, node_id: str) -> bool:
    try:
        answer = await client.request(subjects.node_ping_one(node_id), b'{"filter":null}', timeout=1)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return False
    return b'"running"' in answer.data


@pytest.fixture(params=["stand-in", "real"])
async def node(request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that runs, of either make. A folder of tests has it by importing it in its conftest."""
    made: Node
    if request.param == "stand-in":
        made = StandIn(nats_server.url, tmp_path)
    else:
        binary = find_nex()
        if binary is None:
            pytest.skip(NO_NEX)
        made = RealNode(binary, nats_server.url, tmp_path)
    await made.start()
    yield made
    await made.stop()
