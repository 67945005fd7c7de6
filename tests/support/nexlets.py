"""Everything there is, within a test: a server, a node of either make, a nexlet that registered with it, and a client.

Functions come and go by the control API, as for whoever types `nex workload start`, so that what a test sees is what a
user sees.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from nexlet_functions.nexlet import Nexlet
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_models import subjects
from nexlet_models.registration import AgentHeartbeat
from nexlet_models.workloads import StartWorkloadRequest, WorkloadLifecycle, WorkloadSummary
from tests.support.agent import workers_of
from tests.support.nodes import Node
from tests.support.polling import eventually
from tests.support.settle import settle

__all__ = ["MONITORED", "NAMESPACE", "Beats", "NexletBench", "deploy", "nexlet_bench"]

MONITORED = 'http: "127.0.0.1:-1"'
"""Configuration of a server that can be asked who subscribes to what."""

NAMESPACE = "acme"


class Beats:
    """The heartbeats of all nexlets of a node, as they come."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, AgentHeartbeat]] = []

    async def listen(self, client: Client, node_id: str) -> None:
        async def hear(message: Msg) -> None:
            self.heard.append((message.subject.rsplit(".", 1)[1], AgentHeartbeat.from_json(message.data)))

        await client.subscribe(subjects.heartbeat(node_id), cb=hear)
        await settle(client)

    def states(self, agent_id: str) -> list[str]:
        """What this one said of itself, in order."""
        return [str(beat.summary.state) for agent, beat in self.heard if agent == agent_id]

    async def running(self, *, within: float = 20.0) -> str:
        """The id of the first nexlet that says that it runs."""
        await eventually(
            lambda: any(beat.summary.state == "running" for _, beat in self.heard), within=within, what="a nexlet"
        )
        return next(agent for agent, beat in self.heard if beat.summary.state == "running")


async def deploy(control: ControlClient, source: str, *, name: str, **start: Any) -> str:
    """Start a function by the control API; its id.

    Args:
        start: the rest of the start request.

    Raises:
        ControlRefused: it was refused.
    """
    started = await control.start(
        StartWorkloadRequest(
            name=name,
            namespace=control.namespace,
            description="",
            workload_type="python",
            workload_lifecycle=WorkloadLifecycle.FUNCTION,
            run_request=json.dumps({"source": source, **start}),
            tags={},
        )
    )
    return started.id


@dataclass
class NexletBench:
    """A nexlet and what is around it.

    Attributes:
        fast: whether its connections use nats-py's insides.
        metrics: where it serves its metrics.
        heard: what came on any feed, in order.
    """

    server: EmbeddedServer
    node: Node
    nexlet: Nexlet
    client: Client
    control: ControlClient
    beats: Beats
    fast: bool
    metrics: str
    heard: list[Msg] = field(default_factory=list)

    async def ask(
        self, subject: str, payload: bytes = b"", *, timeout: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> Msg:
        """Request an answer."""
        return await self.client.request(subject, payload, timeout=timeout, headers=dict(headers) if headers else None)

    async def summary(self, workload_id: str) -> WorkloadSummary:
        """Its line in the list, as the node has it from the nexlet."""
        (found,) = await self.control.workloads([workload_id])
        return found

    def events(self, workload_id: str, name: str = "WORKLOADTRIGGERED") -> list[dict[str, Any]]:
        """Events of that name about a function, so far."""
        found = [json.loads(one.data) for one in self.heard if one.subject.endswith(f".events.{name}")]
        return [event for event in found if event.get("id") == workload_id]

    async def event(self, workload_id: str, *, count: int = 1) -> dict[str, Any]:
        """The last event about an invocation, once there are `count`."""
        await eventually(lambda: len(self.events(workload_id)) >= count, what=f"{count} events")
        return self.events(workload_id)[-1]

    def logs(self, workload_id: str, stream: str) -> list[str]:
        """What is on a log feed, a message each, so far."""
        return [one.data.decode() for one in self.heard if one.subject.endswith(f".logs.{workload_id}.{stream}")]

    def workers(self) -> set[int]:
        """Ids of the worker processes, of all functions."""
        return set(workers_of(self.nexlet._zygote))


@contextlib.asynccontextmanager
async def nexlet_bench(
    server: EmbeddedServer,
    node: Node,
    *,
    options: Options | None = None,
    state_dir: Path | None = None,
    url: str = "",
    **flags: Any,
) -> AsyncIterator[NexletBench]:
    """A nexlet that has registered with `node`, which runs; ended at the end.

    Args:
        options: of the nexlet's connections.
        url: for the client, where the server wants to know who connects.
        flags: settings.
    """
    kept = {"state_dir": state_dir} if state_dir is not None else {"no_state": True}
    # What a test counts are the workers of its functions; about those that are nobody's yet it says so.
    own = {"servers": server.url, "grace": "5s", "metrics": "127.0.0.1:0", "reserve_workers": 0}
    holder = SettingsHolder(Settings.read({**own, **kept, **flags}))
    client = await nats.connect(url or server.url, name="test", allow_reconnect=True, reconnect_time_wait=0.05)
    beats = Beats()
    try:
        await beats.listen(client, node.node_id)
        async with await Nexlet.start(holder, connection=options) as nexlet:
            await beats.running()
            assert nexlet.status is not None
            control = ControlClient(client, NAMESPACE, nodes=1)
            fast = options is None or not options.public_only
            bench = NexletBench(server, node, nexlet, client, control, beats, fast, str(nexlet.status.address))

            async def hear(message: Msg) -> None:
                bench.heard.append(message)

            await client.subscribe("$NEX.FEED.>", cb=hear)
            await settle(client)
            yield bench
    finally:
        await client.close()
