"""What works by what a node mints, and what cannot: one table, here and in docs/operations.md, over real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr

from nexlet_functions.control import ControlClient, ControlRefused
from nexlet_functions.devnode.minter import FullAccess
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Connection, Credentials
from nexlet_functions.runner import Services
from nexlet_functions.runner.serving import ServedTriggers, TriggerMessage, serve_triggers
from nexlet_functions.runner.simple import SimpleAgent
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import AgentStartWorkloadRequest, StartWorkloadRequest, WorkloadLifecycle
from tests.support.minters import MINTING, Minting
from tests.support.polling import eventually
from tests.support.running import Running, run
from tests.support.settle import settle

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
COLUMNS = ("register", "heartbeat", "start", "trigger", "reply", "logs", "metrics", "event")

YES, NO, OWN = "yes", "no", "under the agent's prefix"
TABLE = {
    "open": dict.fromkeys(COLUMNS, YES),
    "nkey": dict.fromkeys(COLUMNS, YES),
    "signing key": dict(zip(COLUMNS, (YES, YES, YES, NO, NO, OWN, NO, OWN), strict=True)),
    "signing key, with credentials for the namespace": dict.fromkeys(COLUMNS, YES),
    "no issuer, and a server that asks": dict.fromkeys(COLUMNS, NO),
}
"""What is to be seen in each cell."""


async def _shout(message: TriggerMessage) -> bytes:
    return message.data.upper()


async def _start(services: Services, workload_id: str, request: AgentStartWorkloadRequest) -> ServedTriggers:
    namespace, subject = request.request.namespace, request.request.name
    # A workload without a trigger of its own may still be started: its logs are what it lives for.
    subjects = [] if subject == "quiet" else [subject]
    served = await serve_triggers(services, workload_id, namespace, request.workload_creds, subjects, _shout)
    services.get_logger(workload_id, namespace).stdout(b"a line")
    services.emit_metrics(workload_id, namespace, b"{}")
    return served


@dataclass
class Place:
    """A server, a node that mints in one way, and a nexlet."""

    url: str
    node: DevNode
    running: Running
    control: ControlClient
    heard: list[Msg]
    connection: Connection

    async def start(self, name: str) -> str:
        asked = StartWorkloadRequest(
            name=name, namespace="acme", description="", workload_type="shout",
            workload_lifecycle=WorkloadLifecycle.FUNCTION, run_request="{}", tags={},
        )  # fmt: skip
        return (await self.control.start(asked)).id

    async def fate(self, rest: str) -> str:
        """Where a feed's messages turn up, once those that came before have been processed."""
        for one in self.running.runner.connections:
            await one.flush()
        await settle(self.connection.client)
        found = {one.subject.removesuffix(rest) for one in self.heard if one.subject.endswith(rest)}
        if not found:
            return NO
        return YES if found == {"$NEX.FEED.acme"} else OWN


@asynccontextmanager
async def placed(kind: Minting) -> AsyncIterator[Place]:
    async with EmbeddedServer(config=kind.config, jetstream=False) as server:
        admin = kind.admin(server.url)
        ids: list[str] = []
        node = await DevNode.start(admin, minter=kind.minter(server.url, lambda: ids[0]), gather_timeout=0.5)
        ids.append(node.node_id)
        connection = await Connection.open(admin)
        supplied = kind.namespace(server.url) if kind.namespace is not None else None
        heard: list[Msg] = []

        async def hear(message: Msg) -> None:
            heard.append(message)

        async with (
            node,
            run(
                agent=lambda services: SimpleAgent(services, _start, register_type="shout", version="1.0.0"),
                credentials=admin,
                credentials_of=lambda namespace: supplied,
            ) as running,
        ):
            client = connection.client
            await client.subscribe("$NEX.FEED.>", cb=hear)
            await settle(client)
            yield Place(server.url, node, running, ControlClient(client, "acme", nodes=1), heard, connection)
        await connection.close()


