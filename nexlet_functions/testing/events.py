"""Sample events: messages for a function, kept beside it with what is expected of the answer.

`events/NAME.json` of a function's folder is one `SampleEvent`:

    {
      "subject": "orders.eu.total",
      "headers": {"Content-Type": "application/json"},
      "json": {"items": [{"sku": "A1", "qty": 2}]},
      "expect": {"outcome": "ok", "json": {"total": "19.80"}}
    }

The payload is one of `json`, `data` (text) and `base64`; none of them is an empty one. `subject` may be left out where
the function has one trigger without wildcards. `expect` says what has to come back, and only what it names is compared:
`outcome` (default `ok`), `code`, one of `json`, `text` and `base64`, `headers` (those named), `error` (a part of it).

An event that `nexfn dev --record` made says so in `recorded`: of which function, when, and which places were `masked`.
There `***` stands for anything.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nexlet_functions.documents import Document, DocumentRefused, read_document
from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.testing.comparing import MASK, compact, json_differences, matches_masked
from nexlet_models.problems import Problem, render
from nexlet_sandboxes.outcomes import Outcome

__all__ = ["EventRefused", "SampleEvent", "parse_event", "read_event", "sample_events"]

_KEYS = ("subject", "headers", "json", "data", "base64", "expect", "description", "recorded")
_EXPECT_KEYS = ("outcome", "code", "json", "text", "base64", "headers", "error")
_RECORDED_KEYS = ("function", "at", "masked")
_PAYLOADS = ("json", "data", "base64")
_BODIES = ("json", "text", "base64")


class EventRefused(NexletFunctionsError):
    """A sample event that cannot be read.

    Attributes:
        name: of the file.
        problems: every reason.
    """

    code = "event-refused"

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(render(name, self.problems))


@dataclass(frozen=True, slots=True)
class SampleEvent:
    """One message, and what is expected of its answer.

    Attributes:
        name: of the file, without its ending.
        subject: "" where the function's only trigger is meant.
        payload: the bytes.
        headers: of the message.
        expect: as in the file, checked; empty where nothing but `ok` is expected.
        function: of which it was recorded; "" where somebody wrote it.
        masked: places of the file that are not what was recorded: `headers.Authorization`, `expect.json.token`.
    """

    name: str
    subject: str = ""
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    function: str = ""
    masked: frozenset[str] = frozenset()

    def differences(
        self,
        *,
        outcome: str,
        code: int | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        error: str | None = None,
    ) -> list[str]:
        """What came back otherwise than expected, a line each; empty where all is as it should be.

        Args:
            outcome, code, data, headers, error: of the answer. None, but for the outcome: it cannot be seen from here
                (a function that does not answer), and is not compared.
        """
        expect = self.expect
        found: list[str] = []
        wanted = expect.get("outcome", Outcome.OK.value)
        if outcome != wanted:
            found.append(f"outcome: expected {wanted}, got {outcome}{f' ({error})' if error else ''}")
        if code is not None and expect.get("code", code) != code:
            found.append(f"code: expected {expect['code']}, got {code}")
        if error is not None and not self._is_part("error", expect.get("error", ""), error):
            found.append(f"error: expected {expect['error']!r} in {error!r}")
        if Outcome.OK in (outcome, wanted) and outcome != wanted:
            return found  # one is an answer and the other is none: that says all
        if data is not None:
            found += self._body_differences(data)
        if headers is not None:
            have = {name.lower(): value for name, value in headers.items()}
            for name, value in expect.get("headers", {}).items():
                if not self._is(f"headers.{name}", value, have.get(name.lower())):
                    found.append(f"header {name}: expected {value!r}, got {have.get(name.lower())!r}")
        return found

    def _is(self, place: str, expected: str, got: str | None) -> bool:
        """Whether a text is the one that is expected at that place of `expect`."""
        if got is None or f"expect.{place}" not in self.masked:
            return got == expected
        return matches_masked(expected, got)

    def _is_part(self, place: str, expected: str, got: str) -> bool:
        if f"expect.{place}" in self.masked:
            return matches_masked(f"{MASK}{expected}{MASK}", got)
        return expected in got

    def _body_differences(self, data: bytes) -> list[str]:
        expect = self.expect
        if "text" in expect and not self._is("text", expect["text"], data.decode("utf-8", "surrogateescape")):
            return [f"text: expected {expect['text']!r}, got {data.decode('utf-8', 'replace')!r}"]
        if "base64" in expect and "expect.base64" not in self.masked and data != base64.b64decode(expect["base64"]):
            return [f"base64: expected {expect['base64']}, got {base64.b64encode(data).decode()}"]
        if "json" in expect:
            try:
                got = json.loads(data)
            except ValueError:
                return [f"json: expected JSON, got {data[:200]!r}"]
            masked = {each.removeprefix("expect.") for each in self.masked}
            return json_differences(expect["json"], got, at="json", masked=masked)
        return []

    def __str__(self) -> str:
        return self.name


def sample_events(folder: str | Path) -> list[SampleEvent]:
    """The sample events of a function's folder, in the order of their names; none where there is no `events/`.

    Raises:
        EventRefused: some of them are not what they should be; the text has the lines.
    """
    events: list[SampleEvent] = []
    refused: list[EventRefused] = []
    for file in sorted((Path(folder) / "events").glob("*.json")):
        try:
            events.append(read_event(file))
        except EventRefused as error:
            refused.append(error)
    if refused:
        name = refused[0].name if len(refused) == 1 else "events"
        raise EventRefused(name, [problem for each in refused for problem in each.problems])
    return events


def read_event(file: Path) -> SampleEvent:
    """One sample event.

    Raises:
        EventRefused: it is not what it should be; the text has the line.
    """
    name = f"{file.absolute().parent.name}/{file.name}"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EventRefused(name, [Problem(f"cannot be read: {error}", name, code="event-unreadable")]) from None
    return parse_event(text, name)


def parse_event(text: str, name: str) -> SampleEvent:
    """The sample event that a file of that name and content is.

    Raises:
        EventRefused: see `read_event`.
    """
    try:
        _refuse_other_than_json(text, name)
        document = read_document(text, name)
    except DocumentRefused as refused:
        raise EventRefused(name, list(refused.problems)) from None
    problems = _problems(document)
    if problems:
        raise EventRefused(name, problems)
    value = document.value
    recorded = value.get("recorded", {})
    return SampleEvent(
        name=name.rpartition("/")[2].removesuffix(".json"),
        subject=value.get("subject", ""),
        payload=_payload(value),
        headers=value.get("headers", {}),
        expect=value.get("expect", {}),
        function=recorded.get("function", ""),
        masked=frozenset(recorded.get("masked", ())),
    )


def _refuse_other_than_json(text: str, name: str) -> None:
    """What reads a document takes YAML as well, but an event is JSON: other programs read it, and `NaN` is no number.

    Raises:
        EventRefused: it is not.
    """
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        at = text[error.pos : error.pos + 3]
        advice = next((said for start, said in _NOT_JSON.items() if at.startswith(start)), _AN_EVENT)
        line = text.split("\n")[error.lineno - 1]
        problem = Problem(
            f"is not JSON: {error.msg}", name, error.lineno, error.colno, 0, line, advice, code="event-syntax"
        )
        raise EventRefused(name, [problem]) from None


_AN_EVENT = 'an event is written as {"json": {...}}'
_NOT_JSON = {
    "'": "JSON has double quotes",
    "NaN": "JSON has no NaN: write null, or a text",
    "Inf": "JSON has no infinity: write null, or a text",
    "//": "JSON has no comments: a note may stand in 'description'",
    "#": "JSON has no comments: a note may stand in 'description'",
    ",": "take the comma away",
    "Tru": "JSON writes true",
    "Fal": "JSON writes false",
    "Non": "JSON writes null",
}
"""By what stands where it stops to be JSON."""


def _payload(value: Mapping[str, Any]) -> bytes:
    if "json" in value:
        return compact(value["json"]).encode()
    if "data" in value:
        return str(value["data"]).encode()
    return base64.b64decode(value.get("base64", ""))


def _problems(document: Document) -> list[Problem]:
    value = document.value
    if not isinstance(value, dict):
        return [document.problem("", "is not an object", advice='write it as {"json": {...}}', code="event-type")]
    problems = _known(document, "", value, _KEYS)
    problems += _texts(document, "", value, ("subject", "data", "base64", "description"))
    problems += _one_of(document, "", value, _PAYLOADS)
    problems += _headers(document, "headers", value)
    expect = value.get("expect", {})
    if not isinstance(expect, dict):
        return [*problems, document.problem("expect", "'expect' is not an object", code="event-type")]
    problems += _known(document, "expect.", expect, _EXPECT_KEYS)
    problems += _texts(document, "expect.", expect, ("text", "base64", "error"))
    problems += _one_of(document, "expect.", expect, _BODIES)
    problems += _headers(document, "expect.headers", expect)
    outcomes = [each.value for each in Outcome]
    if expect.get("outcome", "ok") not in outcomes:
        problems.append(
            document.problem(
                "expect.outcome",
                f"there is no outcome {expect['outcome']!r}",
                advice=f"one of: {', '.join(outcomes)}",
                code="event-outcome",
            )
        )
    if not isinstance(expect.get("code", 0), int):
        problems.append(document.problem("expect.code", "'code' is not a whole number", code="event-type"))
    return problems + _recorded_problems(document, value.get("recorded", {}))


def _recorded_problems(document: Document, recorded: Any) -> list[Problem]:
    if not isinstance(recorded, dict):
        return [document.problem("recorded", "'recorded' is not an object", code="event-type")]
    problems = _known(document, "recorded.", recorded, _RECORDED_KEYS)
    problems += _texts(document, "recorded.", recorded, ("function", "at"))
    masked = recorded.get("masked", [])
    if not isinstance(masked, list) or not all(isinstance(each, str) for each in masked):
        problems.append(document.problem("recorded.masked", "'masked' is not a list of places", code="event-type"))
    return problems


def _known(document: Document, prefix: str, value: Mapping[str, Any], known: tuple[str, ...]) -> list[Problem]:
    return [
        document.problem(
            f"{prefix}{key}",
            f"unknown key '{key}'",
            advice=f"known are: {', '.join(known)}",
            code="event-unknown-key",
            at_key=True,
        )
        for key in value
        if key not in known
    ]


def _texts(document: Document, prefix: str, value: Mapping[str, Any], keys: tuple[str, ...]) -> list[Problem]:
    problems = []
    for key in keys:
        given = value.get(key, "")
        if not isinstance(given, str):
            problems.append(document.problem(f"{prefix}{key}", f"'{key}' is not text", code="event-type"))
        elif key == "base64":
            try:
                base64.b64decode(given, validate=True)
            except (binascii.Error, ValueError) as error:
                problems.append(
                    document.problem(f"{prefix}{key}", f"'{key}' is not base64: {error}", code="event-base64")
                )
    return problems


def _one_of(document: Document, prefix: str, value: Mapping[str, Any], keys: tuple[str, ...]) -> list[Problem]:
    given = [key for key in keys if key in value]
    return [
        document.problem(
            f"{prefix}{key}", f"both '{given[0]}' and '{key}'", advice="keep one", code="event-twice", at_key=True
        )
        for key in given[1:]
    ]


def _headers(document: Document, path: str, value: Mapping[str, Any]) -> list[Problem]:
    headers = value.get("headers", {})
    if isinstance(headers, dict) and all(isinstance(each, str) for each in headers.values()):
        return []
    return [document.problem(path, "'headers' is not an object of texts", code="event-type")]
