"""`invoke`: one request to a subject, and what came back; with `--local`, to a folder's function, without NATS."""

from __future__ import annotations

import asyncio
import base64
import json as json_
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexlet_functions.cli.completion import function_folders, sample_event_names
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import CREDENTIALS, Json, duration, setting_flags
from nexlet_functions.cli.output import Output, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.natsio import Connection, Reply
    from nexlet_functions.settings import Settings

__all__ = ["answer_fields", "answer_text", "body_fields", "body_lines", "invoke"]

CONNECT_TIMEOUT = 2.0
"""Seconds to wait for a server that does not answer at once: long enough for one that is just starting."""

TIMEOUT = "5s"
"""How long an answer is waited for; with `--local` the function's own limit decides."""

_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):\s*([^\x00-\x1f\x7f]*)")


@setting_flags(NATS=CREDENTIALS)
def invoke(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="[SUBJECT]",
            help="A trigger subject of the function; not needed where an event or --local tells.",
            show_default=False,
        ),
    ] = "",
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA|@FILE|-]", help="The payload: text, a file's content, or standard input.", show_default=False
        ),
    ] = None,
    *,
    local: Annotated[
        Path | None,
        typer.Option(
            "--local",
            "-l",
            envvar="NEXFN_LOCAL",
            metavar="DIR",
            help="Run the function of this folder in a worker here, without NATS.",
            show_default=False,
            autocompletion=function_folders,
        ),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(
            "--event",
            "-e",
            envvar="NEXFN_EVENT",
            metavar="FILE",
            help="A sample event to send; with --local its name will do, and what it expects is compared.",
            show_default=False,
            autocompletion=sample_event_names,
        ),
    ] = None,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(
            "--secrets-dir",
            envvar="NEXFN_SECRETS_DIR",
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="With --local: where secrets are, demo/KEY. [default: 'secrets' in DIR or beside it]",
            show_default=False,
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            # Read below: typer would split what is in a variable at the space after the colon.
            help="A header; may be repeated. In NEXFN_HEADER, one a line.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            help="How long to wait for the answer. The function is told, and does not run for longer.",
            envvar="NEXFN_TIMEOUT",
            show_default=TIMEOUT,
        ),
    ] = None,
    no_reply: Annotated[
        bool,
        typer.Option(
            "--no-reply",
            help="Publish and wait for nothing: for functions that do not answer.",
            envvar="NEXFN_NO_REPLY",
        ),
    ] = False,
    json: Json = None,
    flags: Mapping[str, object],
) -> None:
    """Send a message to a function and print its answer.

    Ends with 0 for an answer, 1 for an error as the answer, 3 where nobody listens, 4 where nobody answers in time.
    """
    from nexlet_functions.cli.local import Message, find_event, invoke_local
    from nexlet_functions.functions.deadlines import DEADLINE_HEADER
    from nexlet_models.subjects import valid_subject

    set_up_logging(level="error")
    folder = _function_folder(local) if local is not None else None
    sample = find_event(event, folder) if event is not None else None
    on = subject or (sample.subject if sample is not None else "")
    reason = valid_subject(on, wildcards=False) if on or folder is None else None
    if reason is not None:
        if not on:
            raise CommandFailed(Exit.USAGE, "subject-missing", "no subject is said", "nexfn invoke SUBJECT [DATA]")
        raise CommandFailed(Exit.USAGE, "invalid-subject", f"'{on}' is no subject to publish on: it {reason}")
    given = header or os.environ.get("NEXFN_HEADER", "").splitlines()
    payload = read_payload(data) if data is not None else None
    headers, wait = read_headers(given), duration(timeout or TIMEOUT, "--timeout")
    output = Output(json=json)
    said = {*headers, *(sample.headers if sample is not None else ())}
    tells = not no_reply and not any(name.lower() == DEADLINE_HEADER.lower() for name in said)
    if tells and (folder is None or timeout is not None):
        headers[DEADLINE_HEADER] = str(max(1, round(wait * 1000)))
    if folder is not None:
        message = Message(subject, payload, headers, sample, reply=not no_reply)
        fine = asyncio.run(invoke_local(folder, message, secrets_dir, output))
    else:
        from nexlet_functions.settings import Settings

        if sample is not None:
            payload, headers = sample.payload if payload is None else payload, {**sample.headers, **headers}
        settings = Settings.read(flags)
        fine = asyncio.run(_invoke(settings, on, payload or b"", headers, wait, output, reply=not no_reply))
    if not fine:
        raise typer.Exit(Exit.FAILED)


