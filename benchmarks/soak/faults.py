"""How each fault of a plan is done, and what it may cause: which requests may get another answer than usual, and when.

Every fault lasts from before it is done until every function answers again, by themselves. What it may cause:

- where the server itself goes, a connection is cut, or a nexlet is killed, messages in flight are gone: NATS promises
  "at most once". Until the subscriptions are there again nobody listens.
- where a worker or the zygote dies, what ran in it is answered 502, and nothing is lost.
- where a worker is stopped, what runs in it is answered 504.
- where the node goes, or the server pauses for less than anybody's patience, nothing at all may be seen.
- where a nexlet is stopped in order, requests in flight are answered, and nobody listens until the next is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from benchmarks.soak.account import LOST, NO_RESPONDERS, Window
from benchmarks.soak.functions import KINDS
from benchmarks.soak.generator import Generator
from benchmarks.soak.plan import FAULTS, Planned
from benchmarks.soak.stage import NotHealed, Stage

__all__ = ["CAUSES", "Faults"]

_GONE = frozenset({LOST, NO_RESPONDERS})
_DIED = frozenset({"502"})

CAUSES: dict[str, frozenset[str]] = {
    "worker killed": _DIED,
    "worker paused": frozenset({"504"}),
    "zygote killed": _DIED,
    "function redeployed": frozenset({NO_RESPONDERS}),
    "function deployed and stopped": frozenset(),
    "burst": frozenset(),
    "connections cut": _GONE,
    "server paused": frozenset(),
    "server restarted": _GONE,
    "server killed": _GONE,
    "node stopped and started": frozenset(),
    "node killed and started": frozenset(),
    "nexlet stopped and started": frozenset({NO_RESPONDERS}),
    "nexlet killed and started": _GONE,
}
"""Of each fault."""

BURST = 5000


class Faults:
    """Does one fault after the other.

    Attributes:
        windows: of those done, in order.
        healing: seconds from the end of each fault's cause until everybody answered, by fault.
    """

    def __init__(self, stage: Stage, generator: Generator) -> None:
        self._stage = stage
        self._generator = generator
        self.windows: list[Window] = []
        self.healing: dict[str, list[float]] = {}
        self._do: dict[str, Callable[[float], Awaitable[frozenset[str]]]] = {
            "worker killed": self._kill_worker,
            "worker paused": self._pause_worker,
            "zygote killed": self._kill_zygote,
            "function redeployed": self._redeploy,
            "function deployed and stopped": self._come_and_go,
            "burst": self._burst,
            "connections cut": self._cut,
            "server paused": self._pause_server,
            "server restarted": self._restart_server,
            "server killed": self._kill_server,
            "node stopped and started": self._restart_node,
            "node killed and started": self._kill_node,
            "nexlet stopped and started": self._restart_nexlet,
            "nexlet killed and started": self._kill_nexlet,
        }
        assert self._do.keys() == CAUSES.keys() == set(FAULTS)

    async def run(self, planned: Planned) -> None:
        """Do it, and wait until everybody answers again.

        Raises:
            NotHealed: somebody does not.
        """
        window = Window(planned.fault, CAUSES[planned.fault], frozenset(), self._generator.now)
        self.windows.append(window)
        window.kinds = await self._do[planned.fault](planned.draw)
        done = self._generator.now
        await self._stage.healed()
        window.ended = self._generator.now
        self.healing.setdefault(planned.fault, []).append(window.ended - done)

    # Workers. Whose they are is not looked at: the window is everybody's.

    async def _kill_worker(self, draw: float) -> frozenset[str]:
        workers = self._stage.workers
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[int(draw * len(workers))], signal.SIGKILL)
        return frozenset()

    async def _pause_worker(self, draw: float) -> frozenset[str]:
        workers = self._stage.workers
        with contextlib.suppress(ProcessLookupError, IndexError):
            # Its number may be another's by the time that it goes on.
            process = os.pidfd_open(workers[int(draw * len(workers))])
            try:
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                await asyncio.sleep(0.2 + 0.5 * draw)
                signal.pidfd_send_signal(process, signal.SIGCONT)
            finally:
                os.close(process)
        return frozenset()

    async def _kill_zygote(self, draw: float) -> frozenset[str]:
        zygote = self._stage.zygote
        if zygote is not None:
            os.kill(zygote, signal.SIGKILL)
        return frozenset()

    # Functions.

    async def _redeploy(self, draw: float) -> frozenset[str]:
        name = sorted(self._stage.workloads)[int(draw * len(self._stage.workloads))]
        workload = self._stage.workloads[name]
        await self._stage.stop(name)
        await self._stage.deploy(workload)
        return frozenset({workload.kind.name})

    async def _come_and_go(self, draw: float) -> frozenset[str]:
        some = self._stage.workloads["fast"]
        run = {**some.run_request, "triggers": [{"subject": "soak.guest"}]}
        kind = type(some.kind)("guest", "")
        await self._stage.deploy(type(some)("guest", kind, run))
        await self._stage.healed()
        await self._stage.stop("guest")
        return frozenset()

    async def _burst(self, draw: float) -> frozenset[str]:
        self._generator.burst(int(BURST * (0.2 + draw)), KINDS[0])
        return frozenset()

    # The server and the way there.

    async def _cut(self, draw: float) -> frozenset[str]:
        self._stage.proxy.cut(1 + int(draw * self._stage.proxy.connections))
        return frozenset()

    async def _pause_server(self, draw: float) -> frozenset[str]:
        self._stage.server.signal(signal.SIGSTOP)
        await asyncio.sleep(0.1 + 0.4 * draw)
        self._stage.server.signal(signal.SIGCONT)
        return frozenset()

    async def _restart_server(self, draw: float) -> frozenset[str]:
        await self._stage.server.restart()
        return frozenset()

    async def _kill_server(self, draw: float) -> frozenset[str]:
        await self._stage.server.kill()
        await asyncio.sleep(draw)
        await self._stage.server.start()
        return frozenset()

    # The node.

    async def _restart_node(self, draw: float) -> frozenset[str]:
        assert self._stage.node is not None
        await self._stage.node.close()
        await self._stage.start_node()
        return frozenset()

    async def _kill_node(self, draw: float) -> frozenset[str]:
        assert self._stage.node is not None
        await self._stage.node.abort()
        await self._stage.start_node()
        return frozenset()

    # The nexlet.

    async def _restart_nexlet(self, draw: float) -> frozenset[str]:
        self._stage.nexlet.terminate()
        code = await self._stage.nexlet_ended()
        if code != 0:
            raise NotHealed(f"the nexlet ended with {code} when it was asked to stop")
        self._stage.start_nexlet()
        return frozenset()

    async def _kill_nexlet(self, draw: float) -> frozenset[str]:
        self._stage.nexlet.kill()
        await self._stage.nexlet_ended()
        self._stage.start_nexlet()
        return frozenset()