async def seen(place: Place) -> dict[str, str]:
    """The row of the table, as it is."""
    row = dict.fromkeys(COLUMNS, NO)
    await eventually(lambda: place.node.registrations.healthy("shout"), what="healthy")
    row["register"] = row["heartbeat"] = YES
    workload_id = await place.start("quiet")
    row["start"] = YES
    row["logs"] = await place.fate(f".logs.{workload_id}.stdout")
    row["metrics"] = await place.fate(f".metrics.{workload_id}")
    try:
        await place.start("orders.created")
    except ControlRefused as refused:
        row["refusal"] = str(refused)
    else:
        row["trigger"] = YES
        answer = await place.connection.request("orders.created", b"x", timeout=5)
        row["reply"] = YES if answer.payload == b"X" else NO
    # An event of the namespace's; every workload has one when it is stopped.
    await place.control.stop(workload_id)
    await eventually(lambda: any(one.subject.endswith("WORKLOADSTOPPED") for one in place.heard), what="an event")
    row["event"] = await place.fate(".events.WORKLOADSTOPPED")
    return row


async def test_a_node_that_mints_scoped_users_is_told_of_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with placed(MINTING["signing key"]()) as place:
        await eventually(lambda: place.node.registrations.healthy("shout"))
        assert "may subscribe to no trigger" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [kind for kind in TABLE if TABLE[kind]["register"] == YES])
async def test_what_works_is_what_the_table_says(kind: str) -> None:
    async with placed(MINTING[kind]()) as place:
        row = await seen(place)
        refusal = row.pop("refusal", "")
        assert row == TABLE[kind]
        assert ("trigger 'orders.created' refused" in refusal) is (row["trigger"] == NO)
        assert ("have the operator of this nexlet supply credentials" in refusal) is (row["trigger"] == NO)


async def test_without_an_issuer_where_the_server_asks_nothing_works_and_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []

    def told() -> bool:
        said.append(capsys.readouterr().out)
        return "start the node with an issuer" in "".join(said)

    async with placed(MINTING["no issuer, and a server that asks"]()) as place:
        await eventually(told)
        assert not place.node.registrations.healthy("shout")


async def test_credentials_that_are_revoked_are_replaced_by_a_new_registration() -> None:
    """The node's user goes, with every connection that is his; the node mints others, and the agent takes them."""
    users = "authorization {{ users = [ {{ user: admin, password: pw }}, {{ user: {0}, password: pw }} ] }}"
    minted = ["first"]

    class Users(FullAccess):
        def agent(self, agent_id: str) -> NatsConnectionData:
            return self._data.model_copy(update={"nats_user_name": minted[0], "nats_user_password": SecretStr("pw")})

        registration = agent

        def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
            return self.agent("")

    kind = Minting(
        users.format("first"),
        lambda url: Credentials((url,), user="admin", password=SecretStr("pw")),
        lambda url, _: Users((url,)),
    )
    async with EmbeddedServer(config=kind.config, jetstream=False) as server:
        admin = kind.admin(server.url)
        async with (
            await DevNode.start(admin, minter=kind.minter(server.url, str)) as node,
            run(
                agent=lambda services: SimpleAgent(services, _start, register_type="shout", version="1.0.0"),
                credentials=admin,
            ) as running,
        ):
            await eventually(lambda: node.registrations.healthy("shout"))
            first = running.runner.agent_id
            minted[0] = "second"
            server.reconfigure(users.format("second"))
            await eventually(lambda: running.runner.agent_id != first, what="registered anew")
            await eventually(lambda: len(node.registrations.healthy("shout")) == 1, what="healthy under the new id")


def test_the_operators_page_shows_the_same_table() -> None:
    lines = ["| minted | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {kind} | " + " | ".join(row[column] for column in COLUMNS) + " |" for kind, row in TABLE.items()]
    assert "\n".join(lines) in PAGE.read_text()
