"""`invoke --local`: one invocation of a folder's function in a real worker, without NATS.

The worker is the one of the testing kit and of a node: same process, policy, limits and profile. Secrets come from the
folder that `dev` takes them from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nexlet_functions.cli import ahead
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.output import Output

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_functions.testing import SampleEvent

__all__ = ["Message", "find_event", "invoke_local", "secrets_of"]

_NAMESPACE = "demo"
"""Whose secrets a function gets here; the namespace of `dev`."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent.

    Attributes:
        subject: "" for the function's only trigger, or the event's.
        payload: None for the event's.
        headers: beside the event's.
        event: the sample event that it begins with.
        reply: whether an answer is waited for.
        words: what stands for the wildcards of its trigger.
    """

    subject: str
    payload: bytes | None
    headers: Mapping[str, str]
    event: SampleEvent | None
    reply: bool
    words: Sequence[str] = ()


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
    from nexlet_functions.cli.answers import Answer, body_fields, show
    from nexlet_functions.cli.remote import pick
    from nexlet_functions.cli.watching import LogRecord
    from nexlet_functions.nexfile import read_function
    from nexlet_functions.testing import load_function
    from nexlet_models.start_request import Trigger

    function = read_function(folder)
    subject = message.subject
    if message.words:
        patterns = [trigger.subject for trigger in function.start.triggers if isinstance(trigger, Trigger)]
        _, subject = pick(function.name, patterns, subject, message.words)
    secrets = await secrets_of(function, secrets_dir)
    async with load_function(folder, secrets=secrets, launched=ahead.take()) as loaded:
        try:
            result = await loaded.invoke(
                message.event,
                data=message.payload,
                subject=subject,
                headers=message.headers,
                reply="_INBOX.local" if message.reply else "",
            )
        except ValueError as error:  # the subject, or the deadline among the headers
            raise CommandFailed(Exit.USAGE, "invalid-message", str(error)) from None
        lines = [*loaded.load_logs, *result.logs]
    expected = message.event is not None and bool(message.event.expect)
    fields = {"ok": result.ok, "code": result.code, "error": result.error or None, "headers": dict(result.headers)}
    answer = Answer(
        subject=subject or (message.event.subject if message.event else ""),
        fields=fields | body_fields(result.data),
        outcome=result.outcome.value,
        invocation_id=result.invocation_id,
        logs=[LogRecord(function.name, line.stream, line.text) for line in lines],
        traceback=result.traceback,
        metrics=result.metrics,
        duration_ms=result.duration_ms,
        queue_ms=result.queue_ms,
        cpu_ms=result.cpu_ms,
        peak_memory_bytes=result.peak_memory_bytes,
        profile=function.start.sandbox or _default_profile(),
        differences=result.differences(message.event) if message.event is not None and expected else None,
    )
    show(answer, output)
    return answer.fine


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
