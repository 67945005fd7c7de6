"""A span for each invocation, by OpenTelemetry. Needs the extra `otel`, and is not there at all without `--tracing`.

A span is made when its invocation has ended, with the times it had: nothing is decided, looked up or kept for a message
while it waits or runs. It continues the trace of whoever sent the message (`traceparent` and `tracestate`, as W3C Trace
Context has them), which the function reads in its headers as well. Names and attributes are those of OpenTelemetry's
semantic conventions for messaging and for functions as a service; what is Nex's own begins with `nex.`. Neither
payloads nor what a function says of its own errors are in it.

Where spans go is said by the standard variables (`OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`, ...).
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.natsio.protocol import decode_headers
from nexlet_functions.observing.extras import ExtraMissing
from nexlet_functions.streams.deliveries import Delivery
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.outcomes import Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.trace import Tracer

    from nexlet_functions.streams.consumers import Wanted

__all__ = ["TracingDispatcher", "provider_from", "shut_down", "tracer_of"]

SHUT_DOWN: Final = 5.0
"""Seconds at the end for spans that were not sent yet, to a collector that may be gone."""

_NOT_RUN: Final = frozenset({Outcome.REJECTED, Outcome.EXPIRED, Outcome.UNAVAILABLE})
_NO_FAULT: Final = frozenset({Outcome.OK, Outcome.REJECTED_BY_FUNCTION})
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()


class TracingDispatcher(Dispatcher):
    """A dispatcher that makes a span of each invocation that has ended."""

    def __init__(
        self,
        *,
        tracer: Tracer,
        name: str,
        consumers: Sequence[Wanted] = (),
        timed: Mapping[int, str] | None = None,
        **arguments: Any,
    ) -> None:
        """See `Dispatcher`.

        Args:
            tracer: makes the spans.
            name: of the function.
            consumers: those of its stream triggers.
            timed: when it is due, by the number of the trigger.
        """
        super().__init__(name=name, **arguments)
        self._tracer = tracer
        common = {
            "faas.name": name,
            "faas.trigger": "pubsub",
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "nex.namespace": self.namespace,
            "nex.workload.id": self.workload_id,
        }
        self._of_pattern = {
            trigger.number: common
            | {"messaging.destination.template": trigger.subject}
            | ({"messaging.consumer.group.name": trigger.queue_group} if trigger.queue_group else {})
            for trigger in self._triggers
        } | {
            wanted.number: common
            | {"messaging.destination.template": wanted.pattern, "messaging.consumer.group.name": wanted.name}
            for wanted in consumers
        }
        self._of_pattern |= {
            number: {key: value for key, value in common.items() if not key.startswith("messaging.")}
            | {"faas.trigger": "timer", "faas.cron": text}
            for number, text in (timed or {}).items()
        }
        self._names = {trigger.number: f"process {trigger.subject}" for trigger in self._triggers} | {
            wanted.number: f"process {wanted.stream}" for wanted in consumers
        }
        self._names |= {number: f"run {text}" for number, text in (timed or {}).items()}

    def finished(self, call: Call, result: Result) -> None:
        """See `Dispatcher.finished`."""
        super().finished(call, result)
        if isinstance(call.tag, Delivery) and call.tag.waits:
            return  # it was not run, and is put in line once more
        assert self._pool is not None
        received = time.time_ns() - (time.monotonic_ns() - call.received_ns)
        began = received + result.queue_ns
        outcome = result.outcome
        span = self._tracer.start_span(
            self._names[call.pattern],
            context=_sent_with(call.headers) if call.headers else None,
            kind=SpanKind.CONSUMER,
            attributes=self._of_pattern[call.pattern]
            | {
                "faas.invocation_id": self._pool.invocation_id(call),
                "messaging.destination.name": call.subject.decode("utf-8", "replace"),
                "messaging.message.body.size": len(call.payload),
                "nex.outcome": outcome.value,
            },
            start_time=received,
        )
        if span.is_recording():
            if outcome not in _NOT_RUN:
                span.add_event("begins", {"nex.queue_ms": result.queue_ns / 1e6}, timestamp=began)
            if outcome not in _NO_FAULT:
                span.set_attribute("error.type", outcome.value)
                # What the function itself says may quote what only its author should see.
                span.set_status(Status(StatusCode.ERROR, "" if outcome is Outcome.ERROR else result.error))
        span.end(began + result.run_ns)


def _sent_with(headers: bytes) -> Any:
    # Libraries that take NATS's headers for HTTP's write `Traceparent`.
    carrier = {name.lower(): value for name, value in decode_headers(headers).items()}
    return _TRACE_CONTEXT.extract(carrier)


def tracer_of(provider: TracerProvider) -> Tracer:
    """Ours, of a provider."""
    return provider.get_tracer("nexlet_functions", importlib.metadata.version("nexlet-functions"))


def provider_from(environment: Mapping[str, str]) -> SdkTracerProvider:
    """What the standard variables ask for; the exporters and the sampler read theirs by themselves.

    Args:
        environment: of the process.

    Raises:
        ExtraMissing: the SDK, or an exporter that is named, is not installed.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ExtraMissing("tracing", "opentelemetry-sdk", "otel") from None
    ours = {"service.version": importlib.metadata.version("nexlet-functions")}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        ours["service.name"] = "nexlet-functions"
    # Not at the exit of the process: it would wait there for a collector that is gone.
    provider = SdkTracerProvider(resource=Resource.create(dict(ours)), shutdown_on_exit=False)
    for name in (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if name.strip() != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip(), environment)))
    return provider


def _exporter(name: str, environment: Mapping[str, str]) -> Any:
    if name == "otlp":
        protocol = (
            environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        name = _PROTOCOLS.get(protocol, protocol)
    found = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=name)
    for entry_point in found:
        return entry_point.load()()
    raise ExtraMissing("tracing", f"an OpenTelemetry exporter called '{name}'", "otel")


def shut_down(provider: SdkTracerProvider) -> None:
    """Send what was not sent yet, within `SHUT_DOWN` seconds."""
    thread = threading.Thread(target=provider.shutdown, name="otel shutdown", daemon=True)
    thread.start()
    thread.join(SHUT_DOWN)
