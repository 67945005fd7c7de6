"""Credentials that end while they are in use: a JWT that expires, a user that an account revokes, over real servers.

What runs is served on by whatever still holds; what was cut off says why and what to do, and is live again by itself as
soon as there are credentials that do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client, RawCredentials

from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.node import DevNode
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio import Credentials
from nexlet_models.connection import NatsConnectionData
from tests.support.jwt import Operator, creds_text
from tests.support.load import Load
from tests.support.minters import SigningKey
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.running import Running, run
from tests.support.shouting import Shouting, shout

pytestmark = pytest.mark.faults  # a JWT knows whole seconds, so that each of these takes some

LIFE = 2
"""Seconds: what is left of less than one may be over before it was used."""


def soon() -> int:
    return int(time.time()) + LIFE


class Minter(SigningKey):
    """As a node with a signing key, but what it gives an agent ends at `ends`, as long as there is such a time."""

    ends: int | None = None

    def agent(self, agent_id: str) -> NatsConnectionData:
        return self._operator.agent(self._url, self._node_id(), agent_id, expires=self.ends)


@dataclass
class Place:
    """A server whose accounts are an operator's, a node, a nexlet with its own creds file, and a namespace's."""

    operator: Operator
    server: EmbeddedServer
    minter: Minter
    node: DevNode
    running: Running
    control: ControlClient
    client: Client
    own: Path
    supplied: Path

    def load(self, subject: str) -> Load:
        return Load(self.server.url, subject, user_credentials=RawCredentials(creds_text(*self.operator.user("load"))))

    async def answered(self, subject: str) -> bool:
        try:
            return (await self.client.request(subject, b"on", timeout=5)).data == b"ON"
        except nats.errors.Error:
            return False

    async def live_again(self, subject: str) -> None:
        async with asyncio.timeout(20):
            while True:
                if await self.answered(subject):
                    return
                await asyncio.sleep(0.05)


def renew(file: Path, user: tuple[str, str]) -> None:
    file.write_text(creds_text(*user))


@asynccontextmanager
async def placed(
    folder: Path, *, own: int | None = None, supplied: int | None = None, minted: int | None = None
) -> AsyncIterator[Place]:
    """Everything up, with when which credentials end; None is never."""
    operator = Operator()
    files = folder / "own.creds", folder / "acme.creds"
    async with EmbeddedServer(config=operator.resolved_in(folder / "accounts"), jetstream=False) as server:
        admin = Credentials.from_connection_data(operator.creds(server.url, "admin"))
        ids: list[str] = []
        minter = Minter(operator, server.url, lambda: ids[0])
        minter.ends = minted
        node = await DevNode.start(admin, minter=minter, gather_timeout=0.5)
        ids.append(node.node_id)
        client = await nats.connect(server.url, user_credentials=RawCredentials(creds_text(*operator.user("client"))))
        renew(files[0], operator.user("own", expires=own))
        renew(files[1], operator.user("acme", expires=supplied))
        async with (
            node,
            run(
                agent=Shouting,
                credentials=Credentials((server.url,), creds_file=files[0]),
                credentials_of=lambda namespace: Credentials((server.url,), creds_file=files[1]),
            ) as running,
        ):
            await eventually(lambda: node.registrations.healthy("shout"))
            yield Place(operator, server, minter, node, running, ControlClient(client, "acme", nodes=1), client, *files)
        await client.close()


class Said:
    """What the log has said so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    def all_of(self, *words: str) -> bool:
        """Whether all of it stands in one line."""
        self._text += self._capsys.readouterr().out
        return any(all(word in line for word in words) for line in self._text.splitlines())


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


@row("credentials expire or are revoked")
async def test_the_nexlets_own_expire_and_are_renewed(tmp_path: Path, said: Said) -> None:
    """What runs needs them not; the node is heard by them, and another one found."""
    async with placed(tmp_path, own=soon()) as place:
        await shout(place.control, "a.one")
        agent_id, (own,) = place.running.runner.agent_id, place.running.runner.connections_by_use["nexlet"]
        async with place.load("a.one") as load:
            await eventually(lambda: said.all_of("cannot connect", "expired", f"renew the creds file {place.own}"))
            assert not own.connected
            await load.more()
            await shout(place.control, "a.two")  # what a node asks comes by what it minted
            renew(place.own, place.operator.user("own"))
            await eventually(lambda: own.connected, within=20, what="taken up")
            await load.more()
        assert place.running.runner.agent_id == agent_id


@row("credentials expire or are revoked")
async def test_a_namespaces_expire_and_are_renewed(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, supplied=soon()) as place:
        await shout(place.control, "a.one")
        assert await place.answered("a.one")
        await eventually(lambda: said.all_of("cannot connect", "expired", f"renew the creds file {place.supplied}"))
        with pytest.raises(nats.errors.NoRespondersError):
            await place.client.request("a.one", b"", timeout=5)
        renew(place.supplied, place.operator.user("acme"))
        await place.live_again("a.one")
        async with place.load("a.one") as load:
            await load.more()


async def test_a_namespaces_are_renewed_before_they_expire(tmp_path: Path, said: Said) -> None:
    """The server cuts the connection off at its time, and the next one, at once, is made with what is in the file."""
    async with placed(tmp_path, supplied=soon()) as place:
        await shout(place.control, "a.one")
        renew(place.supplied, place.operator.user("acme"))
        (used,) = place.running.runner.connections_by_use["workloads"]
        first = used.stats().connects
        await eventually(lambda: used.stats().connects > first, what="connected again")
        assert not said.all_of("cannot connect")
        await place.live_again("a.one")


@row("credentials expire or are revoked")
async def test_minted_ones_expire_and_are_minted_anew(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, minted=soon()) as place:
        await shout(place.control, "a.one")
        former = place.running.runner.agent_id
        place.minter.ends = None
        async with place.load("a.one") as load:
            await eventually(lambda: place.running.runner.agent_id != former, within=20, what="registered anew")
            await eventually(lambda: len(place.node.registrations.healthy("shout")) == 1, what="under the new id alone")
            await load.more()
        assert said.all_of("registering anew", "the server refuses what the node gave us")
        await shout(place.control, "a.two")
        assert await place.answered("a.two")


@row("credentials expire or are revoked")
async def test_a_namespaces_user_is_revoked_by_its_account(tmp_path: Path, said: Said) -> None:
    """By new claims of the account, pushed to the server's resolver, as `nsc push` does."""
    async with placed(tmp_path) as place:
        await shout(place.control, "a.one")
        assert await place.answered("a.one")
        await place.operator.revoke(place.server.url, "acme")
        await eventually(lambda: said.all_of("cannot connect", f"renew the creds file {place.supplied}"))
        assert not await place.answered("a.one")
        renew(place.supplied, place.operator.user("acme again"))
        await place.live_again("a.one")
