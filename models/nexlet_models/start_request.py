"""The start request of a function: what a Nexfile says under `start_request`, read with every problem named at once.

`start_request.json` beside this module is the authority on keys, types, forms and defaults; the models here are held to
it by tests, and add what a schema cannot say (subjects that overlap, `min` above `max`, words that Python reserves).

- `parse_start_request`: the door. Text in, a `StartRequest` out, or `StartRequestRefused` with all its problems.
- `schema`: the authority itself, for editors.
- `open_schema`: what is registered with the node. Client and node check it before the nexlet is asked, and
  their refusals name neither the nearest key nor the next step: it keeps types and descriptions, the rest is left open.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from nexlet_models._forms import (
    MAX_TRIGGERS,
    METHODS,
    PROFILES,
    SECRET_PREFIX,
    SHOWN,
    Absent,
    Access,
    Backoff,
    Base64,
    Batch,
    Bucket,
    CronExpression,
    CurveKey,
    Deliver,
    Durable,
    Duration,
    DurationOrZero,
    FileName,
    Filter,
    Flag,
    FromOne,
    FromZero,
    Handler,
    Host,
    Interval,
    Literal,
    Method,
    Missed,
    Overlap,
    Profile,
    QueueGroup,
    Rotation,
    ScheduleName,
    Sha256,
    Size,
    Source,
    StreamName,
    Subject,
    Text,
    TimeZone,
    Uri,
    Value,
    VariableName,
    few_grants,
    few_triggers,
    kind,
    listed,
    plain_trigger,
    scalar,
    shown,
)
from nexlet_models.cron import Cadence, Cron, Every, time_zone
from nexlet_models.durations import format_duration
from nexlet_models.errors import ModelError
from nexlet_models.problems import Problem, headline
from nexlet_models.scheduled import SCHEDULE_SUBJECT
from nexlet_models.subjects import matches, overlaps, valid_trigger
from nexlet_models.workloads import EncEnv

__all__ = [
    "METHODS",
    "PROFILES",
    "SECRET_PREFIX",
    "GrantsRequest",
    "HttpGrant",
    "IntervalTrigger",
    "LimitsRequest",
    "ScheduleTrigger",
    "SealedEnvironment",
    "StartRequest",
    "StartRequestRefused",
    "StreamTrigger",
    "TimedTrigger",
    "Trigger",
    "WorkersRequest",
    "open_schema",
    "parse_start_request",
    "schema",
    "trigger_kinds",
]

_MAX_PROBLEMS = 50
_LONGEST_PLACE = 200


class StartRequestRefused(ModelError):
    """A start request that cannot be taken.

    Attributes:
        problems: every reason; each has its place within the request, such as `triggers[1].subject`.
    """

    code = "start-request-refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(headline("start request", self.problems))


# --- the request ---------------------------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Trigger(_Part):
    """A subject that runs the function.

    Attributes:
        subject: wildcards allowed after the first token.
        queue_group: None shares the messages among all clones of the function; a name shares them among all of the
            namespace that name it; "" gives every clone every message.
        reply: whether requests are answered.
        on_failure: where messages go that failed and for whose answer nobody waits; None for nowhere.
    """

    subject: Subject
    queue_group: Absent[QueueGroup] = None
    reply: Flag = True
    on_failure: Absent[Literal] = None

    @property
    def pattern(self) -> str:
        """What the subjects of its messages match."""
        return self.subject


class StreamTrigger(_Part):
    """A durable consumer of a stream, whose messages run the function; durations in seconds.

    Attributes:
        stream: has to be there.
        filter: None takes all of its messages.
        durable: the consumer's name within the namespace; None means the function's.
        deliver: where a consumer that is made begins.
        ack_wait: without a sign for so long, a message is handed out again.
        max_deliver: attempts before it is given up.
        backoff: pauses before the second attempt and those that follow.
        max_ack_pending: of the consumer's messages under way.
        batch: messages asked for at a time at most.
        dead_letter: where messages go that are given up; None for nowhere.
    """

    stream: StreamName
    filter: Absent[Filter] = None
    durable: Absent[Durable] = None
    deliver: Deliver = "all"
    ack_wait: Duration = 30.0
    max_deliver: FromOne = 5
    backoff: Backoff = (1.0, 10.0, 60.0)
    max_ack_pending: FromOne = 1000
    batch: FromOne = 256
    dead_letter: Absent[Literal] = None

    @property
    def pattern(self) -> str:
        """What the subjects of its messages match."""
        return self.filter or ">"

    @property
    def text(self) -> str:
        """What it takes, for people."""
        return f"stream {self.stream} {self.filter}" if self.filter else f"stream {self.stream}"


class _Timed(_Part):
    """Times at which the function runs, once however many clones there are; of two kinds.

    Attributes:
        name: the end of the subject that its events have.
        missed: "skip" or "once", for what nobody could begin in time.
        overlap: "skip" or "allow", for what is due while the last one has not ended.
    """

    name: ScheduleName = "schedule"
    missed: Missed = "skip"
    overlap: Overlap = "skip"

    @property
    def pattern(self) -> str:
        """The subject of its events. No message can come with it: no trigger begins with `$`."""
        return f"{SCHEDULE_SUBJECT}{self.name}"


class ScheduleTrigger(_Timed):
    """The times of a table.

    Attributes:
        schedule: in five fields.
        timezone: None means UTC.
    """

    schedule: CronExpression
    timezone: Absent[TimeZone] = None

    @property
    def text(self) -> str:
        """When it is due, for people."""
        return f"{self.schedule} {self.timezone or 'UTC'}"

    @property
    def interval(self) -> float:
        """Seconds between two runs, the shortest that there may be: a table has whole minutes."""
        return 60.0

    def cadence(self) -> Cadence:
        """When it is due.

        Raises:
            InvalidTimeZone: this machine does not know the zone any more.
        """
        return Cron(self.schedule, time_zone(self.timezone or "UTC"))


class IntervalTrigger(_Timed):
    """The multiples of an interval.

    Attributes:
        every: in seconds, counted from 1970.
    """

    every: Interval

    @property
    def text(self) -> str:
        """When it is due, for people."""
        return f"every {format_duration(self.every)}"

    @property
    def interval(self) -> float:
        """Seconds between two runs."""
        return self.every

    def cadence(self) -> Cadence:
        """When it is due."""
        return Every(self.every)


TimedTrigger = ScheduleTrigger | IntervalTrigger
"""A trigger that is a matter of time."""

_DECIDE = {
    "stream": ("[stream]", StreamTrigger),
    "schedule": ("[schedule]", ScheduleTrigger),
    "every": ("[every]", IntervalTrigger),
}
"""The keys that make a trigger one of another kind than a subject, in the order of the schema."""


def _kind_of_trigger(value: object) -> str:
    """Which of the kinds it is meant to be: the key that makes it one is there, or one that is near to it."""
    for key, (tag, model) in _DECIDE.items():
        if isinstance(value, model) or (isinstance(value, Mapping) and key in value):
            return tag
    if not isinstance(value, Mapping):
        return "[subject]"
    if "subject" in value:
        return "[subject]"
    # Looking for what is near takes its time, and a few keys are enough to see what is meant.
    near = (_near_of(frozenset(_DECIDE), str(key)) for key in itertools.islice(value, _MAX_PROBLEMS))
    return next((_DECIDE[key][0] for key in near if key), "[subject]")


AnyTrigger = Annotated[
    Annotated[Trigger, Tag("[subject]")]
    | Annotated[StreamTrigger, Tag("[stream]")]
    | Annotated[ScheduleTrigger, Tag("[schedule]")]
    | Annotated[IntervalTrigger, Tag("[every]")],
    Discriminator(_kind_of_trigger),
    plain_trigger,
]


class SealedEnvironment(_Part):
    """An environment sealed to the nexlet's curve key."""

    encrypted_by: CurveKey
    base64_encrypted_env: Base64 = Field(repr=False)

    def message(self) -> EncEnv:
        """As it goes over the wire."""
        return EncEnv(encrypted_by=self.encrypted_by, base64_encrypted_env=self.base64_encrypted_env)


