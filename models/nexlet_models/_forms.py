"""The forms of single values in a start request: each check raises with a code, a reason and what to write instead.

Types with a capital are what the models of `start_request` are made of; the small functions serve it as well.
"""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Annotated, LiteralString, TypeVar

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from nexlet_models.cron import parse_cron, time_zone
from nexlet_models.durations import parse_duration
from nexlet_models.errors import InvalidDuration, InvalidSchedule, InvalidSize, InvalidTimeZone
from nexlet_models.sizes import parse_size
from nexlet_models.subjects import valid_subject, valid_trigger

PROFILES = ("strict", "isolated", "oneshot", "process", "unsafe-dev")
"""The sandbox profiles that may be asked for."""

SECRET_PREFIX = "secret://"  # noqa: S105  # what a value begins with that names a secret
"""A value of the environment that begins so stands for a secret of the namespace."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The HTTP methods that may be granted."""

ACCESS = ("read", "write")
"""How far a grant of a bucket goes; who may write may read."""

MAX_GRANTS = 256
DELIVER = ("all", "new", "last", "last_per_subject")
"""Where a consumer may begin; words of JetStream's."""

_MAX_PAUSES = 32
ROTATION = ("redeploy", "live")
"""When a changed secret may reach a function that runs."""

MISSED = ("skip", "once")
"""What may become of runs of a schedule that nobody could begin in time."""

OVERLAP = ("skip", "allow")
"""What may become of a run of a schedule whose predecessor has not ended."""

SHORTEST_INTERVAL = 1.0
"""Seconds. What is to run more often is no schedule but a stream of messages."""

MAX_TRIGGERS = 256
MAX_BATCH = 256
"""Events that a handler may be given at a time; a worker is never sent more ahead than so many."""

_MAX_SCHEDULE = 256
_MAX_ZONE = 64
_MAX_SCHEDULE_NAME = 64
_MAX_QUEUE_GROUP = 255
_MAIN_FILE = "function.py"
SHOWN = 80
"""How much of an author's text a message repeats."""


def _wrong(code: LiteralString, reason: str, advice: str = "") -> PydanticCustomError:
    return PydanticCustomError(code, "{reason}", {"reason": reason, "advice": advice})


def _not_null(value: object) -> object:
    if value is None:
        raise _wrong("bad-type", "is null", "leave the key out, or give it a value")
    return value


def shown(text: str) -> str:
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _wrong("bad-text", "has half of a surrogate pair in it", "write it as UTF-8") from None
    return text


def _not_empty(text: str) -> str:
    if not text:
        raise _wrong("empty", "is empty", "define a handler(event, context)")
    return text


