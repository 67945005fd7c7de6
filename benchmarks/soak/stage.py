"""What a soak is played on: servers, a proxy before each, a node, and the nexlet as the command that users run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bench import ROOT
from benchmarks.processes import descendants
from benchmarks.soak.accounts import Accounts
from benchmarks.soak.functions import LONGEST, NAMESPACE, SETTINGS, Workload
from benchmarks.soak.proxy import Proxy
from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer, NoBid
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.devnode.state import NodeState
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle

__all__ = ["HEAL", "Holdings", "NotHealed", "Stage", "descriptors", "in_use_by", "open_stage"]

HEAL = 45.0
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
        servers, proxies, clients: one client for each server, a proxy before each.
        accounts: where the servers ask who somebody is.
        nexlet: the one in charge; none runs before `start_nexlet`.
        deployed: workload ids by name.
        forgotten: names that a node which was told of them has taken with it; nobody can start them anew but us.
        lines: what `witness` wrote, a request's number each.
    """

    servers: list[EmbeddedServer]
    proxies: list[Proxy]
    clients: list[Client]
    folder: Path
    accounts: Accounts | None
    nexlet: subprocess.Popen[bytes] = field(init=False)
    node: DevNode | None = None
    deployed: dict[str, str] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    lines: list[bytes] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        """Of the servers themselves."""
        return [server.url for server in self.servers]

    # --- functions -------------------------------------------------------------------------------------------------

    @property
    def control(self) -> ControlClient:
        """On behalf of the soak's namespace."""
        return ControlClient(self.clients[0], NAMESPACE, nodes=1, wait=3.0)

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
        self.forgotten.discard(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    with contextlib.suppress(ControlRefused, nats.errors.Error):
                        if (await self.control.stop(workload_id)).stopped:
                            return
                    await asyncio.sleep(0.05)
        raise NotHealed(f"{name} could not be stopped")

    async def healed(self) -> None:
        """Return once every function answers whoever asks, over whichever server.

        Raises:
            NotHealed: one does not within `HEAL` seconds.
        """
        await asyncio.gather(
            *(self._answers(workload, client) for workload in self.workloads.values() for client in self.clients)
        )

    async def _answers(self, workload: Workload, client: Client) -> None:
        said, patience = "", 0.25
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    try:
                        answer = await client.request(workload.kind.asked_on, b"probe", timeout=patience)
                    except (nats.errors.Error, nats.errors.TimeoutError) as error:
                        said = repr(error)
                        # One that has a long queue answers later than it takes to see that nobody listens.
                        patience = min(2 * patience, LONGEST)
                        await asyncio.sleep(0.01)
                        continue
                    if (answer.headers or {}).get("workload_id"):
                        return
        raise NotHealed(f"{workload.name} did not answer again within {HEAL:g} s; last: {said}")

    async def known(self) -> None:
        """Return once the node has a healthy agent, and that one tells of everything that is deployed.

        Raises:
            NotHealed: not within `HEAL` seconds.
        """
        missing: set[str] = set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAL):
                while True:
                    if self.agents:
                        with contextlib.suppress(ControlRefused, NoAnswer, nats.errors.Error):
                            listed = {one.id for one in await self.control.workloads()}
                            missing = set(self.deployed.values()) - listed
                            if not missing:
                                return
                    await asyncio.sleep(0.05)
        raise NotHealed(f"within {HEAL:g} s no healthy agent told the node of {len(missing) or 'any'} workloads")

    @property
    def agents(self) -> set[str]:
        """Ids of the agents that the node takes for healthy."""
        return {one.agent_id for one in self.node.registrations.healthy("python")} if self.node is not None else set()

    # --- parts -----------------------------------------------------------------------------------------------------

    async def start_node(self) -> None:
        """The node, as who it was."""
        url = ",".join(proxy.url for proxy in self.proxies)
        file = self.folder / "node.json"
        accounts = self.accounts
        self.node = await DevNode.start(
            accounts.node(url) if accounts is not None else url,
            state_file=file,
            minter=accounts.minter(url, NodeState(file).identity.node_id) if accounts is not None else None,
            gather_timeout=0.5,  # of those that were killed none answers any more, and none is ever forgotten
            connect_timeout=HEAL,
        )

    def start_nexlet(self, *more: str) -> subprocess.Popen[bytes]:
        """The nexlet, with the state that there is; it is in charge from now on."""
        self.nexlet = self.up("state", *more)
        return self.nexlet

    def up(self, state: str, *more: str) -> subprocess.Popen[bytes]:
        """A nexlet with that folder for its state, whoever is in charge."""
        command = [
            sys.executable, "-m", "nexlet_functions", "up", "-s", ",".join(proxy.url for proxy in self.proxies),
            "--state-dir", str(self.folder / state), "--settings-file", str(self.folder / "settings.yaml"),
            "--ping-interval", "1s", "--log-level", "warning", "--log-format", "json", *more,
        ]  # fmt: skip
        if self.accounts is not None:
            command += ["--creds", str(self.accounts.own)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

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
        own = [
            one
            for server in self.servers
            for one in await asyncio.to_thread(_connections, server)
            if one.get("name") in _CONNECTIONS
        ]
        return Holdings(
            memory=sum(map(_memory, pids)),
            descriptors=sum(len(descriptors(pid)) for pid in pids),
            processes=len(pids),
            subscriptions=sum(len(one.get("subscriptions_list", ())) for one in own),
        )


@contextlib.asynccontextmanager
async def open_stage(place: str) -> AsyncIterator[Stage]:
    """Everything started, nothing deployed; everything gone afterwards.

    Args:
        place: one of `plan.PLACES`.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexlet-soak-")))
        accounts = Accounts(folder) if place == "accounts" else None
        settings = SETTINGS
        if accounts is not None:
            settings += f"namespaces: {{{NAMESPACE}: {{credentials: {{creds: {accounts.namespace}}}}}}}\n"
        (folder / "settings.yaml").write_text(settings)
        configs = [accounts.config] if accounts is not None else _cluster(3)
        servers = [
            await stack.enter_async_context(EmbeddedServer(jetstream=False, config=f'http: "127.0.0.1:-1"\n{config}'))
            for config in configs
        ]
        proxies = [await stack.enter_async_context(Proxy(server.url)) for server in servers]
        clients = []
        for server in servers:
            client = await nats.connect(
                server.url, name="soak", reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_quiet,
                **(accounts.connect("onlooker") if accounts is not None else {}),
            )  # fmt: skip
            stack.push_async_callback(client.close)
            clients.append(client)
        stage = Stage(servers, proxies, clients, folder, accounts)
        stage.start_nexlet()
        stack.push_async_callback(_end, stage)
        await stage.start_node()
        lines = stage.lines

        async def line(message: Msg) -> None:
            if message.subject.split(".")[4] == stage.deployed.get("witness"):
                lines.append(message.data)

        await clients[0].subscribe(f"$NEX.FEED.{NAMESPACE}.logs.*.stdout", cb=line)
        yield stage


def _cluster(size: int) -> list[str]:
    """The configurations of servers that know each other, and tell nobody: clients know them by their proxies alone."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(size)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
    return [
        f"cluster {{ name: soak, listen: 127.0.0.1:{port}, routes: [ {routes} ], no_advertise: true }}\n"
        'lame_duck_grace_period: "10s"\nlame_duck_duration: "60s"'
        for port in ports
    ]


async def _end(stage: Stage) -> None:
    stage.nexlet.terminate()
    await stage.nexlet_ended()
    if stage.node is not None:
        await stage.node.close()


async def _quiet(error: Exception) -> None:
    """Servers go away here on purpose."""


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


def descriptors(pid: int) -> set[int]:
    """The numbers of its open files."""
    try:
        return {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def _connections(server: EmbeddedServer) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{server.monitoring}/connz?subs=1&limit=10000", timeout=10) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["connections"]
        return found


def in_use_by(server: EmbeddedServer) -> bool:
    """Whether the nexlet has a connection to it."""
    return any(one.get("name") in _CONNECTIONS for one in _connections(server))
