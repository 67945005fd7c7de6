"""`invoke`: one request to a subject, and what came back."""

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

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.logs import set_up_logging
from nexlet_functions.cli.options import CREDENTIALS, Json, duration, setting_flags
from nexlet_functions.cli.output import Output, styled

if TYPE_CHECKING:
    from nexlet_functions.natsio import Connection, Reply
    from nexlet_functions.settings import Settings

__all__ = ["answer_fields", "answer_text", "invoke"]

CONNECT_TIMEOUT = 2.0
"""Seconds to wait for a server that does not answer at once: long enough for one that is just starting."""

_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):\s*([^\x00-\x1f\x7f]*)")


@setting_flags(NATS=CREDENTIALS)
def invoke(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="A trigger subject of the function.")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="[DATA|@FILE|-]", help="The payload: text, a file's content, or standard input.", show_default=False
        ),
    ] = "",
    *,
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
        str,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            help="How long to wait for the answer. The function is told, and does not run for longer.",
            envvar="NEXFN_TIMEOUT",
        ),
    ] = "5s",
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
    from nexlet_functions.functions.deadlines import DEADLINE_HEADER
    from nexlet_functions.settings import Settings
    from nexlet_models.subjects import valid_subject

    set_up_logging(level="error")
    reason = valid_subject(subject, wildcards=False)
    if reason is not None:
        raise CommandFailed(Exit.USAGE, "invalid-subject", f"'{subject}' is no subject to publish on: it {reason}")
    given = header or os.environ.get("NEXFN_HEADER", "").splitlines()
    payload, headers, wait = read_payload(data), read_headers(given), duration(timeout, "--timeout")
    if not no_reply and not any(name.lower() == DEADLINE_HEADER.lower() for name in headers):
        headers[DEADLINE_HEADER] = str(max(1, round(wait * 1000)))
    answered = asyncio.run(
        _invoke(Settings.read(flags), subject, payload, headers, wait, Output(json=json), reply=not no_reply)
    )
    if not answered:
        raise typer.Exit(Exit.FAILED)


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
    try:
        text = answer.payload.decode()
    except UnicodeDecodeError:
        return fields | {"base64": base64.b64encode(answer.payload).decode()}
    try:
        return fields | {"json": json_.loads(text)}
    except ValueError:
        return fields | {"text": text}


def answer_text(fields: Mapping[str, Any], took: float) -> list[Any]:
    """The same for a person: the body, and below it how it came."""
    if "json" in fields:
        body = json_.dumps(fields["json"], ensure_ascii=False, indent=2)
    else:
        body = fields.get("text", fields.get("base64", ""))
    own = {"workload_id", "namespace", "error", "nats-service-error", "nats-service-error-code"}
    lines: list[Any] = []
    if not fields["ok"]:
        lines.append(styled((f"error {fields['code']}:", "bold red"), " ", fields["error"]))
    if body and body != fields["error"]:
        lines += body.splitlines()
    lines += [
        styled((f"{name}: {value}", "cyan")) for name, value in fields["headers"].items() if name.lower() not in own
    ]
    namespace, workload = fields["headers"].get("namespace", ""), fields["headers"].get("workload_id", "")
    by = f" by {namespace}/{workload}" if workload else ""
    return [*lines, styled((f"{fields['code']} in {took * 1000:.1f} ms{by}", "dim"))]


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