class LimitsRequest(_Part):
    """How far the function may go; durations in seconds, sizes in bytes. See start_request.json for each.

    Attributes:
        queue_timeout: None means as long as `timeout`.
        max_reply: None means what the server takes.
    """

    timeout: Duration = 5.0
    load_timeout: Duration = 5.0
    memory: Size = 128 * 1024 * 1024
    max_pending: FromOne = 1024
    max_calls: FromOne = 1000
    queue_timeout: Absent[Duration] = None
    log_rate: Size = 64 * 1024
    max_reply: Absent[Size] = None
    idle: DurationOrZero = 600.0


class WorkersRequest(_Part):
    """Processes of the function.

    Attributes:
        min: kept ready.
        max: at most; None means as many as there are cores, four at most.
        wait: how long invocations should wait for one, in seconds.
    """

    min: FromZero = 0
    max: Absent[FromOne] = None
    wait: DurationOrZero = 0.005


_Subjects = Annotated[tuple[Subject, ...], few_grants, listed]
_Buckets = Annotated[dict[Bucket, Access], few_grants]


class HttpGrant(_Part):
    """Where the function may make HTTP requests.

    Attributes:
        hosts: names in small letters, `*.` in front for all below, `:8443` behind for a port that is not the usual one.
        methods: of HTTP, in capitals.
    """

    hosts: Annotated[tuple[Host, ...], few_grants, listed]
    methods: Annotated[tuple[Method, ...], few_grants, listed] = ("GET", "HEAD")