def _function_folder(path: Path) -> Path:
    """The one function folder that `--local` means.

    Raises:
        CommandFailed: there are several.
        FunctionRefused: there is none.
    """
    from nexlet_functions.nexfile import find_functions

    found = find_functions([path])
    if len(found) > 1:
        raise CommandFailed(
            Exit.USAGE,
            "several-functions",
            f"{path} has several functions: {', '.join(each.name for each in found)}",
            "name the folder of one",
        )
    return found[0]


async def _invoke(
    settings: Settings,
    subject: str,
    payload: bytes,
    headers: Mapping[str, str],
    timeout: float,
    output: Output,
    *,
    reply: bool,
) -> bool:
    """Whether the function answered, and not with an error."""
    from nexlet_functions.natsio import Connection

    async with await Connection.open(
        settings.credentials(), name="nexfn invoke", timeout=CONNECT_TIMEOUT
    ) as connection:
        size = len(payload) + sum(len(name) + len(value) + 4 for name, value in headers.items())
        if size > connection.max_payload:
            raise CommandFailed(
                Exit.FAILED,
                "payload-too-large",
                f"the message has {size} bytes, and the server takes {connection.max_payload}",
                "put what is large into an object store and send its name",
            )
        if not reply:
            await _publish(connection, subject, payload, headers)
            output.record("published", f"published on {subject} ({len(payload)} bytes)", subject=subject)
            return True
        began = time.perf_counter()
        answer = await connection.request(subject, payload, headers=headers or None, timeout=timeout)
        took = time.perf_counter() - began
    fields = answer_fields(answer)
    output.record("answer", answer_text(fields, took), subject=subject, duration_ms=round(took * 1000, 3), **fields)
    return bool(fields["ok"])


async def _publish(connection: Connection, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
    from nexlet_functions.natsio.protocol import encode_headers

    connection.publish(subject, payload, headers=encode_headers(headers) if headers else b"")
    await connection.flush(CONNECT_TIMEOUT)
    if connection.stats().publish_violations:
        raise CommandFailed(
            Exit.FAILED, "publish-refused", f"the server forbids publishing on {subject}", "use other credentials"
        )


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
    except ValueError:
        return {"text": text}


def answer_text(fields: Mapping[str, Any], took: float) -> list[Any]:
    """The same for a person: the body, and below it how it came."""
    namespace, workload = fields["headers"].get("namespace", ""), fields["headers"].get("workload_id", "")
    by = f" by {namespace}/{workload}" if workload else ""
    return [*body_lines(fields), styled((f"{fields['code']} in {took * 1000:.1f} ms{by}", "dim"))]


def body_lines(fields: Mapping[str, Any]) -> list[Any]:
    """An answer's error, body and headers for a person."""
    if "json" in fields:
        body = json_.dumps(fields["json"], ensure_ascii=False, indent=2)
    else:
        body = fields.get("text", fields.get("base64", ""))
    own = {"workload_id", "namespace", "error", "nats-service-error", "nats-service-error-code", "nex-invocation-id"}
    lines: list[Any] = []
    if not fields["ok"]:
        lines.append(styled((f"error {fields['code']}:", "bold red"), " ", fields["error"]))
    if body and body != fields["error"]:
        lines += body.splitlines()
    return lines + [
        styled((f"{name}: {value}", "cyan")) for name, value in fields["headers"].items() if name.lower() not in own
    ]


def read_payload(data: str) -> bytes:
    """The payload that an argument means: itself, `@FILE`, or `-` for standard input.

    Raises:
        CommandFailed: the file cannot be read.
    """
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise CommandFailed(
            Exit.USAGE, "file-unreadable", f"{data[1:]} cannot be read: {error.strerror or error}"
        ) from None


def read_headers(given: list[str]) -> dict[str, str]:
    """Headers from `Name: value`.

    Raises:
        CommandFailed: one of them is not of that form.
    """
    headers = {}
    for each in given:
        match = _HEADER.fullmatch(each)
        if match is None:
            raise CommandFailed(Exit.USAGE, "invalid-header", f"'{each}' is no header", "write it as 'Name: value'")
        headers[match[1]] = match[2].strip()
    return headers
