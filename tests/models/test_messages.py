from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from nexlet_models import control, events, registration, workloads
from nexlet_models.base import Message, parse_timestamp, timestamp
from nexlet_models.connection import NatsConnectionData, redact_url
from nexlet_models.errors import MalformedMessage

SEED = "SUAPRIVATEPRIVATEPRIVATE"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tags = st.none() | st.dictionaries(texts, texts, max_size=3)
creds = st.builds(
    NatsConnectionData,
    conn_name=texts,
    nats_servers=st.lists(texts, max_size=3).map(tuple),
    tls_first=st.booleans(),
    nats_user_seed=texts.map(SecretStr),
    nats_user_password=texts.map(SecretStr),
)
starts = st.builds(
    workloads.StartWorkloadRequest,
    name=texts,
    namespace=texts,
    description=texts,
    workload_type=texts,
    workload_lifecycle=st.sampled_from(workloads.WorkloadLifecycle),
    run_request=texts,
    tags=tags,
    reference=st.none() | texts,
    metadata=st.none() | st.dictionaries(texts, st.integers(-5, 5) | texts | st.booleans(), max_size=3),
)
messages = st.one_of(
    creds,
    starts,
    st.builds(workloads.AgentStartWorkloadRequest, request=starts, workload_creds=creds),
    st.builds(
        registration.RegisterAgentResponse,
        success=st.booleans(),
        message=texts,
        node_id=texts,
        connection_data=creds,
        existing_state=st.none()
        | st.dictionaries(
            texts, st.builds(workloads.AgentStartWorkloadRequest, request=starts, workload_creds=creds), max_size=2
        ),
    ),
    st.builds(workloads.AgentListWorkloadsRequest, namespace=texts, filter=st.none() | st.lists(texts).map(tuple)),
    st.builds(
        events.WorkloadTriggeredEvent,
        id=texts,
        namespace=texts,
        duration=st.floats(0, 1e9),
        error=st.none() | texts,
        attempt=st.none() | st.integers(0, 9),
    ),
)


@given(messages)
def test_what_is_written_reads_the_same(message: Message) -> None:
    assert type(message).from_json(message.to_json()) == message


@given(messages, st.dictionaries(texts.map(lambda name: f"x-{name}"), st.integers()))
def test_unknown_fields_are_ignored(message: Message, more: dict[str, int]) -> None:
    wire = json.loads(message.to_json())
    assert type(message).from_json(json.dumps(wire | more)) == message


@given(starts, st.data())
def test_a_missing_field_is_named(message: workloads.StartWorkloadRequest, data: st.DataObject) -> None:
    wire = json.loads(message.to_json())
    name = data.draw(st.sampled_from(sorted(set(wire) - {"reference", "metadata"})))
    del wire[name]
    with pytest.raises(MalformedMessage, match=f"StartWorkloadRequest: field {name}: Field required"):
        workloads.StartWorkloadRequest.from_json(json.dumps(wire))


@given(st.binary(max_size=60) | texts.map(str.encode))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for kind in (NatsConnectionData, workloads.StopWorkloadRequest, registration.RegisterAgentRequest):
        try:
            read = kind.from_json(data)
        except MalformedMessage:
            continue
        assert kind.from_json(read.to_json()) == read


def test_types_are_as_strict_as_gos() -> None:
    with pytest.raises(MalformedMessage, match=r"field filter\.0: Input should be a valid string"):
        workloads.AgentListWorkloadsRequest.from_json(b'{"namespace": "a", "filter": [1]}')
    with pytest.raises(MalformedMessage, match="field namespace: Input should be a valid string"):
        workloads.StopWorkloadRequest.from_json(b'{"namespace": 1}')
    with pytest.raises(MalformedMessage, match="field success: Input should be a valid boolean"):
        registration.LameduckResponse.from_json(b'{"success": "true", "message": ""}')


def test_null_reads_as_gos_empty_value_where_there_is_one() -> None:
    read = NatsConnectionData.from_json(b'{"nats_servers": null, "conn_name": null, "nats_user_seed": null}')
    assert read == NatsConnectionData()
    assert len(workloads.AgentListWorkloadsResponse.from_json(b"null")) == 0
    assert control.PlacementTags.from_json(b"null").root == {}


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        workloads.StopWorkloadRequest(namespace="a").namespace = "b"


def test_optional_fields_are_left_out_and_required_ones_are_not() -> None:
    answer = json.loads(workloads.StartWorkloadResponse(id="w", name="n").to_json())
    assert answer == {"id": "w", "name": "n"}
    asked = json.loads(workloads.AgentListWorkloadsRequest(namespace="a", filter=None).to_json())
    assert asked == {"namespace": "a", "filter": None}


