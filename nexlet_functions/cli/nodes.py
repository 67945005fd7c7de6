"""What the commands share that speak to nodes: where they are reached, on behalf of which namespace, and how it reads.

The nodes are asked all at once, and there is no telling how many there are: a question ends a second after the last
answer to it, or with the answer that `--nodes` says is the last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import SELDOM

if TYPE_CHECKING:
    from nexlet_functions.control import ControlClient
    from nexlet_functions.natsio import Connection, MessageSink
    from nexlet_models.workloads import WorkloadSummary

__all__ = [
    "EVERYWHERE", "Namespace", "Nodes", "SeldomNodes", "Session", "aligned", "session", "state_style",
    "valid_namespace", "workload_fields",
]  # fmt: skip

CONNECT_TIMEOUT = 2.0
"""Seconds to wait for a server that does not answer at once, as `invoke` does."""

_KNOWN_COUNT_WAIT = 10.0
"""Seconds for the answers of as many nodes as there are said to be."""

EVERYWHERE = "system"
"""The namespace whose clients see and stop what is in any; what the `nex` command takes by itself, too."""

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        envvar=["NEXFN_NAMESPACE", "NEX_NAMESPACE"],
        help="Namespace of the functions; 'system' means all of them.",
    ),
]


def _nodes(**more: Any) -> Any:
    return typer.Option(
        "--nodes",
        envvar="NEXFN_NODES",
        min=1,
        metavar="N",
        help="How many nodes there are, if known: more answers are not waited for.",
        show_default=False,
        **more,
    )


Nodes = Annotated[int | None, _nodes()]
SeldomNodes = Annotated[int | None, _nodes(hidden=True, rich_help_panel=SELDOM)]
"""The same for a command that only now and then has to ask nodes."""


class Session:
    """A connection, and the nodes behind it.

    Attributes:
        connection: for what comes off feeds.
        namespace: on whose behalf.
    """

    def __init__(self, connection: Connection, namespace: str, nodes: int | None) -> None:
        self.connection = connection
        self.namespace = namespace
        self._nodes = nodes

    @property
    def control(self) -> ControlClient:
        """For what nodes are asked. Made anew each time: the connection may have got another client meanwhile.

        Raises:
            ConnectionLost: it has none at the moment.
        """
        from nexlet_functions.control import ControlClient

        patience = {} if self._nodes is None else {"wait": _KNOWN_COUNT_WAIT, "stall": _KNOWN_COUNT_WAIT}
        return ControlClient(self.connection.client, self.namespace, nodes=self._nodes, **patience)

    async def listen(self, feed: Callable[[str], str], sink: MessageSink) -> None:
        """Have `sink` told what comes on a feed. When this returns, nothing is missed.

        Of all prefixes, because an agent publishes under its own where a node has a signing key; where that is not
        permitted, of the namespace's alone.

        Args:
            feed: its subject, of a namespace or `*`.

        Raises:
            SubscriptionRefused: the server permits neither.
        """
        from nexlet_functions.natsio.errors import SubscriptionRefused

        try:
            await self.connection.subscribe(feed("*"), queue="", sink=sink)
        except SubscriptionRefused:
            if self.namespace == EVERYWHERE:
                raise
            await self.connection.subscribe(feed(self.namespace), queue="", sink=sink)

    async def workloads(self) -> list[WorkloadSummary]:
        """What runs there, in the order of namespace, name and age; none where no node has an agent.

        Raises:
            CommandFailed: no node answered.
        """
        from nexlet_functions.control import ControlRefused
        from nexlet_models.subjects import SYSTEM

        try:
            found = await self.control.workloads()
        except ControlRefused:
            # A node without agents refuses, and so does one that is asked for something wrong: only the first has none.
            if any(node.agent_count for node in await self.control.nodes()):
                raise
            found = []
        if not found and self.namespace == SYSTEM and not await self.control.nodes():
            raise CommandFailed(Exit.UNREACHABLE, "no-node", "no node answers", "is there one? see `nex node ls`")
        return sorted(found, key=lambda one: (one.namespace or "", one.name, one.start_time, one.id))


def valid_namespace(namespace: str) -> None:
    """See that it is one.

    Raises:
        CommandFailed: it cannot be.
    """
    from nexlet_models.subjects import valid_token

    if (reason := valid_token(namespace)) is not None:
        raise CommandFailed(Exit.USAGE, "invalid-namespace", f"--namespace: '{namespace}' {reason}")


@asynccontextmanager
async def session(
    command: str, namespace: str, flags: Mapping[str, object], *, nodes: int | None = None
) -> AsyncIterator[Session]:
    """Connect for as long as the `async with` lasts.

    Args:
        command: its name, for whoever looks at the server's connections.
        flags: what the command line says about how NATS is reached.
        nodes: how many there are; None where nobody said.

    Raises:
        CommandFailed, NexletFunctionsError: no server is reached.
    """
    from nexlet_functions.natsio import Connection
    from nexlet_functions.settings import Settings

    valid_namespace(namespace)
    settings = Settings.read(flags)
    async with await Connection.open(
        settings.credentials(), name=f"nexfn {command}", timeout=CONNECT_TIMEOUT
    ) as connection:
        yield Session(connection, namespace, nodes)


def workload_fields(summary: WorkloadSummary) -> dict[str, Any]:
    """A workload for programs: what its nexlet tells, numbers as numbers; what it does not tell is None."""
    facts = summary.metadata or {}
    outcomes = {
        name.removeprefix("outcome_"): int(count)
        for name, count in facts.items()
        if name.startswith("outcome_") and count.isdecimal()
    }
    invocations = _number(facts.get("invocations"))
    return {
        "id": summary.id,
        "name": summary.name,
        "namespace": summary.namespace,
        "state": summary.workload_state.value,
        "start_time": summary.start_time,
        "workload_type": summary.workload_type,
        "lifecycle": summary.workload_lifecycle,
        "triggers": _listed(facts.get("triggers")),
        "streams": _listed(facts.get("streams")),
        "schedules": facts["schedules"].split("; ") if "schedules" in facts else None,
        "unanswered": _listed(facts.get("unanswered")),
        "workers": _number(facts.get("workers", "").partition("/")[0]),
        "max_workers": _number(facts.get("workers", "").partition("/")[2]),
        "in_flight": _number(facts.get("in_flight")),
        "pending": _number(facts.get("pending")),
        "invocations": invocations,
        "failed": None if invocations is None else invocations - outcomes.get("ok", 0),
        "outcomes": outcomes or None,
        "run_time": summary.runtime or None,
        "digest": facts.get("digest"),
        "metadata": dict(facts) or None,
        "tags": dict(summary.tags or {}) or None,
    }


_STYLES = {"running": "green", "warm": "green", "error": "bold red", "stopping": "yellow", "starting": "yellow"}


def state_style(state: str) -> str:
    """How a workload's state is shown on a terminal."""
    return _STYLES.get(state, "")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _listed(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The same cells, padded so that columns stand under each other; the last of a row is left as it is."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    return [[cell.ljust(widths[number]) for number, cell in enumerate(row[:-1])] + [row[-1]] for row in rows]