class GrantsRequest(_Part):
    """What the function may touch beside its message: nothing but what stands here.

    Attributes:
        publish, request: subjects it may publish on and send requests to, wildcards allowed after the first token.
        kv, objects: buckets, each to "read" or "write"; who may write may read.
        http: None: no HTTP.
    """

    publish: _Subjects = ()
    request: _Subjects = ()
    kv: _Buckets = Field(default_factory=dict)
    objects: _Buckets = Field(default_factory=dict)
    http: Absent[HttpGrant] = None

    def __bool__(self) -> bool:
        """Whether anything is granted."""
        return bool(self.publish or self.request or self.kv or self.objects or self.http)

    def summary(self) -> str:
        """One line: `publish orders.created, audit.>; kv counters: write; http api.example.com (GET, HEAD)`."""
        parts = [f"{key} {', '.join(getattr(self, key))}" for key in ("publish", "request") if getattr(self, key)]
        for key in ("kv", "objects"):
            if buckets := getattr(self, key):
                parts.append(f"{key} " + ", ".join(f"{bucket}: {access}" for bucket, access in buckets.items()))
        if self.http is not None:
            parts.append(f"http {', '.join(self.http.hosts)} ({', '.join(self.http.methods)})")
        return "; ".join(parts)


class StartRequest(_Part):
    """A start request that was found to be in order. Made by `parse_start_request`, which checks more than the fields.

    Attributes:
        source: inline; None where `uri` says where it is.
        uri: `file://` or `nats://`; None where `source` is given.
        sha256: lower case; None where none is asked for.
        files: helper modules, file name to source.
        handler: what is called.
        batch: events that one call of it is given at most; 1 gives it one event, and no list.
        triggers: none means the workload's id.
        environment: values may begin with `SECRET_PREFIX`.
        encrypted_environment: joined to `environment` by whoever can open it.
        grants: what it may touch.
        sandbox: one of `PROFILES`; None means the operator's default.
        rotation: "redeploy" or "live", for secrets that are changed while it runs.
    """

    source: Absent[Source] = Field(default=None, repr=False)
    uri: Absent[Uri] = None
    sha256: Absent[Sha256] = None
    files: dict[FileName, Text] = Field(default_factory=dict, repr=False)
    handler: Handler = "handler"
    batch: Batch = 1
    triggers: Annotated[tuple[AnyTrigger, ...], few_triggers] = ()
    environment: dict[VariableName, Value] = Field(default_factory=dict)
    encrypted_environment: Absent[SealedEnvironment] = None
    grants: GrantsRequest = GrantsRequest()
    limits: LimitsRequest = LimitsRequest()
    workers: WorkersRequest = WorkersRequest()
    sandbox: Absent[Profile] = None
    rotation: Rotation = "redeploy"

    @property
    def subject_triggers(self) -> tuple[Trigger, ...]:
        """Those of `triggers` that are subjects."""
        return tuple(trigger for trigger in self.triggers if isinstance(trigger, Trigger))

    @property
    def stream_triggers(self) -> tuple[StreamTrigger, ...]:
        """Those of `triggers` that are streams."""
        return tuple(trigger for trigger in self.triggers if isinstance(trigger, StreamTrigger))

    @property
    def timed_triggers(self) -> tuple[TimedTrigger, ...]:
        """Those of `triggers` that are times."""
        return tuple(trigger for trigger in self.triggers if isinstance(trigger, TimedTrigger))


