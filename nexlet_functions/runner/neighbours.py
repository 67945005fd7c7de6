"""The other nexlets of the same node, and what runs there already.

A node keeps what was deployed by type, not by nexlet, and replays all of it to each that registers. With two nexlets of
one type, the one that comes back, or the node that does, would have everything started a second time: listed twice,
counted twice against every limit, and run twice where a function has no queue group. So before what a node replays is
started here, the others are asked what they run, by QUERYWORKLOADS, as a node asks it.

Two that ask at the same time must not both start what neither runs yet. Each answer therefore says, in a header beside
the list, what its nexlet is about (`Standing`): who starts something is waited for; of those that ask, the one with the
lowest id begins, once it has been told of twice. Whoever leaves (lameduck, stopping) does not count: what runs there
ends, and is for us to start.

- `ask`: one round of questions.
- `Neighbour`: one answer.
- `settle`: as many rounds as it takes.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import CredentialsInvalid, NatsioError
from nexlet_functions.natsio.protocol import decode_headers
from nexlet_functions.runner.micro import new_id
from nexlet_models import subjects
from nexlet_models.errors import MalformedMessage
from nexlet_models.workloads import AgentListWorkloadsRequest, AgentListWorkloadsResponse, WorkloadState

__all__ = ["AGENT_ID", "STANDING", "Neighbour", "Standing", "ask", "settle"]

AGENT_ID = "agentId"
"""The header that says whose answer it is: Nex's own, of PING and SETLAMEDUCK."""
STANDING = "agentStanding"
"""The header that says what its nexlet is about: ours."""

_ROUNDS = 20
"""After so many, what nobody is seen to run is started: better twice than not at all."""

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class Standing(enum.StrEnum):
    """What a nexlet is about."""

    SETTLED = "settled"
    ASKING = "asking"
    STARTING = "starting"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What another nexlet says of itself.

    Attributes:
        agent_id: its id to the node; "" where it is of another make, which does not tell.
        standing: what it is about.
        workloads: ids of what runs or starts there.
    """

    agent_id: str
    standing: Standing
    workloads: frozenset[str]


async def ask(connection: Connection, node_id: str, agent_id: str, *, within: float) -> list[Neighbour]:
    """All neighbours that answer `within` seconds, without ourselves. None where they cannot be asked.

    Args:
        agent_id: ours.
    """
    subject = subjects.query_workloads(node_id)
    heard = _Heard(agent_id)
    asked = AgentListWorkloadsRequest(namespace=subjects.SYSTEM, filter=None)
    try:
        if connection.credentials.may_publish(subject) is False:
            _log.info("other nexlets of this node may not be asked what runs there", node_id=node_id)
            return []
        inbox = f"_INBOX.{new_id()}"
        subscription = await connection.subscribe(inbox, sink=heard)
        try:
            connection.publish(subject, asked.to_json(), reply=inbox)
            await asyncio.sleep(within)
        finally:
            await subscription.unsubscribe()
    except (CredentialsInvalid, NatsioError) as error:
        _log.warning("other nexlets of this node could not be asked what runs there", reason=str(error))
    return heard.neighbours


async def settle(
    ours: str, ask_all: Callable[[], Awaitable[Collection[Neighbour]]], *, rounds: int = _ROUNDS
) -> frozenset[str]:
    """Ask until it is for us to begin; what runs elsewhere by then.

    Args:
        ours: our id.
        ask_all: one round.
    """
    asking_before: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    for _ in range(rounds):
        found = [one for one in await ask_all() if one.standing is not Standing.LEAVING]
        elsewhere = frozenset().union(*(one.workloads for one in found))
        asking = frozenset(one.agent_id for one in found if one.standing is Standing.ASKING)
        starting = any(one.standing is Standing.STARTING for one in found)
        # One that asks for the first time may not have heard of us, and begins after its only round.
        if not starting and asking <= asking_before and all(ours < one for one in asking):
            return elsewhere
        asking_before = asking
    _log.warning("other nexlets of this node do not come to rest; starting what they do not run")
    return elsewhere


class _Heard:
    """The sink of the answers."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self.neighbours: list[Neighbour] = []

    def message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        said = decode_headers(headers)
        agent_id = said.get(AGENT_ID, "")
        if agent_id == self._ours or not payload:
            return  # our own answer, or the server's word that nobody serves there
        try:
            listed = AgentListWorkloadsResponse.from_json(payload).items()
        except MalformedMessage as error:
            _log.warning("another nexlet's list of workloads cannot be read", agent_id=agent_id, reason=str(error))
            return
        try:
            standing = Standing(said.get(STANDING, Standing.SETTLED))
        except ValueError:
            standing = Standing.SETTLED  # a later version's word
        lives = (WorkloadState.RUNNING, WorkloadState.STARTING, WorkloadState.WARM)
        self.neighbours.append(
            Neighbour(agent_id, standing, frozenset(one.id for one in listed if one.workload_state in lives))
        )
