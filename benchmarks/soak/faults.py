"""How each fault of a plan is done, and what it may cause: which requests may get another answer than usual, and when.

Every fault lasts from before it is done until every function answers again, by themselves, and the node knows of all of
them where it or the nexlet was another one. What it may cause:

- where the server itself goes, a connection is cut or turned away, or a nexlet is killed, messages in flight are gone:
  NATS promises "at most once". Until the subscriptions are there again nobody listens.
- where a worker or the zygote dies, what ran in it is answered 502, and nothing is lost.
- where a worker is stopped, what runs in it is answered 504.
- where the node goes, what it minted expires, the nexlet stands still, another one takes over or comes and goes, the
  disk is full, or the server pauses for less than anybody's patience, nothing at all may be seen.
- where a nexlet is stopped in order, requests in flight are answered, and nobody listens until the next is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from benchmarks.soak.account import LOST, NO_RESPONDERS, Window
from benchmarks.soak.functions import KINDS, Workload
from benchmarks.soak.generator import Generator
from benchmarks.soak.plan import Planned
from benchmarks.soak.stage import HEAL, NotHealed, Stage, descriptors, in_use_by
from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.server import EmbeddedServer

__all__ = ["BETWEEN_SERVERS", "CAUSES", "Faults"]

_GONE = frozenset({LOST, NO_RESPONDERS})
_DIED = frozenset({"502"})
_NOTHING: frozenset[str] = frozenset()

CAUSES: dict[str, frozenset[str]] = {
    "worker killed": _DIED,
    "worker paused": frozenset({"504"}),
    "zygote killed": _DIED,
    "zygote paused": _NOTHING,
    "function redeployed": frozenset({NO_RESPONDERS}),
    "function deployed and stopped": _NOTHING,
    "burst": _NOTHING,
    "connections cut": _GONE,
    "server paused": _NOTHING,
    "server silent": _GONE,
    "server restarted": _GONE,
    "server killed": _GONE,
    "servers killed one after another": _GONE,
    # What another server has sent on when the last of its subscribers leaves finds nobody there.
    "server in lame duck mode": _GONE,
    "node stopped and started": _NOTHING,
    "node killed and started": _NOTHING,
    "node started as another one": _NOTHING,
    "node and nexlet in lameduck": frozenset({NO_RESPONDERS}),
    "nexlet paused": _NOTHING,
    "nexlet without descriptors": _DIED,
    "nexlet with a full disk": _NOTHING,
    "nexlet stopped and started": frozenset({NO_RESPONDERS}),
    "nexlet killed and started": _GONE,
    "nexlet killed with its state": _GONE,
    "nexlet taken over": _NOTHING,
    "second nexlet come and gone": _NOTHING,
    "user revoked and renewed": _GONE,
    "minted credentials expired": _NOTHING,
}
"""Of each fault."""

BETWEEN_SERVERS: Final = frozenset({"function redeployed", "node and nexlet in lameduck", "nexlet stopped and started"})
"""After these nobody listens for a while. In a cluster a message may just be on its way from one server to another: it
finds nobody there, and whoever asked is told nothing. No subscriber can help it."""

BURST = 5000

SILENT = 3.2
"""Seconds after which a nexlet with a ping interval of one has surely taken its server for gone."""

_LIFE = 2
"""Seconds that minted credentials are good for, where they are to expire: a JWT knows whole ones."""

_PAGE = 4096
_LARGE = "#" * (2 * _PAGE)
"""What makes a request too large for a disk with one page left."""


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
        self._do: dict[str, Callable[[float], Awaitable[frozenset[str] | None]]] = {
            "worker killed": self._kill_worker,
            "worker paused": self._pause_worker,
            "zygote killed": self._kill_zygote,
            "zygote paused": self._pause_zygote,
            "function redeployed": self._redeploy,
            "function deployed and stopped": self._come_and_go,
            "burst": self._burst,
            "connections cut": self._cut,
            "server paused": self._pause_server,
            "server silent": self._silence_server,
            "server restarted": self._restart_server,
            "server killed": self._kill_server,
            "servers killed one after another": self._kill_servers,
            "server in lame duck mode": self._lame_duck,
            "node stopped and started": self._restart_node,
            "node killed and started": self._kill_node,
            "node started as another one": self._other_node,
            "node and nexlet in lameduck": self._lameduck,
            "nexlet paused": self._pause_nexlet,
            "nexlet without descriptors": self._no_descriptors,
            "nexlet with a full disk": self._full_disk,
            "nexlet stopped and started": self._restart_nexlet,
            "nexlet killed and started": self._kill_nexlet,
            "nexlet killed with its state": self._kill_nexlet_and_state,
            "nexlet taken over": self._take_over,
            "second nexlet come and gone": self._second_nexlet,
            "user revoked and renewed": self._revoke,
            "minted credentials expired": self._expire,
        }
        assert self._do.keys() == CAUSES.keys()

    async def run(self, planned: Planned) -> None:
        """Do it, and wait until everybody answers again.

        Raises:
            NotHealed: somebody does not.
        """
        causes = CAUSES[planned.fault]
        if planned.fault in BETWEEN_SERVERS and len(self._stage.servers) > 1:
            causes |= {LOST}
        window = Window(planned.fault, causes, frozenset(), self._generator.now)
        self.windows.append(window)
        window.kinds = await self._do[planned.fault](planned.draw) or frozenset()
        done = self._generator.now
        await self._stage.healed()
        if planned.fault.partition(" ")[0] in ("node", "nexlet", "second", "minted"):
            await self._stage.known()
        window.ended = self._generator.now
        self.healing.setdefault(planned.fault, []).append(window.ended - done)

    # Workers. Whose they are is not looked at: the window is everybody's.

    async def _kill_worker(self, draw: float) -> None:
        workers = self._stage.workers
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[int(draw * len(workers))], signal.SIGKILL)

    async def _pause_worker(self, draw: float) -> None:
        workers = self._stage.workers
        if workers:
            await _pause(workers[int(draw * len(workers))], 0.2 + 0.5 * draw)

    async def _kill_zygote(self, draw: float) -> None:
        zygote = self._stage.zygote
        if zygote is not None:
            os.kill(zygote, signal.SIGKILL)

    async def _pause_zygote(self, draw: float) -> None:
        zygote = self._stage.zygote
        if zygote is not None:
            await _pause(zygote, 0.2 + 0.5 * draw)

    # Functions.

    async def _redeploy(self, draw: float) -> frozenset[str]:
        name = sorted(self._stage.workloads)[int(draw * len(self._stage.workloads))]
        workload = self._stage.workloads[name]
        await self._stage.stop(name)
        await self._stage.deploy(workload)
        return frozenset({workload.kind.name})

    async def _come_and_go(self, draw: float) -> None:
        async with self._guest():
            pass

    @contextlib.asynccontextmanager
    async def _guest(self, more: str = "") -> AsyncIterator[None]:
        """A further function, for as long as the block lasts; it answers before the block begins."""
        some = self._stage.workloads["fast"]
        run = {**some.run_request, "source": some.run_request["source"] + more, "triggers": [{"subject": "soak.guest"}]}
        await self._stage.deploy(Workload("guest", replace(some.kind, name="guest"), run))
        await self._stage.healed()
        yield
        await self._stage.stop("guest")

    async def _burst(self, draw: float) -> None:
        self._generator.burst(int(BURST * (0.2 + draw)), KINDS[0])

    # Servers and the way there.

    def _server(self, draw: float) -> EmbeddedServer:
        return self._stage.servers[int(draw * len(self._stage.servers))]

    async def _cut(self, draw: float) -> None:
        for proxy in self._stage.proxies:
            proxy.cut(1 + int(draw * proxy.connections))

    async def _pause_server(self, draw: float) -> None:
        await self._stop_server(draw, 0.1 + 0.4 * draw)

    async def _silence_server(self, draw: float) -> None:
        await self._stop_server(draw, SILENT)

    async def _stop_server(self, draw: float, seconds: float) -> None:
        server = self._server(draw)
        server.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            server.signal(signal.SIGCONT)

    async def _restart_server(self, draw: float) -> None:
        await self._server(draw).restart()

    async def _kill_server(self, draw: float) -> None:
        await self._kill_and_start([self._server(draw)], draw)

    async def _kill_servers(self, draw: float) -> None:
        await self._kill_and_start(self._stage.servers, draw)

    async def _kill_and_start(self, servers: Iterable[EmbeddedServer], pause: float) -> None:
        for server in servers:
            await server.kill()
            await asyncio.sleep(pause)
            await server.start()
            await self._stage.healed()

    async def _lame_duck(self, draw: float) -> None:
        server = self._server(draw)
        server.signal(signal.SIGUSR2)
        async with _within("the nexlet has not left a server in lame duck mode"):
            while await asyncio.to_thread(in_use_by, server):  # noqa: ASYNC110  # each look is a request
                await asyncio.sleep(0.05)
        await server.kill()  # by itself it would take a minute to go
        await server.start()

    async def _revoke(self, draw: float) -> None:
        accounts = self._stage.accounts
        assert accounts is not None
        await accounts.revoke(self._stage.servers[0].url)
        await asyncio.sleep(draw)
        accounts.renew()

    async def _expire(self, draw: float) -> None:
        """A node that comes back mints what lasts for a moment; the nexlet asks for more by itself."""
        accounts = self._stage.accounts
        assert accounts is not None
        accounts.ends = ends = int(time.time()) + _LIFE + 1
        try:
            await self._restart_node(draw)
            await self._registered(frozenset())
        finally:
            accounts.ends = None
        former = self._stage.agents
        await asyncio.sleep(max(0.0, ends - time.time()))
        await self._registered(former)

    # The node.

    async def _restart_node(self, draw: float) -> None:
        assert self._stage.node is not None
        await self._stage.node.close()
        await self._stage.start_node()

    async def _kill_node(self, draw: float) -> None:
        assert self._stage.node is not None
        await self._stage.node.abort()
        await self._stage.start_node()

    async def _other_node(self, draw: float) -> None:
        assert self._stage.node is not None
        await self._stage.node.close()
        (self._stage.folder / "node.json").unlink()
        self._stage.forgotten |= self._stage.deployed.keys()
        await self._stage.start_node()

    async def _lameduck(self, draw: float) -> None:
        node = self._stage.node
        assert node is not None
        await ControlClient(self._stage.clients[0], "system", nodes=1).lameduck(node.node_id, 0.2 + 0.5 * draw)
        await self._ended_in_order()
        await node.wait_closed()
        await self._stage.start_node()
        self._stage.start_nexlet()

    # The nexlet.

    async def _registered(self, former: frozenset[str] | set[str]) -> None:
        """The node takes another agent for healthy than the former ones."""
        async with _within("no nexlet has registered"):
            while not self._stage.agents - former:  # noqa: ASYNC110  # heartbeats to a node within this process
                await asyncio.sleep(0.02)

    async def _ended_in_order(self) -> None:
        code = await self._stage.nexlet_ended()
        if code != 0:
            raise NotHealed(f"the nexlet ended with {code} when it was asked to stop")

    async def _pause_nexlet(self, draw: float) -> None:
        await _pause(self._stage.nexlet.pid, 0.2 + 0.5 * draw)

    async def _no_descriptors(self, draw: float) -> None:
        """It has no more than it holds now, and workers die meanwhile as they always do, and one more."""
        pid = self._stage.nexlet.pid
        highest = max(descriptors(pid))
        with _limited(pid, resource.RLIMIT_NOFILE, highest + 1):
            await self._kill_worker(draw)
            await asyncio.sleep(0.3 + draw)

    async def _full_disk(self, draw: float) -> None:
        """Its files, its log among them, may not grow beyond a page; what is deployed then is kept when they may."""
        with _limited(self._stage.nexlet.pid, resource.RLIMIT_FSIZE, _PAGE):
            async with self._guest(f"\n{_LARGE}\n"):
                await asyncio.sleep(draw)

    async def _restart_nexlet(self, draw: float) -> None:
        self._stage.nexlet.terminate()
        await self._ended_in_order()
        self._stage.start_nexlet()

    async def _kill_nexlet(self, draw: float) -> None:
        self._stage.nexlet.kill()
        await self._stage.nexlet_ended()
        self._stage.start_nexlet()

    async def _kill_nexlet_and_state(self, draw: float) -> None:
        """What ran is started by the node's word; where the node has forgotten it, too, it is deployed again."""
        former = self._stage.agents
        self._stage.nexlet.kill()
        await self._stage.nexlet_ended()
        await asyncio.to_thread(shutil.rmtree, self._stage.folder / "state")
        self._stage.start_nexlet()
        await self._registered(former)
        for name in sorted(self._stage.forgotten & self._stage.workloads.keys()):
            await self._stage.deploy(self._stage.workloads[name])
        self._stage.forgotten.clear()

    async def _take_over(self, draw: float) -> None:
        old, new = self._stage.nexlet, self._stage.up("state", "--take-over")
        ended = await asyncio.to_thread(old.wait, HEAL)
        if ended != 0 or new.poll() is not None:
            raise NotHealed(f"the nexlet ended with {ended}, and the one to take over with {new.poll()}")
        self._stage.nexlet = new

    async def _second_nexlet(self, draw: float) -> None:
        former, second = self._stage.agents, self._stage.up("second")
        try:
            await self._registered(former)
            await asyncio.sleep(draw)
        finally:
            second.terminate()
            code = await asyncio.to_thread(second.wait, HEAL)
        if code != 0:
            raise NotHealed(f"the second nexlet ended with {code} when it was asked to stop")


async def _pause(pid: int, seconds: float) -> None:
    """A process stands still for so long; one that has gone does so anyway."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)  # its number may be another's by the time that it goes on
        try:
            signal.pidfd_send_signal(process, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            signal.pidfd_send_signal(process, signal.SIGCONT)
        finally:
            os.close(process)


@contextlib.contextmanager
def _limited(pid: int, what: int, soft: int) -> Iterator[None]:
    before, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, what, (before, hard))


@contextlib.asynccontextmanager
async def _within(why: str) -> AsyncIterator[None]:
    """The block has `HEAL` seconds.

    Raises:
        NotHealed: it took longer.
    """
    try:
        async with asyncio.timeout(HEAL):
            yield
    except TimeoutError:
        raise NotHealed(f"{why} within {HEAL:g} s") from None
