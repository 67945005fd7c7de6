"""The streams that functions take their messages from, made for a development server.

On a real server nothing makes them behind its operator's back, and a function whose stream is missing is refused.
"""

from __future__ import annotations

import structlog
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from nexlet_models.start_request import StartRequest
from nexlet_models.subjects import overlaps

__all__ = ["make_streams"]

_log = structlog.stdlib.get_logger("nexlet_functions.devnode")


async def make_streams(client: Client, start: StartRequest) -> None:
    """Make what the stream triggers of a function want and the server has not: their streams, and those that keep their
    dead letters. One that cannot be made is left to the refusal of the function, which says what is missing.
    """
    wanted: dict[str, list[str]] = {}
    for trigger in start.stream_triggers:
        subjects = wanted.setdefault(trigger.stream, [])
        subject = trigger.filter or f"{trigger.stream.lower()}.>"
        if not any(overlaps(subject, other) for other in subjects):
            subjects.append(subject)
    stream = client.jetstream()
    for name, subjects in wanted.items():
        try:
            await stream.stream_info(name)
        except NotFoundError:
            await _make(client, name, subjects)
    for letters in [trigger.dead_letter for trigger in start.stream_triggers] + [
        trigger.on_failure for trigger in start.subject_triggers
    ]:
        if letters is None:
            continue
        try:
            await stream.find_stream_name_by_subject(letters)
        except NotFoundError:
            await _make(client, letters.replace(".", "-"), [letters])


async def _make(client: Client, name: str, subjects: list[str]) -> None:
    try:
        await client.jetstream().add_stream(name=name, subjects=subjects)
    except APIError as error:
        _log.warning("a stream cannot be made", stream=name, subjects=subjects, reason=error.description)
    else:
        _log.info("stream made for this run", stream=name, subjects=subjects)
