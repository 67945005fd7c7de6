"""`invoke` over NATS: to a subject, or to a function by its name or id, and what is heard of that very invocation.

What is given is taken as a subject first: where somebody listens there, that is who is meant. Only where nobody does,
nodes are asked for a function of that name or id, and one of its triggers is the subject.

- `Target`, `find`: which subject a person means.
- `send`: the message out, the answer in, and all that is told about it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nexlet_functions.cli.answers import Answer, answer_fields
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.hearing import Hearing
from nexlet_functions.cli.nodes import Session, workload_fields

if TYPE_CHECKING:
    from nexlet_functions.natsio import Connection, Reply
    from nexlet_functions.testing.events import SampleEvent

__all__ = ["Target", "fill", "find", "publish", "send", "too_large"]

LATER: Final = 0.25
"""Seconds that an answer is waited for beyond the deadline that the function is told: what it then answers, `504`, has
the id under which its log is found."""

CONNECT_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes.

    Attributes:
        subject: to publish on.
        functions: that listen there, where they were looked up; their names by id.
        answers: whether they answer there.
    """

    subject: str
    functions: Mapping[str, str] = field(default_factory=dict)
    answers: bool = True


# --- which subject ---------------------------------------------------------------------------------------------------


async def find(to: Session, named: str, subject: str, words: Sequence[str]) -> Target:
    """The trigger of the function of that name or id that a message goes to.

    Args:
        subject: that it is to be, one of several or one that a pattern stands for; "" for any.
        words: what stands for the wildcards of a pattern, in order.

    Raises:
        UnknownWorkload, AmbiguousWorkload: there is none, there are several.
        CommandFailed: it does not listen to that, or it has to be said what stands for a wildcard.
    """
    from nexlet_functions.shipping import AmbiguousWorkload, choose

    found = choose(named, await to.workloads(), to.namespace)
    if len({one.namespace for one in found}) > 1:
        raise AmbiguousWorkload(named, found, "name one by its id, or the namespace with --namespace")
    told = [workload_fields(one) for one in found]
    patterns = list(dict.fromkeys(pattern for fields in told for pattern in fields["triggers"] or ()))
    if not patterns:
        raise CommandFailed(
            Exit.USAGE,
            "triggers-unknown",
            f"the nexlet of {named} does not tell what it listens to",
            "name the subject in its place: nexfn invoke SUBJECT [DATA]",
        )
    silent = {pattern for fields in told for pattern in fields["unanswered"] or ()}
    pattern, chosen = pick(named, patterns, subject, words)
    return Target(chosen, {one.id: one.name for one in found}, answers=pattern not in silent)


def pick(named: str, patterns: Sequence[str], subject: str, words: Sequence[str]) -> tuple[str, str]:
    """One of a function's triggers, and the subject that it stands for.

    Raises:
        CommandFailed: see `find`.
    """
    from nexlet_models.subjects import matches

    listens = f"{named} listens to {', '.join(patterns)}"
    if subject:
        for pattern in patterns:
            if matches(pattern, subject):
                return pattern, subject
        raise CommandFailed(Exit.USAGE, "no-trigger", f"{listens}, not to {subject}")
    if words:
        for pattern in patterns:
            if (filled := fill(pattern, words)) is not None:
                return pattern, filled
        raise CommandFailed(
            Exit.USAGE,
            "tokens-do-not-fit",
            f"{listens}: {' '.join(words)} cannot stand for the wildcards there",
            "one --wildcard for each *, one or more for a > at the end",
        )
    plain = next((pattern for pattern in patterns if not _wild(pattern)), None)
    if plain is not None:
        return plain, plain
    example = " ".join(f"--wildcard {_EXAMPLES[each]}" for each in _wild(patterns[0]))
    raise CommandFailed(
        Exit.USAGE,
        "subject-open",
        f"{listens}, which stands for more than one subject",
        f"say what stands for the wildcards: {example}, or all of it: --subject {_example(patterns[0])}",
    )


_EXAMPLES: Final = {"*": "WORD", ">": "REST"}


def _wild(pattern: str) -> list[str]:
    return [token for token in pattern.split(".") if token in _EXAMPLES]


def _example(pattern: str) -> str:
    return ".".join(_EXAMPLES.get(token, token) for token in pattern.split("."))