# --- reading one ---------------------------------------------------------------------------------------------------


def parse_start_request(text: str) -> StartRequest:
    """Read the `run_request` of a workload.

    Raises:
        StartRequestRefused: with every problem there is, in the order of the keys.
    """
    raw = _read_json(text)
    if not isinstance(raw, _Object):
        raise StartRequestRefused([_problem("bad-type", f"must be an object, not {kind(raw)}", "start_request")])
    request: StartRequest | None = None
    problems = [
        _problem("duplicate-key", f"the key '{key}' is given twice", place, "keep one of them")
        for place, key in itertools.islice(_duplicates(raw), _MAX_PROBLEMS)
    ]
    try:
        request = StartRequest.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # Reading on costs time by the key, and who has made so many mistakes will come back anyway.
        problems += filter(None, (_field_problem(raw, detail) for detail in found[:_MAX_PROBLEMS]))
        if len(found) > _MAX_PROBLEMS:
            more = f"has {len(found) - _MAX_PROBLEMS} problems more"
            problems.append(_problem("too-many-problems", more, "start_request", "mend those above first"))
    problems += _across(raw)
    if problems or request is None:
        raise StartRequestRefused(problems)
    return request


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were given more than once."""

    twice: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    read = _Object(pairs)
    if len(read) < len(pairs):
        given = Counter(name for name, _ in pairs)
        read.twice = tuple(name for name, count in given.items() if count > 1)
    return read


def _duplicates(request: _Object) -> Iterable[tuple[str, str]]:
    """Place and name of each key that is given more than once."""
    # Without recursion: some Pythons read JSON that is nested deeper than a function of theirs may call itself.
    waiting: list[tuple[str, object]] = [("", request)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, _Object):
            for name in value.twice:
                yield _joined(place, name), name
            waiting.extend((_joined(place, name), inner) for name, inner in value.items() if _holds(inner))
        elif isinstance(value, list):
            waiting.extend((_joined(place, number), inner) for number, inner in enumerate(value) if _holds(inner))


def _holds(value: object) -> bool:
    return isinstance(value, dict | list)


class _NotJson(Exception):
    """A value that Python's reader takes and JSON does not have."""


def _no_constant(name: str) -> object:
    raise _NotJson(f"{name} is no value in JSON")


