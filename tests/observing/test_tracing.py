"""A span for each invocation: whose trace it continues, its times, attributes and status; nothing where it is off."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from nats.aio.client import Client
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from nexlet_functions.devnode.buckets import make_buckets
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.observing.extras import ExtraMissing
from nexlet_functions.observing.tracing import TracingDispatcher, provider_from, tracer_of
from nexlet_functions.schedules.scheduler import Scheduler
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.wallclock import WallClock

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SOURCE = """
from nexlet_functions.authoring import Reject

def handler(event, context):
    match event.text:
        case "no":
            raise Reject(422, "no")
        case "bad":
            raise ValueError("s-e-c-r-e-t")
        case "hang":
            while True:
                pass
    return event.headers.get("traceparent")
"""


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Keeps the spans of this test."""
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


def traced(exporter: InMemorySpanExporter, **arguments: object) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **arguments)  # type: ignore[arg-type]
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


async def spans(bench: AgentBench, exporter: InMemorySpanExporter, count: int) -> list[ReadableSpan]:
    await eventually(lambda: len(exporter.get_finished_spans()) >= count, what=f"{count} spans")
    return list(exporter.get_finished_spans())


async def ask(client: Client, text: str, **headers: str) -> bytes:
    return (await client.request("made.one", text.encode(), timeout=10, headers=headers or None)).data


async def test_a_run_by_schedule_says_so(nats_server: EmbeddedServer, exporter: InMemorySpanExporter) -> None:
    await make_buckets(nats_server.url, "nexlet-schedules")
    clock = WallClock()
    async with agent_bench(nats_server, tracer=tracer_of(traced(exporter)), scheduler=Scheduler(clock)) as bench:
        await bench.start(source=SOURCE, triggers=["made.*", {"schedule": "@hourly", "name": "tick"}])
        await clock.pass_(3600)
        (span,) = await spans(bench, exporter, 1)
        said = dict(span.attributes or {})
        assert span.name == "run 0 * * * * UTC"
        assert (said["faas.trigger"], said["faas.cron"]) == ("timer", "0 * * * * UTC")
        assert said["messaging.destination.name"] == "$SCHEDULE.tick"
        assert "messaging.system" not in said


async def test_it_continues_the_callers_trace_and_says_what_it_was(
    nats_server: EmbeddedServer, exporter: InMemorySpanExporter
) -> None:
    async with agent_bench(nats_server, tracer=tracer_of(traced(exporter))) as bench:
        await bench.start(source=SOURCE, triggers=["made.*"])
        answer = await ask(bench.client, "s-e-c-r-e-t", traceparent=PARENT, tracestate="vendor=x")
        assert answer.decode() == PARENT, "the function reads it, too"
        (span,) = await spans(bench, exporter, 1)
        assert span.context is not None
        assert span.parent is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
        assert span.context.trace_state.get("vendor") == "x"
        assert (span.name, span.kind, span.status.status_code) == (
            "process made.*",
            SpanKind.CONSUMER,
            StatusCode.UNSET,
        )
        event = await bench.event("WORKLOADTRIGGERED")
        assert dict(span.attributes or {}) == {
            "faas.name": "greet",
            "faas.trigger": "pubsub",
            "faas.invocation_id": event["invocation_id"],
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": "made.one",
            "messaging.destination.template": "made.*",
            "messaging.consumer.group.name": "acme.greet",
            "messaging.message.body.size": 11,
            "nex.namespace": "acme",
            "nex.workload.id": "W1",
            "nex.outcome": "ok",
        }
        (begins,) = span.events
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= begins.timestamp <= span.end_time
        assert abs((span.end_time - begins.timestamp) / 1e6 - event["duration"]) < 0.001
        assert abs((begins.timestamp - span.start_time) / 1e6 - event["queue_ms"]) < 0.001
        assert "s-e-c" not in span.to_json()


async def test_without_a_callers_trace_or_with_one_that_is_none_it_begins_its_own(
    nats_server: EmbeddedServer, exporter: InMemorySpanExporter
) -> None:
    async with agent_bench(nats_server, tracer=tracer_of(traced(exporter))) as bench:
        await bench.start(source=SOURCE, triggers=["made.*"])
        await ask(bench.client, "x")
        await ask(bench.client, "x", traceparent="00-" + "0" * 32 + "-zz-01")
        await ask(bench.client, "x", Traceparent=PARENT)
        first, second, third = await spans(bench, exporter, 3)
        assert (first.parent, second.parent) == (None, None)
        assert third.parent is not None, "as Go's libraries write it"


async def test_what_went_wrong_is_its_status(nats_server: EmbeddedServer, exporter: InMemorySpanExporter) -> None:
    async with agent_bench(nats_server, tracer=tracer_of(traced(exporter))) as bench:
        await bench.start(source=SOURCE, triggers=["made.*"], limits={"timeout": "100ms"})
        for text in ("no", "bad", "hang"):
            await ask(bench.client, text)
        rejected, bad, hung = await spans(bench, exporter, 3)
        assert rejected.status.status_code is StatusCode.UNSET
        assert (rejected.attributes or {})["nex.outcome"] == "rejected_by_function"
        assert (bad.status.status_code, bad.status.description) == (StatusCode.ERROR, "")
        assert (hung.status.status_code, hung.status.description) == (
            StatusCode.ERROR,
            "took longer than its limit of 0.1 s",
        )
        assert [(one.attributes or {}).get("error.type") for one in (rejected, bad, hung)] == [None, "error", "timeout"]
        assert "s-e-c" not in bad.to_json()


async def test_what_its_sampler_leaves_out_is_served_all_the_same(
    nats_server: EmbeddedServer, exporter: InMemorySpanExporter
) -> None:
    provider = traced(exporter, sampler=ParentBased(ALWAYS_OFF))
    async with agent_bench(nats_server, tracer=tracer_of(provider)) as bench:
        await bench.start(source=SOURCE, triggers=["made.*"])
        await ask(bench.client, "x")
        await ask(bench.client, "x", traceparent=PARENT)
        (span,) = await spans(bench, exporter, 1)
        assert span.parent is not None


async def test_where_nobody_traces_nothing_of_it_is_there(nats_server: EmbeddedServer) -> None:
    assert Dispatcher.finished is not TracingDispatcher.finished
    async with agent_bench(nats_server) as bench:
        await bench.start(source=SOURCE, triggers=["made.*"])
        (function,) = bench.agent.functions
        assert type(function._dispatcher) is Dispatcher
        assert json.loads((await bench.ask("made.x", b"x")).data or b"null") is None


def test_an_exporter_that_is_not_installed_is_named() -> None:
    with pytest.raises(ExtraMissing, match=r"called 'nowhere', which is not installed here: .*\[otel\]"):
        provider_from({"OTEL_TRACES_EXPORTER": "nowhere"})
    with pytest.raises(ExtraMissing, match="otlp_proto_grpc"):
        provider_from({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_the_service_has_the_name_that_it_is_given() -> None:
    provider = provider_from({"OTEL_TRACES_EXPORTER": "none"})
    assert provider.resource.attributes["service.name"] == "nexlet-functions"
