"""Workloads whose credentials the server has come to refuse: they get others, and are live again where they stand.

What a node mints for a workload expires (after a year, where a Nex node has a signing key), or is void at once when
that key is changed. The connection is then turned away for good, with all that runs on it. Two may have others:

- the operator, whose credentials for a namespace go before the node's: given since, they are taken;
- the node, which mints anew for everything it replays: each registration brings that, and where the server refuses a
  workload alone, we register anew to have it.

A connection that several namespaces share is left alone: what a node gives one of them is no business of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.connections import Connections
from nexlet_functions.natsio.credentials import Credentials
from nexlet_functions.natsio.errors import CredentialsInvalid
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.triggers import Triggers
from nexlet_functions.runner.watch import Standing
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["Renewing"]

_log = structlog.stdlib.get_logger("nexlet_functions.runner")

_LOOK = 1.0
"""Seconds between looks at the connections."""

_ASK_AGAIN = (60.0, 3600.0)
"""Seconds until the node is asked once more: doubling, up to the second. Each question leaves a dead id on the node."""


@dataclass(slots=True)
class _Runs:
    """A workload that runs, by which credentials it connected, and whether they are what its node minted."""

    request: AgentStartWorkloadRequest
    credentials: Credentials
    minted: bool


class Renewing:
    """Keeps an eye on the connections of workloads. `run` it."""

    def __init__(
        self,
        connections: Connections,
        triggers: Triggers,
        *,
        register_anew: Callable[[], Awaitable[Standing]],
        locked_out: Callable[[], bool],
        keep: Callable[[str, AgentStartWorkloadRequest], Awaitable[None]],
        ask_again: tuple[float, float] = _ASK_AGAIN,
    ) -> None:
        """Nothing runs yet.

        Args:
            connections: of workloads and feeds.
            triggers: knows whose credentials go before whose.
            register_anew: has the node mint anew for all that it replays (see `replayed`).
            locked_out: whether the server refuses the agent, too; somebody else registers anew then.
            keep: writes down what a workload is started with.
            ask_again: seconds between two questions to the node, the first and the longest.
        """
        self._connections = connections
        self._triggers = triggers
        self._register_anew = register_anew
        self._locked_out = locked_out
        self._keep = keep
        self._runs: dict[str, _Runs] = {}
        self._unkept: dict[str, AgentStartWorkloadRequest] = {}
        self._ask_again = ask_again
        self._pause = ask_again[0]
        self._ask_at = 0.0
        self._told: set[Connection] = set()

    # --- what is told -----------------------------------------------------------------------------------------------

    def started(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        """It runs, by these credentials or the operator's."""
        credentials = self._credentials(request.request.namespace, request.workload_creds)
        if credentials is not None:
            self._runs[workload_id] = _Runs(request, credentials, _is(credentials, request.workload_creds))

    def stopped(self, workload_id: str) -> None:
        """It does not run any more."""
        self._runs.pop(workload_id, None)
        self._unkept.pop(workload_id, None)

    def replayed(self, workloads: Mapping[str, AgentStartWorkloadRequest]) -> None:
        """The node has minted anew. What is good still is used on; the next connection is made by the new ones."""
        for workload_id, one in workloads.items():
            runs = self._runs.get(workload_id)
            if runs is not None and runs.request.workload_creds != one.workload_creds:
                runs.request = runs.request.model_copy(update={"workload_creds": one.workload_creds})
                self._unkept[workload_id] = runs.request

    # --- looking ------------------------------------------------------------------------------------------------------

    async def run(self, locked_out_now: Callable[[], None]) -> None:
        """Until cancelled.

        Args:
            locked_out_now: called when the server has come to refuse the agent, for whoever registers anew then.
        """
        was = False
        while True:
            locked_out = self._locked_out()
            if locked_out and not was:
                locked_out_now()
            was = locked_out
            await self.look()
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Renew what can be renewed, and ask for what cannot."""
        while self._unkept:
            workload_id, request = self._unkept.popitem()
            await self._keep(workload_id, request)
        refused = [one for one in self._connections.all() if _refused(one)]
        self._told &= set(refused)
        # One that is apart from another is renewed with it, and may not be refused any more when its turn comes.
        helpless = {one.credentials: one for one in refused if _refused(one) and not self._renew(one)}
        minted = [one for one in helpless.values() if any(workload.minted for workload in self._on(one).values())]
        now = asyncio.get_running_loop().time()
        if not minted:
            if now >= self._ask_at:
                self._pause = self._ask_again[0]
            return
        if self._locked_out():
            return
        if now < self._ask_at:  # it was asked, and what it gave does not do either
            for one in minted:
                self._tell(one)
            return
        self._ask_at, self._pause = now + self._pause, min(2 * self._pause, self._ask_again[1])
        _log.warning(
            "the server refuses what the node minted for workloads; registering anew, to have it mint others",
            workloads=sum(len(self._on(one)) for one in minted),
        )
        await self._register_anew()
        for one in minted:
            self._renew(one)

    def _renew(self, connection: Connection) -> bool:
        """Whether there are other credentials for it; it has them then."""
        workloads = self._on(connection)
        asked = [one.request for one in workloads.values()]
        wanted = {self._credentials(one.request.namespace, one.workload_creds) for one in asked}
        namespaces = self._connections.namespaces(connection)
        if len(wanted) != 1 or len(namespaces) != 1 or None in wanted or wanted == {connection.credentials}:
            return False
        (credentials,) = wanted
        assert credentials is not None
        self._connections.renew(connection, credentials)
        for one in workloads.values():
            one.credentials, one.minted = credentials, _is(credentials, one.request.workload_creds)
        _log.info("workloads connect by other credentials", namespace=min(namespaces), workloads=sorted(workloads))
        return True

    def _on(self, connection: Connection) -> dict[str, _Runs]:
        return {key: one for key, one in self._runs.items() if one.credentials == connection.credentials}

    def _credentials(self, namespace: str, creds: NatsConnectionData) -> Credentials | None:
        try:
            return self._triggers.credentials(namespace, creds)
        except AgentError:
            return None  # they cannot be used, which is no better than what there is

    def _tell(self, connection: Connection) -> None:
        """Once, for as long as it is refused."""
        if connection in self._told:
            return
        self._told.add(connection)
        workloads = self._on(connection)
        namespaces = sorted({one.request.request.namespace for one in workloads.values()})
        several = len(namespaces) > 1
        _log.error(
            "workloads stand still: the server refuses what the node minted for them",
            reason=connection.last_failure.reason if connection.last_failure is not None else "",
            namespaces=namespaces,
            workloads=sorted(workloads),
            why="namespaces shared it, and one's is not given to another" if several else "it has no others that do",
            advice="deploy them again, or give each namespace credentials in the settings file "
            "(namespaces.NAME.credentials)",
        )


def _is(credentials: Credentials, creds: NatsConnectionData) -> bool:
    try:
        return credentials == Credentials.from_connection_data(creds)
    except CredentialsInvalid:
        return False


def _refused(connection: Connection) -> bool:
    failure = connection.last_failure
    return not connection.connected and failure is not None and failure.refused