def fill(pattern: str, words: Sequence[str]) -> str | None:
    """The subject that a pattern becomes with these in place of its wildcards; None where they do not fit.

    A `>` takes all that are left, at least one, and any of them may be several tokens.
    """
    from nexlet_models.subjects import valid_subject, valid_token

    left, tokens = list(words), []
    for part in pattern.split("."):
        if part == "*":
            if not left or valid_token(left[0]) is not None:
                return None
            tokens.append(left.pop(0))
        elif part == ">":
            tokens += left or [""]
            left = []
        else:
            tokens.append(part)
    subject = ".".join(tokens)
    return subject if not left and valid_subject(subject, wildcards=False) is None else None


# --- there and back --------------------------------------------------------------------------------------------------


async def send(
    to: Session,
    target: Target,
    payload: bytes,
    headers: Mapping[str, str],
    timeout: float,
    *,
    event: SampleEvent | None = None,
) -> Answer:
    """Ask, and hear what there is to hear.

    Args:
        timeout: seconds.
        event: the sample event that it began with, for what is expected.

    Raises:
        CommandFailed: nobody answered in time, or the message is too large.
        NatsioError: see `Connection.request`.
    """
    from nexlet_functions.natsio.errors import RequestTimeout
    from nexlet_models.events import INVOCATION_HEADER

    too_large(to.connection, payload, headers)
    hearing = Hearing(target.subject)
    await hearing.begin(to)
    asking = {**headers, INVOCATION_HEADER: "?"}
    began = time.perf_counter()
    try:
        reply = await to.connection.request(target.subject, payload, headers=asking, timeout=timeout + LATER)
    except RequestTimeout:
        ran = hearing.outcomes()
        advice = f"it was run there, and ended {ran[-1]}: for what does not answer there is --no-reply" if ran else ""
        text = f"no answer on '{target.subject}' within {timeout:g} s"
        raise CommandFailed(Exit.TIMEOUT, "request-timeout", text, advice) from None
    took = (time.perf_counter() - began) * 1000
    answer = Answer(target.subject, answer_fields(reply), round_trip_ms=took)
    found = {name.lower(): value for name, value in reply.headers.items()}
    workload_id, namespace = found.get("workload_id", ""), found.get("namespace", "")
    if workload_id:
        answer.by = f"{namespace}/{workload_id}"
    if target.functions and workload_id not in target.functions:
        asked = ", ".join(target.functions)
        answer.notes.append(f"{workload_id or 'another'} answered, which shares the messages of {asked}")
    answer.invocation_id = found.get(INVOCATION_HEADER.lower(), "")
    if answer.invocation_id:
        heard = await hearing.of(answer.invocation_id)
        answer.logs, answer.metrics, answer.traceback = heard.logs, heard.metrics, heard.traceback
        if heard.missing:
            answer.notes.append(heard.missing)
        if heard.event is not None:
            answer.outcome = heard.event.outcome or ""
            answer.duration_ms, answer.queue_ms = heard.event.duration, heard.event.queue_ms
            answer.cpu_ms, answer.peak_memory_bytes = heard.event.cpu_ms, heard.event.peak_memory_bytes
    if event is not None and event.expect:
        answer.differences = _differences(event, answer, reply)
    return answer


def _differences(event: SampleEvent, answer: Answer, reply: Reply) -> list[str]:
    from nexlet_sandboxes.outcomes import CODES, Outcome

    code = answer.fields["code"]
    # Where no event came, by the code; a function's own code may be any, so that one that is nobody else's is its own.
    meant = next((outcome.value for outcome, its in CODES.items() if its == code), Outcome.REJECTED_BY_FUNCTION.value)
    return event.differences(
        outcome=answer.outcome or ("ok" if answer.fields["ok"] else meant),
        code=code,
        data=reply.payload,
        headers=reply.headers,
        error=answer.fields["error"] or "",
    )


async def publish(connection: Connection, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
    """Send it, and wait for nothing but the server.

    Raises:
        CommandFailed: the server forbids it, or the message is too large.
    """
    from nexlet_functions.natsio.protocol import encode_headers

    too_large(connection, payload, headers)
    connection.publish(subject, payload, headers=encode_headers(headers) if headers else b"")
    await connection.flush(CONNECT_TIMEOUT)
    if connection.stats().publish_violations:
        raise CommandFailed(
            Exit.FAILED, "publish-refused", f"the server forbids publishing on {subject}", "use other credentials"
        )


def too_large(connection: Connection, payload: bytes, headers: Mapping[str, str]) -> None:
    """See that a message is not.

    Raises:
        CommandFailed: it is.
    """
    size = len(payload) + sum(len(name) + len(value) + 4 for name, value in headers.items())
    if size > connection.max_payload:
        raise CommandFailed(
            Exit.FAILED,
            "payload-too-large",
            f"the message has {size} bytes, and the server takes {connection.max_payload}",
            "put what is large into an object store and send its name",
        )