def _read_json(text: str) -> object:
    """The text as JSON.

    Raises:
        StartRequestRefused: it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        # The line itself is not shown: it may hold the values of the environment.
        place, line, column, reason = "start_request", error.lineno, error.colno, error.msg
    except RecursionError:
        place, line, column, reason = "start_request", 0, 0, "nested too deeply"
    except _NotJson as error:
        place, line, column, reason = "start_request", 0, 0, str(error)
    except ValueError:
        # Which is all that is left: Python reads whole numbers up to a length that it was set to.
        place, line, column, reason = "start_request", 0, 0, "a number of too many digits"
    problem = Problem(f"is not JSON: {reason}", place, line, column, advice="", code="not-json")
    raise StartRequestRefused([problem])


def _problem(code: str, message: str, place: str, advice: str = "") -> Problem:
    return Problem(message, place=place, advice=advice, code=code)


def _joined(place: str, step: str | int) -> str:
    """A path within the request: `triggers[1].subject`, `files["prices.py"]`."""
    place = place[:_LONGEST_PLACE]
    if isinstance(step, int):
        return f"{place}[{step}]"
    if not step.isidentifier() or not step.isascii():
        return f"{place}[{json.dumps(step[:SHOWN])}]"
    return f"{place}.{step[:SHOWN]}" if place else step[:SHOWN]


_KEYS: dict[str, frozenset[str]] = {
    "": frozenset(StartRequest.model_fields),
    "triggers": frozenset(Trigger.model_fields),
    "triggers of a stream": frozenset(StreamTrigger.model_fields),
    "triggers by schedule": frozenset(ScheduleTrigger.model_fields),
    "triggers by interval": frozenset(IntervalTrigger.model_fields),
    "limits": frozenset(LimitsRequest.model_fields),
    "workers": frozenset(WorkersRequest.model_fields),
    "encrypted_environment": frozenset(SealedEnvironment.model_fields),
    "grants": frozenset(GrantsRequest.model_fields),
    "grants.http": frozenset(HttpGrant.model_fields),
}
_KINDS = {
    "triggers": "a trigger with a subject",
    "triggers of a stream": "a trigger with a stream",
    "triggers by schedule": "a trigger with a schedule",
    "triggers by interval": "a trigger with an interval",
}
_SECTIONS = {
    "[subject]": "triggers",
    "[stream]": "triggers of a stream",
    "[schedule]": "triggers by schedule",
    "[every]": "triggers by interval",
}
_MEANT = {
    "code": "source",
    "script": "source",
    "url": "uri",
    "subject": "triggers",
    "subjects": "triggers",
    "trigger": "triggers",
    "env": "environment",
    "envs": "environment",
    "secrets": "environment",
    "modules": "files",
    "entrypoint": "handler",
    "profile": "sandbox",
    "rotate": "rotation",
    "cron": "schedule",
    "schedules": "schedule",
    "interval": "every",
    "tz": "timezone",
    "zone": "timezone",
    "queue": "queue_group",
    "group": "queue_group",
    "permissions": "grants",
    "allow": "grants",
    "requests": "request",
    "buckets": "kv",
    "key_value": "kv",
    "object_store": "objects",
    "host": "hosts",
    "method": "methods",
}


def _field_problem(raw: Mapping[str, Any], detail: ErrorDetails) -> Problem | None:
    """What pydantic found, in our words; None where it is said by another one."""
    section = next((_SECTIONS[step] for step in detail["loc"] if step in _SECTIONS), "")
    steps = [step for step in detail["loc"] if step not in _NO_STEPS]
    place = ""
    here: Any = raw
    around: Any = raw
    for number, step in enumerate(steps):
        if isinstance(here, str):
            break  # a plain subject stands for an object: what is wrong with its subject is wrong with it
        place = _joined(place, step)
        around = here
        try:
            here = here[step]
        except (KeyError, IndexError):
            assert number == len(steps) - 1, "only the last step of a place can be missing"
    code = detail["type"]
    context = detail.get("ctx", {})
    if "reason" in context:
        return _problem(code, context["reason"], place, context["advice"])
    if code == "extra_forbidden":
        return _unknown_key(steps, place, section)
    if code == "missing" and section and isinstance(around, Mapping):
        known = _KEYS[section]
        meant = (_near_of(known, str(key)) for key in itertools.islice(around, _MAX_PROBLEMS) if key not in known)
        if str(steps[-1]) in meant:
            return None
    if code == "missing":
        return _problem("missing-key", "is required", place, "add it")
    wanted = {"tuple_type": "a list", "dict_type": "an object", "model_type": "an object"}[code]
    advice = _WRITE_AS.get(place) or _WRITE_AS.get(str(steps[-1]) if steps else "", "")
    return _problem("bad-type", f"must be {wanted}, not {kind(here)}", place, advice)


_NO_STEPS = frozenset({"[key]", *_SECTIONS})
"""What pydantic has in a place that leads nowhere: the key itself, and the kind of a trigger."""

_WRITE_AS = {
    "triggers": "write it as [orders.created]",
    "files": "write it as {prices.py: SOURCE}",
    "environment": "write it as {NAME: VALUE}",
    "limits": "write it as {timeout: 5s}",
    "workers": "write it as {min: 0, max: 4}",
    "grants": "write it as {publish: [orders.created]}",
    "grants.publish": "write it as [orders.created]",
    "grants.request": "write it as [prices.get]",
    "grants.kv": "write it as {BUCKET: read} or {BUCKET: write}",
    "grants.objects": "write it as {BUCKET: read} or {BUCKET: write}",
    "grants.http": "write it as {hosts: [api.example.com]}",
    "backoff": "write it as [1s, 10s, 1m]",
}


def _unknown_key(steps: Sequence[str | int], place: str, section: str) -> Problem:
    key = str(steps[-1])
    section = section or ".".join(step for step in steps[:-1] if isinstance(step, str))
    if not section and key == "source_file":
        return _problem(
            "not-packed",
            "is for the folder of a function; a nexlet takes its source inline",
            place,
            "pack it first: nexlet-functions pack DIR | nex workload start -f /dev/stdin",
        )
    near = _nearest(section, key)
    elsewhere = [name for name, keys in _KEYS.items() if name and name != section and key in keys]
    if near:
        advice = f"did you mean {near}?"
    elif section and key in _KEYS[""]:
        advice = "it belongs at the top of the start request"
    elif elsewhere and elsewhere[0] in _KINDS:
        advice = f"it belongs to {_KINDS[elsewhere[0]]}"
        advice += ": write two triggers for both" if section in _KINDS else ", under triggers"
    elif elsewhere:
        advice = f"it belongs under {elsewhere[0]}"
    else:
        advice = f"known here: {', '.join(sorted(_KEYS[section]))}"
    return _problem("unknown-key", f"unknown key '{key[:SHOWN]}'", place, advice)


def _nearest(section: str, key: str) -> str:
    """The key of that section that was probably meant, or ""."""
    return _near_of(_KEYS[section], key)


def _near_of(known: frozenset[str], key: str) -> str:
    folded = key[:SHOWN].lower().replace("-", "_")
    # A letter's case and a dash are slips of the hand, and nearer than any other key.
    for meant in (folded, _MEANT.get(folded, "")):
        if meant in known:
            return meant
    near = difflib.get_close_matches(folded, sorted(known), n=1)
    return near[0] if near else ""


def _across(raw: Mapping[str, Any]) -> Iterable[Problem]:
    """What is wrong between keys, also where single ones are wrong as well."""
    if "source" in raw and "uri" in raw:
        yield _problem("source-and-uri", "source and uri are both given", "uri", "keep one of them")
    # Said only where no key that is there was meant to be it.
    if not any(key in ("source", "uri", "source_file") or _nearest("", key) in ("source", "uri") for key in raw):
        yield _problem("no-source", "neither source nor uri is given", "start_request", "give the function's source")
    workers = raw.get("workers")
    if isinstance(workers, Mapping):
        least, most = workers.get("min", 0), workers.get("max", 0)
        if scalar(least) and scalar(most) and least > most >= 1:
            yield _problem("out-of-range", f"min {least} is more than max {most}", "workers", "raise max, or lower min")
    triggers = raw.get("triggers")
    if isinstance(triggers, list) and len(triggers) <= MAX_TRIGGERS:
        yield from _between_triggers(triggers)


def _between_triggers(triggers: Sequence[object]) -> Iterable[Problem]:
    seen: list[tuple[int, str, bool]] = []
    consumers: dict[tuple[str, str | None], int] = {}
    scheduled: dict[tuple[object, ...], int] = {}
    whole = [entry if isinstance(entry, Mapping) else {"subject": entry} for entry in triggers]
    for number, (entry, trigger) in enumerate(zip(triggers, whole, strict=True)):
        if "stream" in trigger:
            yield from _of_stream(number, trigger, consumers)
            continue
        if "schedule" in trigger or "every" in trigger:
            yield from _of_schedule(number, trigger, scheduled)
            continue
        subject, everywhere = trigger.get("subject"), trigger.get("queue_group") == ""
        if not isinstance(subject, str) or valid_trigger(subject) is not None:
            continue  # which is said elsewhere
        place = _joined(f"triggers[{number}]", "subject") if isinstance(entry, Mapping) else f"triggers[{number}]"
        for earlier, other, other_everywhere in seen:
            if subject == other:
                yield _problem(
                    "duplicate-trigger", f"{shown(subject)} is triggers[{earlier}] already", place, "keep one of them"
                )
            elif everywhere and other_everywhere and overlaps(subject, other):
                yield _problem(
                    "overlapping-triggers",
                    f'{shown(subject)} overlaps {shown(other)} of triggers[{earlier}], and both have queue_group ""',
                    place,
                    "a message on both would run twice in each clone: keep the wider one",
                )
            else:
                continue
            break
        seen.append((number, subject, everywhere))
    for number, trigger in enumerate(whole):
        yield from _failed_come_back(number, trigger, [(at, subject) for at, subject, _ in seen])


def _of_stream(
    number: int, trigger: Mapping[str, Any], consumers: dict[tuple[str, str | None], int]
) -> Iterable[Problem]:
    stream, durable = trigger["stream"], trigger.get("durable")
    if not isinstance(stream, str) or not (durable is None or isinstance(durable, str)):
        return  # which is said elsewhere
    earlier = consumers.setdefault((stream, durable), number)
    if earlier != number:
        yield _problem(
            "duplicate-trigger",
            f"{shown(stream)} has the same consumer in triggers[{earlier}]",
            _joined(f"triggers[{number}]", "stream"),
            "give one of them a durable of its own",
        )


def _of_schedule(
    number: int, trigger: Mapping[str, Any], scheduled: dict[tuple[object, ...], int]
) -> Iterable[Problem]:
    key = "schedule" if "schedule" in trigger else "every"
    when = (key, trigger[key], trigger.get("timezone"))
    if not all(isinstance(part, str | None) for part in when):
        return  # which is said elsewhere
    earlier = scheduled.setdefault(when, number)
    if earlier != number:
        place = _joined(f"triggers[{number}]", key)
        yield _problem("duplicate-trigger", f"is triggers[{earlier}] already", place, "keep one of them")


def _failed_come_back(
    number: int, trigger: Mapping[str, Any], subjects: Sequence[tuple[int, str]]
) -> Iterable[Problem]:
    """What fails must not run the function that it failed in."""
    key = "dead_letter" if "stream" in trigger else "on_failure"
    to, stream_filter = trigger.get(key), trigger.get("filter")
    if not isinstance(to, str) or valid_trigger(to) is not None:
        return  # which is said elsewhere
    ways = [(f"triggers[{at}]", subject) for at, subject in subjects]
    if "stream" in trigger and isinstance(stream_filter, str):
        ways.append(("its own filter", stream_filter))
    for what, pattern in ways:
        if matches(pattern, to):
            yield _problem(
                "comes-back",
                f"{shown(to)} is a subject of {what}: what failed would run again, without end",
                _joined(f"triggers[{number}]", key),
                "name a subject that does not run this function",
            )
            return


# --- the schemas ---------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """start_request.json, a copy of one's own: JSON Schema, draft-07."""
    loaded: dict[str, Any] = json.loads(resources.files("nexlet_models").joinpath("start_request.json").read_bytes())
    return loaded


