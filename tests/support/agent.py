"""A function agent with everything real around it: server, connections, zygote, workers. Only the node is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry.trace import Tracer

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.agent import FunctionAgent
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.means import DispatcherFactory
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.natsio.life import Options
from nexlet_functions.runner.agent import Refused
from nexlet_functions.schedules.scheduler import Scheduler
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import (
    AgentStartWorkloadRequest,
    StartWorkloadRequest,
    StartWorkloadResponse,
    WorkloadLifecycle,
    WorkloadSummary,
)
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.services import LiveServices
from tests.support.settle import settle

__all__ = ["GREET", "AgentBench", "agent_bench", "request", "workers_of"]

GREET = """
def handler(event, context):
    return "hello, " + event.text
"""


def request(
    url: str = "", *, name: str = "greet", namespace: str = "acme", creds: dict[str, Any] | None = None, **start: Any
) -> AgentStartWorkloadRequest:
    """What a node asks an agent: `start` is the start request; without a source in it, a greeting."""
    if not {"source", "uri"} & start.keys():
        start["source"] = GREET
    return AgentStartWorkloadRequest(
        request=StartWorkloadRequest(
            name=name,
            namespace=namespace,
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps(start),
            tags={"tier": "test"},
        ),
        workload_creds=NatsConnectionData(nats_servers=(url,), **(creds or {})),
    )


def workers_of(zygote: Zygote) -> list[int]:
    """Process ids of the zygote's living children."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if parent == str(zygote.pid) and state != "Z":
                found.append(int(file.parent.name))
    return found


@dataclass
class AgentBench:
    """An agent, what it stands on, and a client that listens to everything it publishes."""

    url: str
    agent: FunctionAgent
    services: LiveServices
    zygote: Zygote
    settings: SettingsHolder
    key: CurveKey
    client: Client
    heard: list[Msg] = field(default_factory=list)

    async def start(self, workload_id: str = "W1", *, existing: bool = False, **asked: Any) -> StartWorkloadResponse:
        """Start a workload, as the node would ask."""
        return await self.agent.start_workload(workload_id, request(self.url, **asked), existing=existing)

    async def refusal(self, workload_id: str = "W1", *, existing: bool = False, **asked: Any) -> Refused:
        """The refusal of a start, once it is sure that nothing was left behind."""
        before = workers_of(self.zygote)
        with pytest.raises(Refused) as refused:
            await self.start(workload_id, existing=existing, **asked)
        assert workload_id not in self.services.registered
        assert await self.summary(workload_id) is None
        await eventually(lambda: set(workers_of(self.zygote)) <= set(before), what="no worker is left")
        return refused.value

    async def summary(self, workload_id: str = "W1") -> WorkloadSummary | None:
        """Its line in the list of all."""
        found = await self.agent.query_workloads("system", [workload_id])
        return found[0] if found else None

    async def ask(self, subject: str, payload: bytes = b"world", *, timeout: float = 10.0) -> Msg:
        """Request an answer."""
        return await self.client.request(subject, payload, timeout=timeout)

    async def silent(self, subject: str) -> bool:
        """Whether nobody listens there."""
        try:
            await self.ask(subject)
        except nats.errors.NoRespondersError:
            return True
        return False

    def events(self, name: str, workload_id: str = "W1") -> list[dict[str, Any]]:
        """Events of that name about a workload, so far."""
        found = [json.loads(message.data) for message in self.heard if message.subject.endswith(f".events.{name}")]
        return [event for event in found if event["id"] == workload_id]

    async def event(self, name: str, workload_id: str = "W1", *, count: int = 1) -> dict[str, Any]:
        """The last of these events, once there are `count`."""
        await eventually(lambda: len(self.events(name, workload_id)) >= count, what=f"{count} {name}")
        return self.events(name, workload_id)[-1]

    def logs(self, stream: str = "stdout", workload_id: str = "W1") -> list[str]:
        """Lines on a log feed, so far."""
        return [message.data.decode() for message in self.heard if message.subject.endswith(f"{workload_id}.{stream}")]


@contextlib.asynccontextmanager
async def agent_bench(
    server: EmbeddedServer,
    *,
    url: str = "",
    state_folder: Path | None = None,
    key: CurveKey | None = None,
    options: Options | None = None,
    tracer: Tracer | None = None,
    scheduler: Scheduler | None = None,
    dispatchers: DispatcherFactory | None = None,
    **flags: Any,
) -> AsyncIterator[AgentBench]:
    """An agent over `server`, ended at the end.

    Args:
        url: of an administrator, where the server wants to know who connects.
        options: of the connections: which of the two ways to use nats-py.
        tracer: makes spans of invocations.
        scheduler: one with a clock of its own.
        dispatchers: in place of the plain ones.
        flags: settings.
    """
    url = url or server.url
    # What a test counts are the workers of its functions; about those that are nobody's yet it says so.
    holder = SettingsHolder(Settings.read({"grace": "5s", "reserve_workers": 0, **flags}))
    key = key or CurveKey.generate()
    client = await nats.connect(url)
    connection = await Connection.open(Credentials(servers=(url,)), options=options)
    services = LiveServices(connection, state_folder=state_folder, options=options)
    zygote = await Zygote.start(modules=holder.current.modules)
    agent = FunctionAgent(
        services=services,
        zygote=zygote,
        settings=holder,
        key=key,
        tracer=tracer,
        scheduler=scheduler,
        dispatchers=dispatchers,
        version="1.2.3",
    )
    bench = AgentBench(url, agent, services, zygote, holder, key, client)

    async def hear(message: Msg) -> None:
        bench.heard.append(message)

    try:
        await client.subscribe("$NEX.FEED.>", cb=hear)
        await settle(client)
        yield bench
        await agent.close()
        # The worker of a start that was cancelled ends as soon as the zygote has told of it: after its pool is closed.
        await eventually(lambda: workers_of(zygote) == [], what="an agent that is closed has no workers")
        assert services.registered == set()
        assert len(services.connections) == 0, "nor holds it on to a connection"
    finally:
        await agent.close()
        await zygote.close()
        await services.close()
        await connection.close()
        await client.close()
