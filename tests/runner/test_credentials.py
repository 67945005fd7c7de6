"""What credentials say of themselves that they do not permit, before a server has to."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from nexlet_functions.natsio import Credentials
from nexlet_functions.runner.credentials import lacks_of_namespace, lacks_of_nexlet
from tests.support.jwt import Operator, creds_text

NEXLET = ["$NEX.SVC.nexus.agent.RREGISTER"]
HEARS = ["_INBOX.>", "$NEX.SVC.system.control.HEARTBEAT.*"]
FEEDS = ["$NEX.FEED.acme.>"]


def user(publish: list[str] | None, subscribe: list[str] | None) -> Credentials:
    return Credentials.from_connection_data(Operator().creds("nats://x:1", "u", publish=publish, subscribe=subscribe))


@pytest.mark.parametrize(
    ("publish", "subscribe", "lacks"),
    [
        (None, None, []),
        (NEXLET, HEARS, []),
        (NEXLET, HEARS[:1], ["that a node has forgotten us is seen by asking it"]),
        (["a.>"], HEARS, ["$NEX.SVC.nexus.agent.RREGISTER: no node can be asked for an id"]),
        (NEXLET, HEARS[1:], ["_INBOX.>: no answer of a node arrives"]),
    ],
)
def test_what_the_nexlets_own_lack(publish: list[str] | None, subscribe: list[str] | None, lacks: list[str]) -> None:
    said = lacks_of_nexlet(user(publish, subscribe), "nexus")
    assert len(said) == len(lacks)
    assert all(expected in line for expected, line in zip(lacks, said, strict=True))


@pytest.mark.parametrize(
    ("publish", "lacks"),
    [
        (None, []),
        (FEEDS, []),
        (["$NEX.FEED.acme.logs.>", "$NEX.FEED.acme.events.*"], ["$NEX.FEED.acme.metrics.*: the metrics"]),
        (["a.>"], ["the logs", "the metrics", "the events"]),
    ],
)
def test_what_a_namespaces_lack(publish: list[str] | None, lacks: list[str]) -> None:
    said = lacks_of_namespace(lambda _: user(publish, None), "acme")
    assert len(said) == len(lacks)
    assert all(expected in line for expected, line in zip(lacks, said, strict=True))


def test_what_says_nothing_of_itself_is_not_spoken_of(tmp_path: Path) -> None:
    plain = Credentials(user="u", password=SecretStr("p"))
    assert lacks_of_nexlet(plain, "nexus") == []
    assert lacks_of_namespace(lambda _: plain, "acme") == []
    assert lacks_of_namespace(lambda _: None, "acme") == []
    (said,) = lacks_of_namespace(lambda _: Credentials(creds_file=tmp_path / "none.creds"), "acme")
    assert "none.creds" in said


def test_what_to_do_where_a_server_turns_them_down(tmp_path: Path) -> None:
    file, operator = tmp_path / "acme.creds", Operator()
    file.write_text(creds_text(*operator.user("u", expires=1_800_000_000)))
    read = Credentials(creds_file=file)
    renew = f"renew the creds file {file}: it is read anew at each attempt"
    assert read.advice(1_800_000_000) == f"the JWT expired at 2027-01-15T08:00:00Z; {renew}"
    assert read.advice(1_799_999_999) == renew
    minted = Credentials.from_connection_data(operator.creds("nats://x:1", "u", expires=1_800_000_000))
    assert minted.advice(1_800_000_001).endswith("whoever gave it has to give another one")
    assert minted.advice(0) == ""
    assert Credentials(creds_file=tmp_path / "none.creds").advice(0) == "", "the reason says it"
    assert Credentials(user="u", password=SecretStr("p")).advice(0) == ""
    assert "nkey file" in Credentials(nkey_file=_nkey(tmp_path, operator)).advice(0)


def _nkey(folder: Path, operator: Operator) -> Path:
    file = folder / "u.nk"
    file.write_text(operator.user("u")[1])
    return file