def _formed(pattern: str, code: LiteralString, reason: str, advice: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise _wrong(code, f"{shown(text)} {reason}", advice)
        return text

    return AfterValidator(check)


def _duration(*, zero: bool) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not isinstance(value, str):
            raise _wrong("bad-type", f"must be a duration, not {kind(value)}", 'write it as "300ms", "5s" or "1m30s"')
        try:
            seconds = parse_duration(value)
        except InvalidDuration as error:
            raise _wrong("bad-duration", error.reason, error.advice) from None
        if value[:1] in "+-" or (seconds == 0 and not zero):
            least = "0 or more" if zero else "more than 0"
            raise _wrong("bad-duration", f"{shown(value)} is not {least}", "write it as 300ms, 5s or 1m30s")
        return seconds

    return read


def _size(value: object) -> object:
    if not isinstance(value, str):
        raise _wrong("bad-type", f"must be a size, not {kind(value)}", 'write it as "64MiB", "900kB" or "512B"')
    try:
        size = parse_size(value)
    except InvalidSize as error:
        raise _wrong("bad-size", error.reason, error.advice) from None
    if value[:1] == "+" or size == 0:
        raise _wrong("bad-size", f"{shown(value)} is not more than 0", "write it as 64MiB, 900kB or 512B")
    return size


def _whole(least: int, most: int | None = None) -> Callable[[object], object]:
    advice = f"write a number from {least} up" if most is None else f"write a number from {least} to {most}"

    def read(value: object) -> object:
        # JSON has one kind of number: 4.0 is as whole as 4.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong("bad-type", f"must be a whole number, not {kind(value)}", advice)
        if value < least:
            raise _wrong("out-of-range", f"{value} is less than {least}", advice)
        if most is not None and value > most:
            raise _wrong("out-of-range", f"{kind(value)} is more than {most}", advice)
        return value

    return read


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise _wrong("bad-type", f"must be true or false, not {kind(value)}")
    return value


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise _wrong("bad-type", f"must be a text, not {kind(value)}", "put it in quotes" if scalar(value) else "")
    return value


def scalar(value: object) -> bool:
    return isinstance(value, int | float)


def kind(value: object) -> str:
    """What a value is, in JSON's words; a short number or word is shown as well."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value!r}"[:SHOWN]
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list"


def _subject(text: str) -> str:
    reason = valid_trigger(text)
    if reason is not None:
        raise _wrong("bad-subject", f"{shown(text)} {reason}", "write it as orders.created, orders.* or orders.>")
    return text


def _literal(text: str) -> str:
    reason = valid_trigger(text) or valid_subject(text, wildcards=False)
    if reason is not None:
        raise _wrong("bad-subject", f"{shown(text)} {reason}", "write it as orders.failed")
    return text


def _filter(text: str) -> str:
    reason = valid_subject(text, wildcards=True)
    if reason is not None:
        raise _wrong("bad-subject", f"{shown(text)} {reason}", "write it as orders.created, orders.* or orders.>")
    return text


def _name(least: int, most: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not least <= len(text) <= most:
            raise _wrong("bad-name", f"{shown(text)} is not of {least} to {most} characters")
        return text

    return check


def _deliver(text: str) -> str:
    if text not in DELIVER:
        near = difflib.get_close_matches(text, DELIVER, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(DELIVER)}"
        raise _wrong("unknown-deliver", f"{shown(text)} is no place where a consumer begins", advice)
    return text


def _few_pauses(value: object) -> object:
    if isinstance(value, list) and not 1 <= len(value) <= _MAX_PAUSES:
        raise _wrong("bad-backoff", f"has {len(value)} pauses, not 1 to {_MAX_PAUSES}", "write it as [1s, 10s, 1m]")
    return value


def _queue_group(text: str) -> str:
    reason = valid_subject(text, wildcards=False) if text else None
    if reason is None and len(text) > _MAX_QUEUE_GROUP:
        reason = f"is longer than {_MAX_QUEUE_GROUP} characters"
    if reason is not None:
        raise _wrong("bad-queue-group", f"{shown(text)} {reason}", 'name it as a subject is, or "" for all messages')
    return text


def _handler(text: str) -> str:
    if text.startswith("_"):
        raise _wrong("bad-handler", f"{shown(text)} begins with '_'", "give it a public name, such as handler")
    if not (text.isascii() and text.isidentifier()) or keyword.iskeyword(text):
        raise _wrong("bad-handler", f"{shown(text)} is not a name in Python", "name the function to call: handler")
    return text


def _file_name(text: str) -> str:
    stem = text.removesuffix(".py")
    if text == _MAIN_FILE:
        raise _wrong("bad-file-name", f"a helper module cannot be called {_MAIN_FILE}, as the function itself is")
    if stem == text or not (stem.isascii() and stem.isidentifier()) or keyword.iskeyword(stem):
        raise _wrong("bad-file-name", f"{shown(text)} is not the name of a module", "name it as in prices.py")
    return text


def _environment_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith(SECRET_PREFIX) and not _SECRET_KEY.fullmatch(text.removeprefix(SECRET_PREFIX)):
        raise _wrong("bad-secret", "names no secret", "write it as secret://KEY, of letters, digits and . _ -")
    return value


def _profile(text: str) -> str:
    if text not in PROFILES:
        near = difflib.get_close_matches(text, PROFILES, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(PROFILES)}"
        raise _wrong("unknown-profile", f"unknown profile {shown(text)}", advice)
    return text


_SECRET_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)


def _plain_trigger(value: object) -> object:
    if isinstance(value, str):
        return {"subject": value}
    if not isinstance(value, Mapping):
        raise _wrong(
            "bad-type",
            f"must be a subject, or an object with a subject or a stream, not {kind(value)}",
            "write it as orders.created",
        )
    return value


def _schedule(text: str) -> str:
    if len(text) > _MAX_SCHEDULE:
        raise _wrong("bad-schedule", f"is longer than {_MAX_SCHEDULE} characters")
    try:
        return parse_cron(text)
    except InvalidSchedule as error:
        raise _wrong("bad-schedule", error.reason, error.advice) from None


def _time_zone(text: str) -> str:
    if len(text) > _MAX_ZONE:
        raise _wrong("bad-timezone", f"is longer than {_MAX_ZONE} characters")
    try:
        time_zone(text)
    except InvalidTimeZone as error:
        raise _wrong("bad-timezone", error.reason, error.advice) from None
    return text


def _interval(seconds: float) -> float:
    if seconds < SHORTEST_INTERVAL:
        raise _wrong("bad-interval", f"is shorter than {SHORTEST_INTERVAL:g} s", "write it as 1s, 30s or 5m")
    return seconds


def _few_triggers(value: object) -> object:
    if isinstance(value, list) and len(value) > MAX_TRIGGERS:
        raise _wrong("too-many-triggers", f"has {len(value)} triggers, more than {MAX_TRIGGERS}", "use wildcards")
    return value


def _few_grants(value: object) -> object:
    if isinstance(value, list | Mapping) and len(value) > MAX_GRANTS:
        raise _wrong("too-many-grants", f"has {len(value)} entries, more than {MAX_GRANTS}", "use wildcards")
    return value


def _listed(value: object) -> object:
    # One text is a list of its letters nowhere, and a slip that is easily made.
    if isinstance(value, str):
        raise _wrong("bad-type", "must be a list, not a text", f"write it as [{value[:SHOWN]}]")
    return value


def _one_of(words: tuple[str, ...], code: LiteralString, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if text not in words:
            near = difflib.get_close_matches(text.casefold(), [word.casefold() for word in words], n=1)
            meant = [word for word in words if word.casefold() in near]
            advice = f"did you mean {meant[0]}?" if meant else f"there are: {', '.join(words)}"
            raise _wrong(code, f"{shown(text)} is no {what}", advice)
        return text

    return AfterValidator(check)


def _host(text: str) -> str:
    if "://" in text or "/" in text or "@" in text:
        raise _wrong("bad-host", f"{shown(text)} is more than a host", "write the name alone: api.example.com")
    found = _HOST.fullmatch(text)
    if found is None:
        advice = "write it in small letters as api.example.com, *.example.com or api.example.com:8443"
        raise _wrong("bad-host", f"{shown(text)} is no host", advice)
    if found["port"] and not 1 <= int(found["port"]) <= _MAX_PORT:
        raise _wrong("bad-host", f"{found['port']} is no port", f"a port is a number from 1 to {_MAX_PORT}")
    return text


_MAX_PORT = 65535
_HOST = re.compile(
    r"(?:(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.ASCII,
)

_T = TypeVar("_T")
Absent = Annotated[_T | None, BeforeValidator(_not_null)]  # a key may be left out; null is refused
Text = Annotated[str, BeforeValidator(_text), AfterValidator(_encodable)]
Source = Annotated[Text, AfterValidator(_not_empty)]
Duration = Annotated[float, BeforeValidator(_duration(zero=False))]
DurationOrZero = Annotated[float, BeforeValidator(_duration(zero=True))]
Size = Annotated[int, BeforeValidator(_size)]
FileName = Annotated[Text, AfterValidator(_file_name)]
VariableName = Annotated[
    Text,
    _formed(r"[A-Za-z_]\w*", "bad-variable", "is not the name of a variable", "use letters, digits and _"),
]
Value = Annotated[SecretStr, BeforeValidator(_encodable), BeforeValidator(_text), AfterValidator(_environment_value)]
Subject = Annotated[Text, AfterValidator(_subject)]
QueueGroup = Annotated[Text, AfterValidator(_queue_group)]
Literal = Annotated[Text, AfterValidator(_literal)]
Filter = Annotated[Text, AfterValidator(_filter)]
StreamName = Annotated[
    Text,
    AfterValidator(_name(1, 255)),
    _formed(r"[^\s\x00-\x1f\x7f.*>/\\]+", "bad-name", "is not the name of a stream", "as `nats stream ls` shows it"),
]
Durable = Annotated[
    Text,
    AfterValidator(_name(1, 128)),
    _formed("[A-Za-z0-9_-]+", "bad-name", "is not the name of a consumer", "use letters, digits, '-' and '_'"),
]
Deliver = Annotated[Text, AfterValidator(_deliver)]
CronExpression = Annotated[Text, AfterValidator(_schedule)]
Interval = Annotated[Duration, AfterValidator(_interval)]
TimeZone = Annotated[Text, AfterValidator(_time_zone)]
ScheduleName = Annotated[
    Text,
    _formed(
        f"[A-Za-z0-9_-]{{1,{_MAX_SCHEDULE_NAME}}}",
        "bad-schedule-name",
        "is no name of a schedule",
        "use letters, digits, '-' and '_', as in nightly",
    ),
]
Rotation = Annotated[Text, _one_of(ROTATION, "bad-policy", "word for the rotation of secrets")]
Missed = Annotated[Text, _one_of(MISSED, "bad-policy", "word for missed runs")]
Overlap = Annotated[Text, _one_of(OVERLAP, "bad-policy", "word for runs that overlap")]
Handler = Annotated[Text, AfterValidator(_handler)]
Flag = Annotated[bool, BeforeValidator(_flag)]
FromZero = Annotated[int, BeforeValidator(_whole(0))]
FromOne = Annotated[int, BeforeValidator(_whole(1))]
Batch = Annotated[int, BeforeValidator(_whole(1, MAX_BATCH))]
Profile = Annotated[Text, AfterValidator(_profile)]
CurveKey = Annotated[
    Text,
    _formed("X[A-Z2-7]{55}", "bad-key", "is not a public curve key", "it has 56 characters and begins with X"),
]
Base64 = Annotated[
    Text,
    _formed(
        "([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", "bad-base64", "is not base64", "seal it anew"
    ),
]
Uri = Annotated[
    Text,
    _formed(
        r"file:///[^\s\x00-\x1f\x7f]+|nats://[A-Za-z0-9_-]+/[^\s\x00-\x1f\x7f]+",
        "bad-uri",
        "is no place of a source",
        "write it as nats://BUCKET/OBJECT, nats://BUCKET/OBJECT:TAG or file:///PATH",
    ),
]
Sha256 = Annotated[
    Text,
    _formed("[0-9A-Fa-f]{64}", "bad-sha256", "is no SHA-256", "write its 64 hexadecimal digits"),
    AfterValidator(str.lower),
]
Bucket = Annotated[
    Text,
    _formed(r"[A-Za-z0-9_-]{1,255}", "bad-bucket", "is not the name of a bucket", "use letters, digits, - and _"),
]
Access = Annotated[Text, _one_of(ACCESS, "bad-access", "access to a bucket")]
Host = Annotated[Text, AfterValidator(_host)]
Method = Annotated[Text, _one_of(METHODS, "bad-method", "method of HTTP")]
few_grants = BeforeValidator(_few_grants)
listed = BeforeValidator(_listed)
Backoff = Annotated[tuple[DurationOrZero, ...], BeforeValidator(_few_pauses)]
plain_trigger = BeforeValidator(_plain_trigger)
few_triggers = BeforeValidator(_few_triggers)