_KEPT = ("title", "description", "default")


def open_schema() -> str:
    """The schema that is registered, as the string that goes into `start_request_schema`.

    It says what there is and of which type. Unknown keys, forms and combinations pass it, for the nexlet to refuse with
    a place, a reason and the next step.
    """
    whole = schema()
    return json.dumps({"$schema": whole["$schema"], **_opened(whole, whole)}, separators=(",", ":"))


def trigger_kinds(whole: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of the schema about triggers that are objects, by the key that makes a trigger one of that kind."""
    part = whole["properties"]["triggers"]["items"]["else"]
    kinds: dict[str, dict[str, Any]] = {}
    while "if" in part:
        kinds[part["if"]["required"][0]] = _definition(part["then"], whole)
        part = part["else"]
    return {"subject": _definition(part, whole), **kinds}


def _definition(part: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = whole["definitions"][part["$ref"].rpartition("/")[2]]
    return found


def _opened(part: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        part = _definition(part, whole)
    kept = {name: part[name] for name in _KEPT if name in part}
    if "type" in part:
        kept["type"] = part["type"]
    properties = part.get("properties", {})
    if part is whole["properties"]["triggers"]["items"]:
        for one in trigger_kinds(whole).values():
            properties = {**properties, **one["properties"]}
    if properties:
        kept["properties"] = {name: _opened(inner, whole) for name, inner in properties.items()}
    for name in ("items", "additionalProperties"):
        if isinstance(part.get(name), Mapping):
            kept[name] = _opened(part[name], whole)
    return kept
