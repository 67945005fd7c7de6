"""Recorded events found again, and what they expect set to what comes back now.

An event belongs to the function that its file names (`recorded.function`), or, where somebody wrote it, to the folder
that it is in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nexlet_functions.functions.private_files import replace_private
from nexlet_functions.recording.fields import Fields
from nexlet_functions.recording.forms import event_text
from nexlet_functions.recording.masks import Masks
from nexlet_functions.recording.recorder import expectation
from nexlet_functions.testing.comparing import compact
from nexlet_functions.testing.events import EventRefused, SampleEvent, read_event
from nexlet_sandboxes.outcomes import CODES, Outcome

__all__ = ["Came", "Recording", "accept", "differences", "events_in", "expected_of", "outcome_of"]

_OURS: Final = frozenset({"workload_id", "namespace", "nex-invocation-id"})
"""Headers of an answer over NATS that are the nexlet's, and another one's the next time."""

_BY_CODE: Final = {code: outcome for outcome, code in CODES.items() if outcome is not Outcome.REJECTED_BY_FUNCTION}


@dataclass(frozen=True, slots=True)
class Came:
    """What came of an event.

    Attributes:
        seconds: how long it took, or was waited for.
        outcome: None where nobody answered.
        code, data, headers, error: as of `nexlet_functions.testing.Invocation`; None for what cannot be seen.
    """

    seconds: float
    outcome: Outcome | None = None
    code: int | None = None
    data: bytes | None = None
    headers: Mapping[str, str] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """An event and where it is kept."""

    file: Path
    event: SampleEvent


def events_in(path: Path) -> list[Recording]:
    """The event that a file is, or those of a folder and of the folders right below it, in the order of their names.

    Of a function's folder, those in its `events`.

    Raises:
        EventRefused: some of them are not what they should be; the text has the lines.
    """
    if path.is_file():
        files = [path]
    elif (path / "Nexfile").is_file():
        files = sorted((path / "events").glob("*.json"))
    else:
        files = [*sorted(path.glob("*.json")), *sorted(path.glob("*/*.json"))]
    found: list[Recording] = []
    refused: list[EventRefused] = []
    for file in files:
        try:
            found.append(Recording(file, read_event(file)))
        except EventRefused as error:
            refused.append(error)
    if refused:
        name = refused[0].name if len(refused) == 1 else str(path)
        raise EventRefused(name, [problem for each in refused for problem in each.problems])
    return found


def differences(event: SampleEvent, came: Came, ignored: Fields) -> list[str]:
    """What came back otherwise than the event expects, a line each, but for these fields."""
    if came.outcome is None:
        return [f"no answer within {came.seconds:.1f} s"]
    data, expect = came.data, dict(event.expect)
    if ignored.given:
        expect["headers"] = {
            name: value for name, value in expect.get("headers", {}).items() if not ignored.named(name)
        }
        if "json" in expect and data is not None:
            expect["json"] = ignored.without(expect["json"])
            try:
                data = compact(ignored.without(json.loads(data))).encode()
            except ValueError:
                pass  # which the comparison will say
    return replace(event, expect=expect).differences(
        outcome=came.outcome.value, code=came.code, data=data, headers=came.headers, error=came.error
    )


def outcome_of(code: int, *, ok: bool, expected: Mapping[str, Any]) -> Outcome:
    """How an invocation ended whose answer alone is known.

    Args:
        code, ok: of the answer.
        expected: what the event expects. A function may refuse with any code, also one that else means a fault.
    """
    if ok:
        return Outcome.OK
    if expected.get("outcome") == Outcome.REJECTED_BY_FUNCTION and expected.get("code", code) == code:
        return Outcome.REJECTED_BY_FUNCTION
    return _BY_CODE.get(code, Outcome.REJECTED_BY_FUNCTION)


def expected_of(event: SampleEvent, came: Came, secrets: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """What an event expects to which that comes back, and the places of it that were masked.

    Args:
        secrets: values that must not be kept. Nor is what was masked before, of the message or of the answer.
    """
    assert came.outcome is not None, "nothing came"
    return expectation(
        Masks(sorted(filter(None, map(_field_at, event.masked))), secrets=secrets),
        outcome=came.outcome,
        code=came.code or CODES[came.outcome],
        body=came.data or b"",
        headers={name: value for name, value in (came.headers or {}).items() if name.lower() not in _OURS},
        error=came.error or "",
    )


def _field_at(place: str) -> str:
    """The field that `--mask` may have named for a place; "" for none. What was done to one of a list, is to all."""
    kind, _, path = place.removeprefix("expect.").partition(".")
    if kind == "json":
        return ".".join("*" if part.isdecimal() else part for part in path.split(".") if part)
    return path if kind == "headers" else ""


def accept(recording: Recording, expect: Mapping[str, Any], masked: Collection[str]) -> None:
    """Have the file expect that from now on. Everything else in it stays, and so does who may read it.

    Args:
        masked: places of `expect` that are not what came back.

    Raises:
        OSError: it cannot be written.
    """
    value: dict[str, Any] = json.loads(recording.file.read_text(encoding="utf-8-sig"))
    value["expect"] = dict(expect)
    recorded = dict(value.get("recorded", {}))
    kept = [place for place in recorded.get("masked", ()) if not place.startswith("expect.")]
    recorded["masked"] = [*kept, *masked]
    if not recorded["masked"]:
        del recorded["masked"]
    value.pop("recorded", None)
    if recorded:
        value["recorded"] = recorded
    mode = recording.file.stat().st_mode & 0o777
    replace_private(recording.file, event_text(value))
    os.chmod(recording.file, mode)  # noqa: PTH101  # it was made for us alone
