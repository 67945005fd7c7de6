"""A runner that runs within a test, with quick settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from nexlet_functions.natsio import Credentials, Options
from nexlet_functions.runner import Runner, RunnerSettings
from tests.support.echo_agent import EchoAgent

__all__ = ["QUICK", "Running", "Start", "run"]

QUICK = RunnerSettings(
    heartbeat_interval=0.2,
    remote_register_timeout=2,
    register_timeout=5,
    retry_first=0.02,
    retry_max=0.1,
    node_silence=30,
    probe_interval=30,
    neighbours_timeout=0.1,
    grace=1,
    connection=Options(retry_refused=0.2),
)
"""Short intervals where a test waits for the next one; long ones for what must not happen by itself."""

Start = Callable[..., AbstractAsyncContextManager["Running"]]


class Running:
    """A runner that runs, with its agent."""

    def __init__(self, runner: Runner, task: asyncio.Task[None]) -> None:
        self.runner = runner
        self.task = task

    @property
    def agent(self) -> EchoAgent:
        agent = self.runner.agent
        assert isinstance(agent, EchoAgent)
        return agent

    async def kill(self) -> None:
        """Take it away without any of its last words, as far as that goes within one process."""
        runner = self.runner
        for connection in runner.connections:
            if connection._life is not None:
                connection._life.client._transport.close()  # type: ignore[union-attr]
            await connection.close(flush_timeout=0)
        runner.stop_soon(0)
        await self.task


@asynccontextmanager
async def run(server: str = "", *, agent: Callable[..., Any] = EchoAgent, **arguments: Any) -> AsyncIterator[Running]:
    """Run a runner; at the end it must stop without an error."""
    if server:
        arguments["credentials"] = Credentials((server,))
    runner = Runner(agent, **{"settings": QUICK, **arguments})
    task = asyncio.create_task(runner.run())
    try:
        yield Running(runner, task)
    finally:
        runner.stop_soon(0)
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)
    task.result()
