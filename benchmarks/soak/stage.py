"""What a soak is played on: a server, a proxy before it, a node, and the nexlet as the command that users run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bench import ROOT
from benchmarks.processes import descendants
from benchmarks.soak.functions import LONGEST, NAMESPACE, SETTINGS, Workload
from benchmarks.soak.proxy import Proxy
from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer, NoBid
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle

__all__ = ["HEAL", "Holdings", "NotHealed", "Stage", "open_stage"]

HEAL = 30.0
"""Seconds within which everything has to answer again after a fault. How long it took is reported."""

_CONNECTIONS = ("nexlet", "nexlet-agent", "nexlet-workloads")


class NotHealed(Exception):
    """Something did not come back by itself."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the nexlet holds.

    Attributes:
        memory: bytes, proportional, of nexlet and zygote together.
        descriptors: of both.
        processes: it and all below it.
        subscriptions: as the server has them.
    """

    memory: int
    descriptors: int
    processes: int
    subscriptions: int


@dataclass
class Stage:
    """Everything that runs.

    Attributes:
        deployed: workload ids by name.
        events: ids of invocations of `witness`, as its events came.
        lines: what `witness` wrote, a request's number each.
    """

    server: EmbeddedServer
    proxy: Proxy
    folder: Path
    client: Client
    nexlet: subprocess.Popen[bytes]
    node: DevNode | None = None
    deployed: dict[str, str] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)

    # --- functions -------------------------------------------------------------------------------------------------

    @property
    def control(self) -> ControlClient:
        """On behalf of the soak's namespace."""
        return ControlClient(self.client, NAMESPACE, nodes=1, wait=3.0)

    async def deploy(self, workload: Workload) -> None:
        """Deploy, again and again while there is no node or nexlet to be had.

        Raises:
            NotHealed: not within `HEAL` seconds.
        """
        request = StartWorkloadRequest(
            name=workload.name,
            namespace=NAMESPACE,
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps(workload.run_request),
            tags={},
        )
        why = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    try:
                        started = await self.control.start(request)
                    except (NoBid, NoAnswer, ControlRefused, nats.errors.Error) as error:
                        why = str(error)
                        await asyncio.sleep(0.05)
                    else:
                        self.deployed[workload.name] = started.id
                        self.workloads[workload.name] = workload
                        return
        raise NotHealed(f"{workload.name} could not be deployed: {why}")

    async def stop(self, name: str) -> None:
        """Stop, again and again while it is not said to be stopped.

        Raises:
            NotHealed: not within `HEAL` seconds.
        """
        workload_id = self.deployed.pop(name)
        del self.workloads[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    with contextlib.suppress(ControlRefused, nats.errors.Error):
                        if (await self.control.stop(workload_id)).stopped:
                            return
                    await asyncio.sleep(0.05)
        raise NotHealed(f"{name} could not be stopped")

    async def healed(self) -> None:
        """Return once every function answers.

        Raises:
            NotHealed: one does not within `HEAL` seconds.
        """
        await asyncio.gather(*(self._answers(workload) for workload in self.workloads.values()))

    async def _answers(self, workload: Workload) -> None:
        said, patience = "", 0.25
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    try:
                        answer = await self.client.request(workload.kind.asked_on, b"probe", timeout=patience)
                    except (nats.errors.Error, nats.errors.TimeoutError) as error:
                        said = repr(error)
                        # One that has a long queue answers later than it takes to see that nobody listens.
                        patience = min(2 * patience, LONGEST)
                        await asyncio.sleep(0.01)
                        continue
                    if (answer.headers or {}).get("workload_id"):
                        return
        raise NotHealed(f"{workload.name} did not answer again within {HEAL:g} s; last: {said}")

    # --- parts -----------------------------------------------------------------------------------------------------

    async def start_node(self) -> None:
        """The node, as who it was."""
        self.node = await DevNode.start(self.proxy.url, state_file=self.folder / "node.json", connect_timeout=HEAL)

    def start_nexlet(self) -> None:
        """The nexlet, with the state it had."""
        self.nexlet = _up(self.proxy.url, self.folder)

    @property
    def log(self) -> Path:
        """What all nexlets of this soak said."""
        return self.folder / "nexlet.log"

    async def nexlet_ended(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.nexlet.wait, 60)

    @property
    def zygote(self) -> int | None:
        """Process id of the nexlet's zygote; None while there is none."""
        return next(iter(_children(self.nexlet.pid)), None)

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return _children(self.zygote) if self.zygote is not None else []

    async def holdings(self) -> Holdings:
        """What the nexlet holds now."""
        pids = [self.nexlet.pid, *descendants(self.nexlet.pid)]
        said = await asyncio.to_thread(_get, f"{self.server.monitoring}/connz?subs=1&limit=10000")
        own = [one for one in json.loads(said)["connections"] if one.get("name") in _CONNECTIONS]
        return Holdings(
            memory=sum(map(_memory, pids)),
            descriptors=sum(map(_descriptors, pids)),
            processes=len(pids),
            subscriptions=sum(len(one.get("subscriptions_list", ())) for one in own),
        )


@contextlib.asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Everything started, nothing deployed; everything gone afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexlet-soak-")))
        (folder / "settings.yaml").write_text(SETTINGS)
        server = await stack.enter_async_context(EmbeddedServer(jetstream=False, config='http: "127.0.0.1:-1"'))
        proxy = await stack.enter_async_context(Proxy(server.url))
        client = await nats.connect(
            server.url, name="soak", reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_quiet
        )
        stack.push_async_callback(client.close)
        stage = Stage(server, proxy, folder, client, _up(proxy.url, folder))
        stack.push_async_callback(_end, stage)
        await stage.start_node()
        lines = stage.lines

        async def line(message: Msg) -> None:
            if message.subject.split(".")[4] == stage.deployed.get("witness"):
                lines.append(message.data)

        await client.subscribe(f"$NEX.FEED.{NAMESPACE}.logs.*.stdout", cb=line)
        yield stage


async def _end(stage: Stage) -> None:
    stage.nexlet.terminate()
    await stage.nexlet_ended()
    if stage.node is not None:
        await stage.node.close()


async def _quiet(error: Exception) -> None:
    """Servers go away here on purpose."""


def _up(url: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "nexlet.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "nexlet_functions", "up", "-s", url, "--state-dir", str(folder / "state"),
             "--settings-file", str(folder / "settings.yaml"), "--log-level", "warning", "--log-format", "json"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True,
        )  # fmt: skip


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body