def test_secrets_go_over_the_wire_and_nowhere_else() -> None:
    data = NatsConnectionData(
        nats_servers=("nats://me:hidden@host:4222", "token-hidden@host"),
        nats_user_seed=SecretStr(SEED),
        nats_user_password=SecretStr("hidden"),
        nats_user_jwt=SecretStr("hidden"),
    )
    answer = registration.RegisterAgentResponse(
        success=True,
        message="",
        node_id="N",
        connection_data=data,
        existing_state={
            "w": workloads.AgentStartWorkloadRequest(
                request=workloads.StartWorkloadRequest(
                    name="n",
                    namespace="a",
                    description="",
                    workload_type="python",
                    workload_lifecycle=workloads.WorkloadLifecycle.FUNCTION,
                    run_request='{"environment": {"KEY": "hidden"}}',
                    tags=None,
                ),
                workload_creds=data,
            )
        },
    )
    for shown in (repr(answer), str(answer), repr(data), f"{data}", data.model_dump_json(), repr(data.model_dump())):
        assert SEED not in shown
    for shown in (repr(answer), str(answer), repr(data), f"{data}"):
        assert "hidden" not in shown
    wire = json.loads(answer.to_json())
    assert wire["connection_data"]["nats_user_seed"] == SEED
    assert wire["existing_state"]["w"]["workload_creds"]["nats_user_password"] == "hidden"
    assert "host" in repr(data)


def test_an_error_does_not_repeat_what_came_in() -> None:
    with pytest.raises(MalformedMessage) as refused:
        NatsConnectionData.from_json(f'{{"nats_user_seed": ["{SEED}"], "nats_servers": "{SEED}"}}')
    assert SEED not in repr(refused.value) + str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"), ("nats://u:p@h:4222", "nats://***@h:4222"),
        ("tls://token@h", "tls://***@h"), ("u:p@h", "***@h"), ("h:4222", "h:4222"), ("nats://u:p@x@h:1", "nats://***@h:1"),
        ("nats://[u:p@h", "***"),
    ],
)  # fmt: skip
def test_urls_are_shown_without_credentials(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("fields", "has"),
    [
        ({}, False), ({"nats_user_seed": "S"}, False), ({"nats_user_nkey": "U"}, False),
        ({"nats_user_name": "u"}, False),
        ({"nats_user_seed": "S", "nats_user_nkey": "U"}, True), ({"nats_user_seed": "S", "nats_user_jwt": "J"}, True),
        ({"nats_user_name": "u", "nats_user_password": "p"}, True),
    ],
)  # fmt: skip
def test_credentials_are_whole_or_none(fields: dict[str, str], has: bool) -> None:
    assert NatsConnectionData.from_json(json.dumps(fields)).has_credentials is has


def test_times_keep_their_nanoseconds() -> None:
    text = "2026-11-23T15:44:04.821949358Z"
    read = registration.AgentSummary.from_json(
        f'{{"name":"a","type":"t","start_time":"{text}","state":"running","supported_lifecycles":"","workload_count":0,"version":"1"}}'
    )
    assert read.start_time == text
    assert parse_timestamp(text) == datetime(2026, 11, 23, 15, 44, 4, 821949, UTC)
    assert parse_timestamp("2026-11-23T17:44:04+02:00") == datetime(2026, 11, 23, 15, 44, 4, 0, UTC)
    assert parse_timestamp("0001-01-01T00:00:00Z").year == 1


@pytest.mark.parametrize(
    "text", ["", "today", "2026-11-23", "2026-13-01T00:00:00Z", "2026-11-23T15:44:04", "٢٠٢٦-11-23T15:44:04Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # the texts differ by kind
        parse_timestamp(text)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_times_survive(moment: datetime) -> None:
    try:
        text = timestamp(moment)
    except OverflowError:  # the first and last hours of the calendar, in a zone of their own
        return
    assert parse_timestamp(text) == moment
    assert text.endswith("Z")


def test_a_time_without_a_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="zone"):
        timestamp(datetime(2026, 1, 1))  # noqa: DTZ001  # which is the point


def test_a_heartbeat_lists_its_agents() -> None:
    beat = control.NodeHeartbeat(registrations="2qj [inmem], 3ab [python], 4cd [a [b]]")
    assert beat.agents() == {"2qj": "inmem", "3ab": "python", "4cd": "a [b]"}
    assert control.NodeHeartbeat(registrations="").agents() == {}


def test_each_health_has_its_light() -> None:
    assert len({health.stoplight for health in control.AgentHealth}) == len(control.AgentHealth)
