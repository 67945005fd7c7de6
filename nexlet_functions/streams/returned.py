"""What a stop gave back unfinished, which is no attempt: noted where whoever has the message next can read it.

A consumer counts how often it hands a message out and cannot be told to forget one of these times. So the consumer's
own metadata have, under `RETURNED`, how often each message was given back: it is written before the message is, is
there for clones and later versions alike, and goes with the consumer. What is settled is left out the next time that
it is written.

There is no way to change metadata only if they are as they were. Two that stop at the same moment may overwrite each
other, so each looks whether what it wrote is there, and writes again. Where it cannot be written (that takes the
permission to publish on `$JS.API.CONSUMER.CREATE`), a message that was given back has an attempt less.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError
from nexlet_functions.streams.api import JetStreamRefused, ask, consumer_info

if TYPE_CHECKING:
    import structlog

    from nexlet_functions.streams.consumers import Wanted

__all__ = ["MOST", "RETURNED", "Returned", "noted"]

RETURNED: Final = "nexlet-functions-returned"
"""The key of a consumer's metadata: `SEQUENCE:TIMES` of each message, with spaces between them."""

MOST: Final = 1000
"""Messages that are noted at a time, the newest of them: 15 KiB at most, where a server takes 128 (nats ADR-33)."""

_TRIES: Final = 5
_ONE: Final = re.compile(r"([0-9]{1,20}):([0-9]{1,9})")


class Returned:
    """How often messages of one consumer were given back, as far as it is known here."""

    def __init__(self, connection: Connection, wanted: Wanted, log: structlog.stdlib.BoundLogger) -> None:
        """Nothing is known yet."""
        self._connection = connection
        self._wanted = wanted
        self._log = log
        self._known: dict[int, int] = {}
        self._looked_ns = 0

    def times(self, sequence: int) -> int:
        """How often a message was given back."""
        return self._known.get(sequence, 0)

    def knows_since(self, received_ns: int) -> bool:
        """Whether it knows of everything that was noted before a message was received (CLOCK_MONOTONIC)."""
        return self._looked_ns > received_ns

    async def look(self) -> None:
        """Know what is noted now. Where that cannot be had, it is what it was."""
        began = time.monotonic_ns()
        try:
            self._known = noted(await consumer_info(self._connection, self._wanted.stream, self._wanted.name))
        except (JetStreamRefused, NatsioError) as error:
            self._log.info("it is not known what was given back", reason=str(error))
        self._looked_ns = began

    async def note(self, sequences: Iterable[int]) -> None:
        """Note that these are given back. Where that cannot be done, the log says so."""
        mine = set(sequences)
        try:
            for _ in range(_TRIES):
                goal = await self._write(mine)
                now = noted(await consumer_info(self._connection, self._wanted.stream, self._wanted.name))
                mine = {sequence for sequence in mine if now.get(sequence, 0) < goal[sequence]}
                if not mine:
                    return
                await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311  # somebody else writes as well
            reason = "others write as well"
        except (JetStreamRefused, NatsioError) as error:
            reason = str(error)
        self._log.info("what is given back counts as attempts", messages=len(mine), reason=reason)

    async def _write(self, mine: Iterable[int]) -> Mapping[int, int]:
        """Write what is there with one more for each of these, and give back what that is for them."""
        stream, name = self._wanted.stream, self._wanted.name
        info = await consumer_info(self._connection, stream, name)
        config: dict[str, Any] = dict(info.get("config") or {})
        there = noted(info)
        settled = int((info.get("ack_floor") or {}).get("stream_seq", 0))
        goal = {sequence: there.get(sequence, 0) + 1 for sequence in mine}
        every = sorted((there | goal).items())[-MOST:]
        text = " ".join(f"{sequence}:{times}" for sequence, times in every if sequence > settled)
        config["metadata"] = {**(config.get("metadata") or {}), RETURNED: text}
        subject = f"CONSUMER.CREATE.{stream}.{name}"
        if config.get("filter_subject"):
            subject += f".{config['filter_subject']}"
        await ask(self._connection, subject, {"stream_name": stream, "config": config, "action": "update"})
        return goal


def noted(info: Mapping[str, Any]) -> dict[int, int]:
    """What a consumer's metadata say of what was given back: sequence to times. What cannot be read says nothing."""
    text = ((info.get("config") or {}).get("metadata") or {}).get(RETURNED, "")
    return {int(found[1]): int(found[2]) for found in map(_ONE.fullmatch, str(text).split()) if found is not None}
