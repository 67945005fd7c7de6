"""From what a client asks for to what runs: the start request turned into limits, triggers and a name.

Pure functions, no I/O. What is left out of a request gets its default, which an operator's ceiling may lower; what is
said in it is taken literally, and refused elsewhere (`permissions`) where it is too much.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.functions.triggers import Trigger
from nexlet_functions.rules import Ceilings
from nexlet_models.problems import Problem
from nexlet_models.sizes import format_size
from nexlet_models.start_request import StartRequest, StartRequestRefused, parse_start_request
from nexlet_models.start_request import Trigger as SubjectTrigger
from nexlet_models.subjects import valid_name, valid_token
from nexlet_sandboxes.processor import processors
from nexlet_sandboxes.program import Limits, Program

if TYPE_CHECKING:
    from nexlet_models.workloads import StartWorkloadRequest

__all__ = [
    "HEADER_ROOM",
    "KV_LIMIT",
    "fit_reply",
    "inline_program",
    "limits_of",
    "made_name",
    "read_request",
    "sound_part",
    "triggers_of",
]

HEADER_ROOM = 4096
"""Bytes of a message that are kept for a reply's headers, which count towards the server's `max_payload`."""

KV_LIMIT = 10 * 1024
"""Bytes of a start request that the node's state `kv` keeps; a larger one it loses when it restarts, without a word."""


def read_request(workload_id: str, request: StartWorkloadRequest, register_type: str) -> StartRequest:
    """The start request within a workload's request, both found to be in order.

    Raises:
        Refusal: with everything that is wrong with either.
    """
    from nexlet_models.workloads import WorkloadLifecycle  # whose models `check` can do without

    problems = []
    for what, token in (("workload id", workload_id), ("namespace", request.namespace)):
        reason = valid_token(token)
        if reason is not None:
            problems.append(Problem(f"the {what} {token!r} {reason}", what, code="bad-token"))
    if request.name:
        # The queue group is made of it.
        reason = valid_name(request.name)
        if reason is not None:
            problems.append(
                Problem(
                    f"the name {request.name!r} {reason}",
                    "name",
                    advice="use letters, digits, '-', '_' and '.', as in order-totals",
                    code="bad-name",
                )
            )
    if request.workload_type != register_type:
        problems.append(
            Problem(
                f"this nexlet runs workloads of type '{register_type}', not '{request.workload_type}'",
                "type",
                advice=f"write type: {register_type}",
                code="bad-type",
            )
        )
    if request.workload_lifecycle is not WorkloadLifecycle.FUNCTION:
        problems.append(
            Problem(
                f"the lifecycle is 'function', not '{request.workload_lifecycle}'",
                "lifecycle",
                advice="write lifecycle: function",
                code="bad-lifecycle",
            )
        )
    try:
        start = parse_start_request(request.run_request)
    except StartRequestRefused as error:
        raise Refusal(*problems, *error.problems) from None
    if problems:
        raise Refusal(*problems)
    return start


def sound_part(run_request: str) -> StartRequest | None:
    """What is in order of a start request that is refused, so that the rest of it can be judged in one go.

    Keys with problems are left out, within `limits`, `workers`, `files`, `environment` and `grants` one by one. Where
    no source is left, a `uri` that nobody may fetch stands for it.

    Returns:
        None where nothing can be made of it.
    """
    try:
        said = json.loads(run_request)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    for _ in range(_PASSES):
        try:
            return parse_start_request(json.dumps(said))
        except StartRequestRefused as refused:
            for problem in refused.problems:
                _leave_out(said, problem.place)
            if "source" not in said:
                said.setdefault("uri", _NO_SOURCE)
    return None


_PASSES = 3
"""Once for what is wrong in itself, once for what is wrong with what is left, and once to see that nothing is."""

_NO_SOURCE = "nats://none/none"

