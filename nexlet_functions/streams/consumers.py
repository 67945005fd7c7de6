"""The durable consumer of a stream trigger: looked for, compared with what is asked for, and made where it is missing.

A consumer that is there with other settings is refused and never changed: clones of the function share it, and a
consumer that was made anew would begin from the first message. How often a message was tried is counted by us
(`puller`), and not by a limit of the consumer: past such a limit the server hands a message out to nobody, and
where it was the nexlet that died it would be lost. In its metadata stands what was given back (`returned`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, PublishRefused
from nexlet_functions.streams.api import (
    CONSUMER_EXISTS,
    CONSUMER_MISSING,
    STREAM_MISSING,
    JetStreamRefused,
    ask,
    consumer_info,
    stream_info,
    streams_with,
)
from nexlet_models.durations import format_duration
from nexlet_models.problems import Problem
from nexlet_models.start_request import StreamTrigger
from nexlet_models.subjects import overlaps

__all__ = ["OWNER", "Wanted", "look", "make", "wanted"]

OWNER: Final = "nexlet-functions"
"""The key of a consumer's metadata that says whose it is: `NAMESPACE/NAME`, `NAMESPACE` where it was given a name."""

_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The consumer of one stream trigger.

    Attributes:
        trigger: what was asked for.
        number: which of the request's triggers it is.
        name: of the consumer.
        owner: what its metadata say of whose it is.
    """

    trigger: StreamTrigger
    number: int
    name: str
    owner: str

    @property
    def place(self) -> str:
        """Of the trigger within the request."""
        return f"triggers[{self.number}]"

    @property
    def stream(self) -> str:
        return self.trigger.stream

    @property
    def pattern(self) -> str:
        """What the subjects of its messages match."""
        return self.trigger.pattern

    def config(self) -> dict[str, Any]:
        """As JetStream takes it."""
        trigger = self.trigger
        return {
            "name": self.name,
            "durable_name": self.name,
            "deliver_policy": trigger.deliver,
            "ack_policy": "explicit",
            "ack_wait": int(trigger.ack_wait * _NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": trigger.max_ack_pending,
            "replay_policy": "instant",
            "metadata": {OWNER: self.owner},
            **({"filter_subject": trigger.filter} if trigger.filter not in (None, ">") else {}),
        }

    def problem(self, message: str, advice: str, code: str, key: str = "stream") -> Problem:
        """Something wrong with it, at its place."""
        return Problem(message, f"{self.place}.{key}", advice=advice, code=code)


def wanted(trigger: StreamTrigger, number: int, namespace: str, function: str) -> Wanted:
    """The consumer that a trigger asks for: `NAMESPACE-DURABLE`, else one that is the function's own.

    A dot cannot be in the name of a consumer and is written as `_`; the owner tells apart what then reads the same.
    """
    name = f"{namespace}-{trigger.durable or function.replace('.', '_')}"
    return Wanted(trigger, number, name, namespace if trigger.durable else f"{namespace}/{function}")


async def look(connection: Connection, one: Wanted) -> bool:
    """Whether the consumer is there. Nothing is made.

    Raises:
        Refusal: the stream is missing, the consumer is another one, it may not be asked for, or nothing keeps the dead
            letters.
    """
    problems: list[Problem] = [*await _empty(connection, one)]
    there = False
    try:
        info = await consumer_info(connection, one.stream, one.name)
        there = True
        problems += _compared(one, info.get("config") or {})
    except JetStreamRefused as refused:
        if refused.number != CONSUMER_MISSING:
            problems.append(_refused(one, refused))
    except NatsioError as error:
        problems.append(_unanswered(one, error, f"look at the consumer '{one.name}'"))
    if one.trigger.dead_letter is not None and not any(each.code == "unreachable" for each in problems):
        problems += await _kept(connection, one, one.trigger.dead_letter)
    if problems:
        raise Refusal(*problems)
    return there


async def make(connection: Connection, one: Wanted) -> None:
    """Make the consumer. Another clone may have been quicker, with the same settings.

    Raises:
        Refusal: JetStream does not make it.
    """
    subject = f"CONSUMER.CREATE.{one.stream}.{one.name}"
    config = one.config()
    if "filter_subject" in config:
        subject += f".{config['filter_subject']}"
    try:
        await ask(connection, subject, {"stream_name": one.stream, "config": config, "action": "create"})
    except JetStreamRefused as refused:
        if refused.number in CONSUMER_EXISTS:
            raise Refusal(_differs(one, [refused.description])) from None
        raise Refusal(_refused(one, refused)) from None
    except NatsioError as error:
        raise Refusal(_unanswered(one, error, f"make the consumer '{one.name}'")) from None


async def _empty(connection: Connection, one: Wanted) -> Sequence[Problem]:
    """JetStream takes a filter that no message of the stream can have, and its consumer would wait for ever."""
    pattern = one.trigger.filter
    if pattern is None:
        return ()
    try:
        config = (await stream_info(connection, one.stream)).get("config") or {}
    except (JetStreamRefused, NatsioError):
        return ()  # what is missing is said of the consumer; a look at the stream is not needed for anything else
    subjects = config.get("subjects") or ()
    if config.get("mirror") or config.get("sources") or any(overlaps(subject, pattern) for subject in subjects):
        return ()
    return [
        one.problem(
            f"the stream '{one.stream}' has no messages of '{pattern}'",
            f"its subjects are {', '.join(subjects)}",
            "filter-empty",
            "filter",
        )
    ]


async def _kept(connection: Connection, one: Wanted, subject: str) -> Sequence[Problem]:
    try:
        streams = await streams_with(connection, subject)
    except JetStreamRefused as refused:
        return [_refused(one, refused)]
    except NatsioError as error:
        return [_unanswered(one, error, f"see which stream keeps '{subject}'", key="dead_letter")]
    if not streams:
        return [
            one.problem(
                f"no stream keeps '{subject}', so that a message which failed for good would be lost",
                f"make one: nats stream add DEAD --subjects {subject}",
                "dead-letter-lost",
                "dead_letter",
            )
        ]
    if one.stream in streams and one.trigger.filter is None:
        return [
            one.problem(
                f"'{subject}' is a subject of the stream '{one.stream}': what failed would run again, without end",
                "name a subject of another stream, or give the trigger a filter",
                "comes-back",
                "dead_letter",
            )
        ]
    return ()


def _compared(one: Wanted, found: Mapping[str, Any]) -> Sequence[Problem]:
    owner = (found.get("metadata") or {}).get(OWNER)
    if owner is not None and owner.partition("/")[0] != one.owner.partition("/")[0]:
        return [_foreign(one, f"the namespace '{owner.partition('/')[0]}'")]
    if owner is not None and "/" in owner and "/" in one.owner and owner != one.owner:
        return [_foreign(one, f"the function '{owner.partition('/')[2]}'")]
    if found.get("deliver_subject"):
        return [_differs(one, ["it is a push consumer, and not one to pull from"])]
    asked = one.config()
    seconds = {"ack_wait"}
    differences = [
        f"{key} is {_shown(found.get(key), seconds=key in seconds)}, asked for is "
        f"{_shown(asked[key], seconds=key in seconds)}"
        for key in ("ack_policy", "deliver_policy", "ack_wait", "max_deliver", "max_ack_pending")
        if found.get(key) != asked[key]
    ]
    filters = found.get("filter_subjects") or ([found["filter_subject"]] if found.get("filter_subject") else [])
    mine = asked.get("filter_subject")
    if sorted(filters) != ([mine] if mine else []):
        differences.append(f"filter is {', '.join(filters) or 'not set'}, asked for is {mine or 'none'}")
    differences += [f"{key} is set" for key in ("backoff", "headers_only", "priority_groups") if found.get(key)]
    return [_differs(one, differences)] if differences else ()


def _shown(value: object, *, seconds: bool) -> str:
    if seconds and isinstance(value, int):
        return format_duration(value / _NANOSECONDS)
    if value == -1:
        return "-1 (without end: attempts are counted here)"
    return str(value)


def _differs(one: Wanted, differences: Sequence[str]) -> Problem:
    return one.problem(
        f"the consumer '{one.name}' of the stream '{one.stream}' is there, with other settings: "
        + "; ".join(differences),
        "ask for those settings, name another durable, or remove the consumer and with it how far it was: "
        f"nats consumer rm {one.stream} {one.name}",
        "consumer-differs",
    )


def _foreign(one: Wanted, whose: str) -> Problem:
    return one.problem(
        f"the consumer '{one.name}' of the stream '{one.stream}' belongs to {whose}",
        "name another durable",
        "consumer-differs",
    )


def _refused(one: Wanted, refused: JetStreamRefused) -> Problem:
    if refused.number == STREAM_MISSING:
        return one.problem(
            f"there is no stream '{one.stream}'",
            "a function makes no streams; make it first: nats stream add "
            f"{one.stream} --subjects {one.trigger.filter or 'SUBJECTS'}",
            "stream-missing",
        )
    if not refused.number:
        return one.problem(
            f"'{one.stream}' cannot be consumed: {refused.description}",
            "enable JetStream for the account of this workload, or ask the operator",
            "unreachable",
        )
    return one.problem(
        f"JetStream refuses the consumer '{one.name}' of '{one.stream}': {refused.description}",
        "see what the stream holds: nats stream info " + one.stream,
        "trigger-refused",
    )


def _unanswered(one: Wanted, error: NatsioError, what: str, key: str = "stream") -> Problem:
    if isinstance(error, PublishRefused):
        return one.problem(
            f"cannot {what}: the server says '{error.permission}'",
            f"allow the credentials of this workload to publish on '{error.subject}'",
            "trigger-refused",
            key,
        )
    return one.problem(f"cannot {what}: {error}", "try again; if it stays so, ask the operator", "unreachable", key)
