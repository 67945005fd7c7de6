"""What became of an invocation, for a person at a terminal and for a program: the same for `invoke` here and over NATS.

`Answer` is all that is known of one; `show` tells it. What nobody told (of a function on another machine, by a server
that does not let us listen) is None, and is left out.
"""

from __future__ import annotations

import base64
import json as json_
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.watching import LogRecord, readable

if TYPE_CHECKING:
    from nexlet_functions.natsio import Reply

__all__ = ["Answer", "answer_fields", "body_fields", "show"]

_MIB = 1024 * 1024
_NOT_SHOWN = frozenset(
    {"workload_id", "namespace", "error", "nats-service-error", "nats-service-error-code", "nex-invocation-id"}
)
"""Headers that are told in other words, or by whom it was answered."""


@dataclass(slots=True)
class Answer:
    """One invocation that has ended.

    Attributes:
        subject: of the message; "" where there was none.
        fields: the answer itself, see `answer_fields`.
        outcome: a word of `Outcome`; "" where nobody told.
        invocation_id: "" likewise.
        logs: what it printed and logged, in order; None where it was not to be heard.
        traceback: of an exception; "" where there is none.
        metrics: what it gave to `context.metrics`; None likewise.
        duration_ms, queue_ms, cpu_ms, peak_memory_bytes: what it took, as its nexlet measured.
        round_trip_ms: from sending the message until its answer was here; None where it did not travel.
        profile: of the sandbox; "" where nobody told.
        by: who answered, for a person.
        differences: from what a sample event expects; None where nothing is expected.
        notes: what a person should know of how it was asked or heard.
    """

    subject: str
    fields: Mapping[str, Any]
    outcome: str = ""
    invocation_id: str = ""
    logs: Sequence[LogRecord] | None = None
    traceback: str = ""
    metrics: Sequence[Mapping[str, Any]] | None = None
    duration_ms: float | None = None
    queue_ms: float | None = None
    cpu_ms: float | None = None
    peak_memory_bytes: int | None = None
    round_trip_ms: float | None = None
    profile: str = ""
    by: str = ""
    differences: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether it is what a sample event expects, or else simply no error."""
        return not self.differences if self.differences is not None else bool(self.fields["ok"])


def answer_fields(answer: Reply) -> dict[str, Any]:
    """An answer as fields: `ok`, `code`, `error`, the headers, and the body as `json`, `text` or `base64`."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    error = headers.get("error") or headers.get("nats-service-error")
    code = headers.get("nats-service-error-code", "500" if error else "200")
    fields: dict[str, Any] = {
        "ok": error is None,
        "code": int(code) if code.isascii() and code.isdigit() else 500,
        "error": error,
        "headers": dict(answer.headers),
    }
    return fields | body_fields(answer.payload)


def body_fields(data: bytes) -> dict[str, Any]:
    """A body as `json`, `text` or `base64`, whichever it is first."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    try:
        return {"json": json_.loads(text)}
    except (ValueError, RecursionError):
        return {"text": text}


def show(answer: Answer, output: Output) -> None:
    """Tell it: one record, or the body first and what it took last."""
    output.record(
        "answer",
        () if output.json else _text(answer),
        subject=answer.subject or None,
        **answer.fields,
        outcome=answer.outcome or None,
        invocation_id=answer.invocation_id or None,
        traceback=answer.traceback or None,
        logs=None if answer.logs is None else [{"stream": line.stream, "text": line.text} for line in answer.logs],
        metrics=None if answer.metrics is None else list(answer.metrics),
        duration_ms=_rounded(answer.duration_ms),
        queue_ms=_rounded(answer.queue_ms),
        cpu_ms=_rounded(answer.cpu_ms),
        peak_memory_bytes=answer.peak_memory_bytes,
        round_trip_ms=_rounded(answer.round_trip_ms),
        profile=answer.profile or None,
        differences=None if answer.differences is None else list(answer.differences),
        notes=answer.notes or None,
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def _text(answer: Answer) -> list[Any]:
    lines = _body_lines(answer.fields)
    for line in answer.logs or ():
        word, style, (first, *rest) = readable(line)
        lines += [styled((f"{word:<9}", style), first), *(f"{'':9}{each}" for each in rest)]
    lines += [styled((each, "dim")) for each in answer.traceback.splitlines()]
    lines += [styled(("differs  ", "bold red"), each) for each in answer.differences or ()]
    lines += [styled((note, "yellow")) for note in answer.notes]
    code = answer.fields["code"]
    by = f" by {answer.by}" if answer.by else ""
    if answer.duration_ms is None:
        return [*lines, styled((f"{code} in {answer.round_trip_ms or 0:.1f} ms{by}", "dim"))]
    used = [f"{answer.outcome} {code} in {answer.duration_ms:.1f} ms"]
    if answer.cpu_ms is not None:
        used.append(f"cpu {answer.cpu_ms:.1f} ms")
    if answer.peak_memory_bytes is not None:
        used.append(f"peak memory {answer.peak_memory_bytes / _MIB:.1f} MiB")
    if answer.profile:
        used.append(f"profile {answer.profile}")
    lines.append(styled((", ".join(used), "dim")))
    if answer.round_trip_ms is not None:
        how = f"{answer.round_trip_ms:.1f} ms there and back{by}, invocation {answer.invocation_id}"
        lines.append(styled((how, "dim")))
    return lines


def _body_lines(fields: Mapping[str, Any]) -> list[Any]:
    """An answer's error, body and headers for a person."""
    if "json" in fields:
        body = json_.dumps(fields["json"], ensure_ascii=False, indent=2)
    else:
        body = fields.get("text", fields.get("base64", ""))
    lines: list[Any] = []
    if not fields["ok"]:
        lines.append(styled((f"error {fields['code']}:", "bold red"), " ", fields["error"]))
    if body and body != fields["error"]:
        lines += body.splitlines()
    return lines + [
        styled((f"{name}: {value}", "cyan"))
        for name, value in fields["headers"].items()
        if name.lower() not in _NOT_SHOWN
    ]
