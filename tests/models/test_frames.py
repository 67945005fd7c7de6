"""Every recorded frame reads as the message it is, and writes back as the same JSON."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from nexlet_models import control, events, registration, subjects, workloads
from nexlet_models.base import Message, timestamp
from tests.support.frames import Frame, frames

# Pattern of the subject: the message that goes there, and the one that comes back.
EXCHANGES: list[tuple[str, type, type | None]] = [
    (
        subjects.remote_register("*"),
        registration.RegisterRemoteAgentRequest,
        registration.RegisterRemoteAgentResponse,
    ),
    (subjects.register("*"), registration.RegisterAgentRequest, registration.RegisterAgentResponse),
    (subjects.heartbeat("*"), registration.AgentHeartbeat, None),
    (subjects.start_workload("*", "*"), workloads.AgentStartWorkloadRequest, workloads.StartWorkloadResponse),
    (subjects.stop_workload("*"), workloads.StopWorkloadRequest, workloads.StopWorkloadResponse),
    (subjects.get_workload("*"), control.CloneWorkloadRequest, workloads.StartWorkloadRequest),
    (subjects.query_workloads("*"), workloads.AgentListWorkloadsRequest, workloads.AgentListWorkloadsResponse),
    (subjects.ping_agents("*"), control.NodeInfoRequest, registration.AgentSummary),
    (subjects.set_lameduck("*"), registration.LameduckRequest, registration.LameduckResponse),
    (subjects.auction("*"), control.AuctionRequest, control.AuctionResponse),
    (subjects.deploy("*"), workloads.StartWorkloadRequest, workloads.StartWorkloadResponse),
    (subjects.undeploy("*"), workloads.StopWorkloadRequest, workloads.StopWorkloadResponse),
    (subjects.clone("*"), control.CloneWorkloadRequest, workloads.StartWorkloadRequest),
    (subjects.list_workloads("*"), workloads.AgentListWorkloadsRequest, workloads.AgentListWorkloadsResponse),
    (subjects.node_ping(), control.NodePingRequest, control.NodePingResponse),
    (subjects.node_ping_one("*"), control.NodePingRequest, control.NodePingResponse),
    (subjects.node_info("*"), control.NodeInfoRequest, control.NodeInfoResponse),
    (subjects.node_lameduck("*"), registration.LameduckRequest, registration.LameduckResponse),
    (subjects.placement_tags(), control.NodeInfoRequest, control.PlacementTags),
    (subjects.node_heartbeat("*"), control.NodeHeartbeat, None),
    *((f"$NEX.FEED.*.events.{name}", kind, None) for name, kind in events.EVENTS.items()),
]
# Bodies that are no message of Nex's: bare bytes, a micro service's own answers, and two malformed on purpose.
NOT_MESSAGES = ("$SRV.", "$NEX.SVC.system.control.AGENTID.")
MALFORMED = {("node_ping_one", 0), ("agent_get_unknown", 0)}


def exchange(subject: str) -> tuple[type, type | None]:
    found = [(asked, answered) for pattern, asked, answered in EXCHANGES if subjects.matches(pattern, subject)]
    assert len(found) == 1, f"{subject} is the business of {len(found)} functions in subjects.py"
    return found[0]


def message_of(frame: Frame) -> type | None:
    """Which message a frame should be; None where it is none."""
    subject = frame.asked or frame.subject
    if subject.startswith(NOT_MESSAGES) or not subject.startswith("$NEX."):
        return None
    if (frame.scenario, frame.index) in MALFORMED:
        return None
    asked, answered = exchange(subject)
    if not frame.asked:
        return asked
    if frame.failed and "error" in frame.body and "id" not in frame.body:
        return control.ErrorBody
    return answered


@pytest.mark.parametrize("frame", frames(), ids=str)
def test_round_trip(frame: Frame) -> None:
    kind = message_of(frame)
    if kind is None:
        subject = frame.asked or frame.subject
        assert (
            not subject.startswith("$NEX.")
            or subject.startswith(NOT_MESSAGES)
            or (frame.scenario, frame.index) in MALFORMED
        )
        return
    wire = json.dumps(frame.body).encode()
    read = kind.from_json(wire)  # type: ignore[attr-defined]  # every entry of the table has it
    assert json.loads(read.to_json()) == frame.body


def test_every_message_was_recorded_or_is_written_by_hand() -> None:
    """None goes untested because no frame shows it."""
    defined = {
        kind
        for module in (control, registration, workloads, events)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseModel)
        and kind.__module__ == module.__name__
        and not kind.__pydantic_generic_metadata__["args"]
    }
    within_others = {control.NodeAgentSummary, workloads.WorkloadSummary, events.WorkloadFailure, events.Event}
    recorded = {message_of(frame) for frame in frames()}
    assert defined - within_others == (recorded | {type(message) for message in BY_HAND}) - {None}


BY_HAND: list[Message] = [
    workloads.EncEnv(encrypted_by="XABC", base64_encrypted_env="eGt2MQ=="),
    workloads.PingWorkloadResponse(node_id="NABC"),
    workloads.AgentIngressMsg(workload_id="w", upstream="10.0.0.1:80", command=workloads.IngressCommand.ADD),
    events.NodeStoppedEvent(id="NABC"),
    events.AgentStartedEvent(id="a", name="python", register_type="python"),
    events.AgentStoppedEvent(id="a", name="python", reason="stopped", timestamp=timestamp()),
    events.AgentLameduckSetEvent(success=True),
    events.WorkloadStoppedEvent(
        id="w", namespace="acme", workload_type="python", error=events.WorkloadFailure(code="502", message="died")
    ),
    events.WorkloadTriggeredEvent(id="w", namespace="acme", duration=1.5, outcome="ok", attempt=1),
]


@pytest.mark.parametrize("message", BY_HAND, ids=lambda message: type(message).__name__)
def test_round_trip_of_what_was_not_recorded(message: Message) -> None:
    assert type(message).from_json(message.to_json()) == message
    assert None not in json.loads(message.to_json()).values()
