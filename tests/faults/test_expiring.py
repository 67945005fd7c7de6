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
from nexlet_functions.natsio import Connection, Credentials
from nexlet_models.connection import NatsConnectionData
from nexlet_models.workloads import WorkloadState
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
    """As a node with a signing key, but what it gives an agent ends at `ends`, as long as there is such a time.

    Attributes:
        workloads_end: the same for what it gives workloads, which may then do everything: a node whose operator trusts
            them has such a minter (`models.CredVendor` of Nex may be anybody's).
        shared: whether all workloads are given the same.
    """

    ends: int | None = None
    workloads_end: int | None = None
    shared = False
    _given: NatsConnectionData | None = None

    def agent(self, agent_id: str) -> NatsConnectionData:
        return self._operator.agent(self._url, self._node_id(), agent_id, expires=self.ends)

    def workload(self, namespace: str, workload_id: str) -> NatsConnectionData:
        if self._given is None or not self.shared:
            self._given = self._operator.creds(self._url, workload_id, expires=self.workloads_end)
        return self._given


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
    supplies: bool

    @property
    def of_triggers(self) -> list[Connection]:
        """The connections of workloads, without those that only publish on feeds."""
        return [one for one in self.running.runner.connections_by_use["workloads"] if one.stats().subscriptions]

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
    folder: Path,
    *,
    own: int | None = None,
    supplied: int | None = None,
    minted: int | None = None,
    workloads: int | None = None,
    supplies: bool = True,
    state: Path | None = None,
) -> AsyncIterator[Place]:
    """Everything up, with when which credentials end; None is never.

    Args:
        supplies: whether the operator supplies any for namespaces; `Place.supplies` may change that.
        state: the nexlet's state folder.
    """
    places: list[Place] = []

    def supply(namespace: str) -> Credentials | None:
        given = places[0].supplies if places else supplies
        return Credentials((server.url,), creds_file=files[1]) if given else None

    operator = Operator()
    files = folder / "own.creds", folder / "acme.creds"
    async with EmbeddedServer(config=operator.resolved_in(folder / "accounts"), jetstream=False) as server:
        admin = Credentials.from_connection_data(operator.creds(server.url, "admin"))
        ids: list[str] = []
        minter = Minter(operator, server.url, lambda: ids[0])
        minter.ends = minted
        minter.workloads_end = workloads
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
                credentials_of=supply,
                state_folder=state,
            ) as running,
        ):
            await eventually(lambda: node.registrations.healthy("shout"))
            control = ControlClient(client, "acme", nodes=1)
            place = Place(operator, server, minter, node, running, control, client, *files, supplies)
            places.append(place)
            try:
                yield place
            finally:
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


# --- what the node minted for workloads -------------------------------------------------------------------------------


@row("what a node minted for a function expires or is void")
async def test_minted_for_workloads_they_are_asked_for_anew(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, workloads=soon(), supplies=False) as place:
        await shout(place.control, "a.one")
        await shout(place.control, "a.two")
        assert await place.answered("a.one")
        assert await place.answered("a.two")
        former, before = place.running.runner.agent_id, set(place.of_triggers)
        place.minter.workloads_end = None
        await eventually(lambda: said.all_of("the server refuses what the node minted for workloads"), within=20)
        await place.live_again("a.one")
        await place.live_again("a.two")
        async with place.load("a.one") as load:
            await load.more()
        assert place.running.runner.agent_id != former
        assert set(place.of_triggers) == before, "the same, with all that is on them"
        # One question was enough for both, and what the node lists is served under the new id.
        assert place.running.runner.registrations == 2
        listed = await place.control.workloads()
        assert [one.workload_state for one in listed] == [WorkloadState.RUNNING] * 2


@row("what a node minted for a function expires or is void")
async def test_a_connection_apart_is_renewed_with_the_one_that_it_is_apart_from(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, workloads=soon(), supplies=False) as place:
        await shout(place.control, "a.one")
        (used,) = place.of_triggers
        (workload,) = await place.control.workloads()
        services = place.running.runner.services
        apart = await services.open_apart(workload.id)
        assert apart.credentials == used.credentials
        void = used.credentials
        place.minter.workloads_end = None
        await eventually(lambda: said.all_of("workloads connect by other credentials"), within=20)
        await place.live_again("a.one")
        await eventually(lambda: apart.connected, within=20, what="connected again")
        assert apart.credentials == used.credentials != void
        assert place.running.runner.registrations == 2, "asked once for both"
        await services.close_apart(apart, "acme")
        assert not apart.connected
        assert used.connected


@row("what a node minted for a function expires or is void")
async def test_the_operators_go_before_the_nodes_when_they_come(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, workloads=soon(), supplies=False) as place:
        await shout(place.control, "a.one")
        (used,) = place.of_triggers
        place.supplies = True  # as after SIGHUP
        former = place.running.runner.agent_id
        await eventually(lambda: said.all_of("workloads connect by other credentials"), within=20)
        await place.live_again("a.one")
        assert used.credentials.creds_file == place.supplied
        assert place.running.runner.agent_id == former, "nobody had to be asked"


@row("what a node minted for a function expires or is void")
async def test_a_node_that_has_no_others_is_asked_rarely_and_it_is_said(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, workloads=soon(), supplies=False) as place:
        await shout(place.control, "a.one")
        await eventually(
            lambda: said.all_of("workloads stand still", "namespaces.NAME.credentials", "Violation"),
            within=20,
        )
        asked = place.running.runner.registrations
        connects = place.of_triggers[0].stats().connects
        place.supplies = True
        await place.live_again("a.one")
        assert place.running.runner.registrations == asked == 2
        assert place.of_triggers[0].stats().connects == connects + 1


@row("what a node minted for a function expires or is void")
async def test_what_namespaces_share_is_given_to_none(tmp_path: Path, said: Said) -> None:
    async with placed(tmp_path, workloads=soon(), supplies=False) as place:
        place.minter.shared = True
        other = ControlClient(place.client, "umbrella", nodes=1)
        await shout(place.control, "a.one")
        await shout(other, "b.one")
        (used,) = place.of_triggers
        before = used.credentials
        place.minter.shared = False
        place.minter.workloads_end = None
        await eventually(lambda: said.all_of("workloads stand still", "namespaces shared it"), within=20)
        assert used.credentials == before
        assert not await place.answered("a.one")


@row("what a node minted for a function expires or is void")
async def test_what_is_kept_is_what_was_minted_last(tmp_path: Path, said: Said) -> None:
    """A nexlet that is started again has no use for what was void before it ended."""
    async with placed(tmp_path, workloads=soon(), supplies=False, state=tmp_path / "state") as place:
        await shout(place.control, "a.one")
        place.minter.workloads_end = None
        await eventually(lambda: said.all_of("workloads connect by other credentials"), within=20)
        await place.live_again("a.one")
        state = place.running.runner._state
        assert state is not None
        kept = state.workloads

        def given() -> bool:
            (one,) = kept().values()
            return place.of_triggers[0].credentials == Credentials.from_connection_data(one.workload_creds)

        await eventually(given, what="kept")
