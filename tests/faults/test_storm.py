"""A server that goes loses all of its clients at once: two hundred functions, on a hundred connections and on one."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from itertools import count

import nats.errors
import pytest
from nats.aio.client import Client

from nexlet_functions.devnode.minter import FullAccess
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.life import Options
from nexlet_models.connection import NatsConnectionData
from tests.support.nexlets import MONITORED, deploy, nexlet_bench
from tests.support.nodes import Node
from tests.support.polling import eventually

EACH = 100
USERS = ", ".join(f"{{user: own{number}, password: secret}}" for number in range(EACH))
CONFIG = f"""
{MONITORED}
authorization {{ users: [ {{user: all, password: secret}}, {USERS} ] }}
no_auth_user: all
"""
ECHO = "def handler(event, context):\n    return event.data\n"


class _OneEach(FullAccess):
    """A user of its own for each workload, or one for all of them while `sharing`."""

    def __init__(self, url: str) -> None:
        super().__init__((url,))
        self._url = url
        self._numbers = count()
        self.sharing = False

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        if self.sharing:
            return super().workload(namespace, workload_id)
        return NatsConnectionData(
            nats_servers=(self._url,), nats_user_name=f"own{next(self._numbers)}", nats_user_password="secret"
        )


class _Storm(Node):
    """The stand-in node with that minter."""

    def __init__(self, url: str) -> None:
        self.minter = _OneEach(url)
        self._url = url
        self._node: DevNode | None = None
        self.node_id = ""

    async def start(self) -> None:
        self._node = await DevNode.start(self._url, minter=self.minter)
        self.node_id = self._node.node_id

    async def stop(self) -> None:
        if self._node is not None:
            await self._node.close()

    async def wait_ended(self) -> None:
        raise NotImplementedError


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_two_hundred_functions_are_live_again_and_their_connections_come_back_apart() -> None:
    async with EmbeddedServer(config=CONFIG) as server:
        node = _Storm(server.url)
        await node.start()
        try:
            async with nexlet_bench(server, node) as bench:
                for number in range(2 * EACH):
                    node.minter.sharing = number >= EACH
                    await deploy(bench.control, ECHO, name=f"storm-{number}", triggers=[f"storm.{number}"])
                connections = bench.nexlet.runner.connections
                assert len(connections) >= EACH + 2
                for _ in range(2):
                    pauses = _listen_to_chance(connections)
                    began = await _restart(server, connections)
                    await asyncio.gather(*(_answers(bench.client, number) for number in range(2 * EACH)))
                    took = time.monotonic() - began
                    print(f"all answered {took:.2f} s after the server was back")
                    assert took < 5.0
                    # The pauses they took, and not when they came: where the machine is busy, many are due together.
                    some = [pause for longest, pause in pauses if longest == Options().backoff_max]
                    assert len(some) >= len(connections), "each has taken one of the longest"
                    crowd = max(sum(at <= pause < at + 0.08 for pause in some) for at in some)
                    assert crowd <= len(some) / 2, sorted(some)
        finally:
            await node.stop()


async def _restart(server: EmbeddedServer, connections: list[Connection]) -> float:
    """Have it gone for longer than the longest pause; when it was back."""
    await server.kill()
    await eventually(lambda: not any(one.connected for one in connections), what="all are gone")
    await asyncio.sleep(2)
    await server.start()
    began = time.monotonic()
    await eventually(lambda: all(one.connected for one in connections), within=30, what="all connected again")
    return began


def _listen_to_chance(connections: list[Connection]) -> list[tuple[float, float]]:
    """The pauses that they take from now on, each with the longest that it could have been."""
    taken: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        taken.append((high, random.uniform(low, high)))
        return taken[-1][1]

    for one in connections:
        one._backoff._uniform = uniform
    return taken


async def _answers(client: Client, number: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(nats.errors.NoRespondersError, nats.errors.TimeoutError):
                answer = await client.request(f"storm.{number}", b"%d" % number, timeout=2)
                assert answer.data == b"%d" % number
                return
            await asyncio.sleep(0.05)