_PLACE = re.compile(r'(?P<key>\w+)(?:\.(?P<name>\w+)|\[(?P<text>".*?(?<!\\)")\])?|\[(?P<odd>".*?(?<!\\)")\]')
"""The first two steps of a place: `limits.memory`, `files["a b.py"]`, `triggers` (of `triggers[1].subject`)."""

_BY_ENTRY = ("limits", "workers", "files", "environment", "grants")


def _leave_out(said: dict[str, Any], place: str) -> None:
    found = _PLACE.match(place)
    if found is None:
        return
    key = found["key"] if found["odd"] is None else json.loads(found["odd"])
    entry = found["name"] if found["text"] is None else json.loads(found["text"])
    inner = said.get(key)
    if key in _BY_ENTRY and entry is not None and isinstance(inner, dict):
        inner.pop(entry, None)
    else:
        said.pop(key, None)


def inline_program(start: StartRequest) -> Program | None:
    """The inline source of a start request, to be looked at and not to be run; None where there is none."""
    if start.source is None:
        return None
    return Program(source=start.source, files=start.files, handler=start.handler, batch=start.batch)


def made_name(workload_id: str) -> str:
    """The name of a workload that was given none. Its clones carry it on, and so share its messages."""
    return f"function-{workload_id}"


def triggers_of(start: StartRequest, workload_id: str, namespace: str, name: str) -> tuple[Trigger, ...]:
    """The subjects a function listens to, in a queue group of its namespace; its workload's id without triggers."""
    if not start.triggers:
        return (Trigger(workload_id, f"{namespace}.{name}"),)
    triggers = []
    for number, trigger in enumerate(start.triggers):
        if not isinstance(trigger, SubjectTrigger):
            continue
        group = name if trigger.queue_group is None else trigger.queue_group
        group = f"{namespace}.{group}" if group else ""
        triggers.append(Trigger(trigger.subject, group, trigger.reply, number, trigger.on_failure))
    return tuple(triggers)


def limits_of(start: StartRequest, ceilings: Ceilings, *, cores: int | None = None) -> Limits:
    """How far the function may go, without a word yet about replies (`fit_reply`).

    Args:
        cores: that this process may use; None looks.
    """
    asked, said = start.limits, start.limits.model_fields_set
    timeout = asked.timeout if "timeout" in said else min(asked.timeout, ceilings.timeout)
    most = start.workers.max
    if most is None:
        most = max(start.workers.min, min(4, cores or processors(), ceilings.workers))
    return Limits(
        timeout=timeout,
        load_timeout=asked.load_timeout if "load_timeout" in said else min(asked.load_timeout, ceilings.load_timeout),
        memory=asked.memory if "memory" in said else min(asked.memory, ceilings.memory),
        max_pending=asked.max_pending if "max_pending" in said else min(asked.max_pending, ceilings.max_pending),
        queue_timeout=timeout if asked.queue_timeout is None else asked.queue_timeout,
        log_rate=asked.log_rate if "log_rate" in said else min(asked.log_rate, ceilings.log_rate),
        max_calls=asked.max_calls if "max_calls" in said else min(asked.max_calls, ceilings.max_calls),
        min_workers=start.workers.min,
        max_workers=most,
        wait=start.workers.wait,
        idle=asked.idle if "idle" in said else min(asked.idle, ceilings.idle),
    )


def fit_reply(limits: Limits, start: StartRequest, max_payload: int) -> Limits:
    """The limits with the largest reply: what is asked for, else what the server takes, less room for headers.

    Args:
        max_payload: bytes of headers and body that the server takes.

    Raises:
        Refusal: more is asked for than the server takes.
    """
    most = max_payload - min(HEADER_ROOM, max_payload // 2)
    asked = start.limits.max_reply
    if asked is None:
        return replace(limits, max_reply=most)
    if asked > most:
        raise Refusal(
            Problem(
                f"{format_size(asked)} is more than the {format_size(most)} that the server takes, less headers",
                "limits.max_reply",
                advice="ask for less, or answer with a reference to a bucket",
                code="over-ceiling",
            )
        )
    return replace(limits, max_reply=asked)
