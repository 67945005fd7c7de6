"""`invoke --local`: one invocation of a folder's function in a real worker, without NATS.

The worker is the one of the testing kit and of a node: same process, policy, limits and profile. Secrets come from the
folder that `dev` takes them from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexlet_functions.cli import ahead
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.output import Output, styled

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_functions.testing import Invocation, SampleEvent

__all__ = ["Message", "find_event", "invoke_local", "secrets_of"]

_NAMESPACE = "demo"
"""Whose secrets a function gets here; the namespace of `dev`."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent.

    Attributes:
        subject: "" for the function's only trigger, or the event's.
        payload: None for the event's.
        headers: beside the event's.
        event: the sample event that it begins with.
        reply: whether an answer is waited for.
    """

    subject: str
    payload: bytes | None
    headers: Mapping[str, str]
    event: SampleEvent | None
    reply: bool


def find_event(name: str, folder: Path | None) -> SampleEvent:
    """The sample event that `--event` means: a file, as named from here or from the function's folder, or its name.

    Raises:
        CommandFailed: there is none.
        EventRefused: it is not what it should be.
    """
    from nexlet_functions.testing.events import read_event

    candidates = [Path(name)]
    if folder is not None:
        candidates += [folder / name, folder / "events" / name, folder / "events" / f"{name}.json"]
    for candidate in candidates:
        if candidate.is_file():
            return read_event(candidate)
    there = sorted(file.stem for file in (folder / "events").glob("*.json")) if folder is not None else []
    advice = f"there are: {', '.join(there)}" if there else "name a file such as events/first.json"
    raise CommandFailed(Exit.USAGE, "event-missing", f"there is no sample event '{name}'", advice)


async def invoke_local(folder: Path, message: Message, secrets_dir: Path | None, output: Output) -> bool:
    """Run it; whether it did what is expected: what the event says, or else simply that it returned.

    Raises:
        CommandFailed: a secret is missing, or the subject is none of the function's.
        FunctionRefused: what `check` would say.
    """
    from nexlet_functions.nexfile import read_function
    from nexlet_functions.testing import load_function

    function = read_function(folder)
    secrets = await secrets_of(function, secrets_dir)
    async with load_function(folder, secrets=secrets, launched=ahead.take()) as loaded:
        try:
            result = await loaded.invoke(
                message.event,
                data=message.payload,
                subject=message.subject,
                headers=message.headers,
                reply="_INBOX.local" if message.reply else "",
            )
        except ValueError as error:  # the subject, or the deadline among the headers
            raise CommandFailed(Exit.USAGE, "invalid-message", str(error)) from None
        lines = [*loaded.load_logs, *result.logs]
    from nexlet_functions.cli.invoke import body_fields

    subject = message.subject or (message.event.subject if message.event else "")
    expected = message.event is not None and bool(message.event.expect)
    differences = result.differences(message.event) if message.event is not None and expected else []
    fields = {"ok": result.ok, "code": result.code, "error": result.error or None, "headers": dict(result.headers)}
    fields |= body_fields(result.data)
    output.record(
        "answer",
        () if output.json else _text(function, fields, result, lines, differences),
        subject=subject or None,
        duration_ms=round(result.duration_ms, 3),
        **fields,
        outcome=result.outcome.value,
        traceback=result.traceback or None,
        logs=[{"stream": line.stream, "text": line.text} for line in lines],
        metrics=list(result.metrics),
        cpu_ms=round(result.cpu_ms, 3),
        peak_memory_bytes=result.peak_memory_bytes,
        profile=function.start.sandbox or _default_profile(),
        differences=differences if expected else None,
    )
    return not differences if expected else result.ok


def _text(
    function: FunctionFolder,
    fields: Mapping[str, Any],
    result: Invocation,
    logs: list[Any],
    differences: list[str],
) -> list[Any]:
    from nexlet_functions.cli.invoke import body_lines
    from nexlet_functions.cli.watching import LogRecord, readable

    lines = body_lines(fields)
    for line in logs:
        word, style, (first, *rest) = readable(LogRecord(function.name, line.stream, line.text))
        lines += [styled((f"{word:<9}", style), first), *(f"{'':9}{each}" for each in rest)]
    if result.traceback:
        lines += [styled((each, "dim")) for each in result.traceback.splitlines()]
    lines += [styled(("differs  ", "bold red"), each) for each in differences]
    profile = function.start.sandbox or _default_profile()
    used = f"cpu {result.cpu_ms:.1f} ms, peak memory {result.peak_memory_bytes / _MIB:.1f} MiB, profile {profile}"
    return [*lines, styled((f"{result.outcome.value} {result.code} in {result.duration_ms:.1f} ms, {used}", "dim"))]


def _default_profile() -> str:
    from nexlet_sandboxes.profiles import DEFAULT

    return DEFAULT


async def secrets_of(function: FunctionFolder, folder: Path | None) -> dict[str, str]:
    """The secrets that the Nexfile names.

    Raises:
        CommandFailed: one is not there.
    """
    from nexlet_functions.cli.dev import secrets_beside
    from nexlet_functions.runner.secrets import FolderSecrets
    from nexlet_models.start_request import SECRET_PREFIX

    named = [value.get_secret_value() for value in function.start.environment.values()]
    keys = sorted({value.removeprefix(SECRET_PREFIX) for value in named if value.startswith(SECRET_PREFIX)})
    if not keys:
        return {}
    folder = secrets_beside([function.path]) if folder is None else folder
    found: dict[str, str] = {}
    for key in keys:
        secret = await FolderSecrets(folder).get(_NAMESPACE, key) if folder is not None else None
        if secret is None:
            raise CommandFailed(
                Exit.USAGE,
                "secret-missing",
                f"the function wants the secret {key}, and there is none",
                f"put it into the file {folder or 'secrets'}/{_NAMESPACE}/{key}; --secrets-dir names another folder",
            )
        found[key] = secret.get_secret_value()
    return found
