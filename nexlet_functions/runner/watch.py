"""Notices a node that has forgotten us.

A node keeps its agents in memory: one that restarts knows none, and tells nobody. Its own heartbeat lists the agents it
knows; where that may be heard, an id that is missing from it is the sign, and a long silence says that the node is gone
(it may come back under another identity). Where it may not be heard, the registration is repeated from time to time:
a node that still knows us turns that down, one that has forgotten us takes us back.

A node that starts publishes an event, where it was told to publish any (`nex node up --events nats`). That spares the
wait: ours is asked at once whether it is there and knows us, and if nobody answers for it, the new one is.

What runs goes on running in all of these cases.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Protocol

import structlog

from nexlet_functions.natsio.connection import Connection, ConnectionState
from nexlet_functions.natsio.errors import NatsioError, SubscriptionRefused
from nexlet_functions.natsio.subscriptions import Subscription
from nexlet_models import subjects
from nexlet_models.control import NodeHeartbeat
from nexlet_models.errors import MalformedMessage
from nexlet_models.events import EventName

__all__ = ["NodeWatch", "Standing", "Watched"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Standing(enum.Enum):
    """What came of asking the node about us."""

    KNOWN = "known"
    TAKEN_BACK = "taken back"
    SILENT = "silent"
    UNABLE = "unable"


class Watched(Protocol):
    """What the watch needs of the runner."""

    @property
    def node_id(self) -> str: ...

    @property
    def agent_id(self) -> str: ...

    @property
    def ear(self) -> Connection:
        """The connection on which a node's heartbeats may be heard."""
        ...

    @property
    def locked_out(self) -> bool:
        """Whether the server has come to refuse what the node gave us to connect with."""
        ...

    async def confirm(self) -> Standing:
        """Ask the node whether it knows us, by registering again with the same id."""
        ...

    async def register_anew(self) -> Standing:
        """Find a node and register with it under a new id."""
        ...


_NODE_STARTED = f"$NEX.FEED.*.events.{EventName.NODE_STARTED}"


class _Started:
    """The sink of the events of nodes that start."""

    def __init__(self, watch: NodeWatch) -> None:
        self._watch = watch

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        self._watch.node_started()


class NodeWatch:
    """Watches the node of the moment. `run` it."""

    def __init__(self, watched: Watched, *, silence: float, probe_interval: float) -> None:
        """Nothing is subscribed yet.

        Args:
            silence: seconds without a node's heartbeat after which it is taken for gone; it sends one every ten.
            probe_interval: seconds between questions to a node that cannot be heard.
        """
        self._watched = watched
        self._silence = silence
        self._probe_interval = probe_interval
        self._news = asyncio.Event()
        self._missing = False
        self._asked_for = False
        self._heard = 0.0
        self._asked = 0.0
        self._subscription: Subscription | None = None
        self._listening_to: tuple[str, Connection] | None = None
        self._deaf = False
        self._told_gone = False
        self._started = _Started(self)
        self._hears_starts: Subscription | None = None
        self._may_not_hear_starts = False
        self._quiet: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._listen()
                pause = min(self._silence, self._probe_interval) / 4
                try:
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                except TimeoutError:
                    pass  # time to look at the clocks
                self._news.clear()
                await self._look()
        finally:
            self._quiet()

    # The sink of the node's heartbeats.
    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        try:
            known = NodeHeartbeat.from_json(payload).agents()
        except MalformedMessage as error:
            _log.warning("a node's heartbeat cannot be read", subject=subject, reason=str(error))
            return
        self._heard = asyncio.get_running_loop().time()
        if self._told_gone:
            self._told_gone = False
            _log.info("the node is heard again", node_id=self._watched.node_id)
        if self._watched.agent_id not in known:
            self._missing = True
            self._news.set()

    def look_soon(self) -> None:
        """There is something to see."""
        self._news.set()

    def node_started(self) -> None:
        """Some node has: ours, or one in its place, or one that is none of our business."""
        self._asked_for = True
        self._news.set()

    async def _listen(self) -> None:
        wanted = (self._watched.node_id, self._watched.ear)
        if self._listening_to != wanted:
            self._quiet()
            if self._subscription is not None:
                await self._subscription.unsubscribe()
                self._subscription = None
            if self._hears_starts is not None:
                await self._hears_starts.unsubscribe()
                self._hears_starts = None
            self._quiet = wanted[1].on_state(self._state)
            self._deaf = self._may_not_hear_starts = False
            self._listening_to = wanted
            self._heard = self._asked = asyncio.get_running_loop().time()
        if self._subscription is not None or self._deaf:
            return
        if not self._may_not_hear_starts and self._hears_starts is None:
            try:
                self._hears_starts = await wanted[1].subscribe(_NODE_STARTED, sink=self._started)
            except SubscriptionRefused:
                self._may_not_hear_starts = True  # a help that we do without: the heartbeats are what counts
            except NatsioError:
                pass  # not connected: as below
        try:
            self._subscription = await wanted[1].subscribe(subjects.node_heartbeat(wanted[0]), sink=self)
        except SubscriptionRefused:
            self._deaf = True
            _log.info(
                "the node's heartbeats may not be heard; it is asked from time to time whether it knows us",
                every=self._probe_interval,
            )
        except NatsioError:
            pass  # not connected: the next round tries again

    def _state(self, state: ConnectionState, _: str) -> None:
        if state is ConnectionState.CONNECTED:
            # Nothing could be heard meanwhile. Servers and nodes often restart together.
            self._heard = asyncio.get_running_loop().time()
            self._asked = min(self._asked, self._heard - self._probe_interval)
            self._news.set()

    async def _look(self) -> None:
        watched, now = self._watched, asyncio.get_running_loop().time()
        deaf = self._deaf or (self._subscription is not None and bool(self._subscription.refused))
        if watched.locked_out:
            _log.warning("the server refuses what the node gave us; registering anew", agent_id=watched.agent_id)
            await watched.register_anew()
        elif self._missing:
            self._missing = False
            _log.info("the node does not list us", node_id=watched.node_id, agent_id=watched.agent_id)
            if await watched.confirm() is Standing.UNABLE:
                await watched.register_anew()
        elif not watched.ear.connected:
            return
        elif self._asked_for:
            self._asked_for = False
            if await watched.confirm() in (Standing.UNABLE, Standing.SILENT):
                await watched.register_anew()
        elif deaf and now - self._asked >= self._probe_interval:
            self._asked = now
            if await watched.confirm() is Standing.UNABLE:
                await watched.register_anew()
        elif not deaf and now - self._heard >= self._silence:
            if not self._told_gone:
                self._told_gone = True
                _log.warning("the node is silent; serving on and looking for one", node_id=watched.node_id)
            await watched.register_anew()
