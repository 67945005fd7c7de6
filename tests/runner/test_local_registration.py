"""What a node puts into the environment of a nexlet that it starts."""

from __future__ import annotations

import base64

import pytest

from nexlet_functions.runner import RegistrationFailed, local_registration

GIVEN = {
    "NEX_AGENT_NODE_ID": "NNODE",
    "NEX_AGENT_ASSIGNED_ID": "AGENT1",
    "NEX_AGENT_NATS_SERVERS": "nats://a:4222,nats://b:4222",
    "NEX_AGENT_NATS_USER_SEED": "SUSEED",
    "NEX_AGENT_NATS_B64_JWT": base64.b64encode(b"head.body.sig").decode(),
    "NEX_AGENT_NATS_USER": "user",
    "NEX_AGENT_NATS_PASSWORD": "pw",
    "NEX_AGENT_NATS_USER_NKEY": "UNKEY",
}


def test_all_of_it() -> None:
    local = local_registration(GIVEN)
    assert local is not None
    assert (local.node_id, local.agent_id) == ("NNODE", "AGENT1")
    data = local.connection_data
    assert data.nats_servers == ("nats://a:4222", "nats://b:4222")
    assert data.nats_user_seed.get_secret_value() == "SUSEED"
    assert data.nats_user_jwt.get_secret_value() == "head.body.sig"
    assert (data.nats_user_name, data.nats_user_password.get_secret_value()) == ("user", "pw")
    assert data.nats_user_nkey == "UNKEY"
    assert "SUSEED" not in repr(local)
    assert "head.body" not in repr(local)


def test_the_least_of_it() -> None:
    local = local_registration({"NEX_AGENT_NODE_ID": "N", "NEX_AGENT_ASSIGNED_ID": "A", "NEX_AGENT_NATS_B64_JWT": ""})
    assert local is not None
    assert local.connection_data.nats_servers == ()
    assert not local.connection_data.has_credentials


def test_none_of_it() -> None:
    assert local_registration({}) is None
    assert local_registration({"PATH": "/bin", "NEX_AGENT_NATS_SERVERS": "nats://a:4222"}) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"NEX_AGENT_NODE_ID": ""}, "NEX_AGENT_NODE_ID is empty"),
        ({"NEX_AGENT_ASSIGNED_ID": ""}, "NEX_AGENT_ASSIGNED_ID is empty"),
        ({"NEX_AGENT_ASSIGNED_ID": "a.>"}, "NEX_AGENT_ASSIGNED_ID has a '.'"),
        ({"NEX_AGENT_NATS_B64_JWT": "***"}, "is not base64"),
        ({"NEX_AGENT_NATS_B64_JWT": base64.b64encode(b"\xff").decode()}, "is not base64"),
    ],
)
def test_half_of_it_or_damaged(change: dict[str, str], reason: str) -> None:
    with pytest.raises(RegistrationFailed, match=reason):
        local_registration(GIVEN | change)
