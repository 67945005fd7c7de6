"""The stream that keeps dead letters: looked through, and what is in it sent back or thrown away.

A letter is sent back to the subject that it failed on, as it was, with a header that says what became of it before. It
leaves the stream of dead letters when its old place has it again: a stream has acknowledged it, or, where it came from
a plain subject, a function has answered that it is done; one that never answers does so this once, since a header
asks it to. Others may answer on that subject as well, functions of the same namespace among them, and are not listened
to: an answer says whose it is. Sent back twice (somebody stopped in between) a letter has the same message id, so that
its stream keeps it once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import orjson

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.natsio.asking import Answer, Questions
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, NoResponders, RequestTimeout
from nexlet_functions.natsio.protocol import decode_headers, encode_headers
from nexlet_functions.streams.api import StoredMessage, delete_message, get_message, stream_info, streams_with
from nexlet_functions.streams.letters import HISTORY, REDRIVEN, Letter, Sender, read_letter
from nexlet_models.events import INVOCATION_HEADER
from nexlet_models.subjects import matches

__all__ = ["Chosen", "DeadLetters", "Entry", "NoDeadLetters", "NotSentBack"]

_STREAM_ANSWERS = 5.0
"""Seconds for a stream to acknowledge."""

_FUNCTION_ANSWERS = 60.0
"""Seconds for a function to answer: its time limit, and a queue before it."""


class NoDeadLetters(NexletFunctionsError):
    """There is no one stream that keeps dead letters of that subject."""

    code = "no-dead-letters"


class NotSentBack(NexletFunctionsError):
    """A letter is not where it came from, and stays among the dead letters."""

    code = "not-sent-back"


@dataclass(frozen=True, slots=True)
class Entry:
    """One dead letter.

    Attributes:
        message: as it is stored; its sequence is what it is called by.
        letter: what its headers say.
    """

    message: StoredMessage
    letter: Letter


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters are meant: those for which all holds that is said.

    Attributes:
        sequences: of these letters; none means any.
        function, reason, subject: whose, how it ended, and what it was published on (wildcards allowed).
    """

    sequences: tuple[int, ...] = ()
    function: str = ""
    reason: str = ""
    subject: str = ""

    @property
    def anything(self) -> bool:
        """Whether nothing is said."""
        return not (self.sequences or self.function or self.reason or self.subject)

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is one of them, its sequence aside."""
        return (
            (not self.function or letter.get("function") == self.function)
            and (not self.reason or letter.get("reason") == self.reason)
            and (not self.subject or matches(self.subject, letter.get("subject")))
        )


class DeadLetters:
    """Those of one subject, in the stream that keeps them.

    Attributes:
        stream: its name.
    """

    def __init__(self, connection: Connection, stream: str, subject: str, last: int) -> None:
        """See `find`."""
        self.stream = stream
        self._connection = connection
        self._subject = subject
        self._last = last

    @classmethod
    async def find(cls, connection: Connection, subject: str) -> DeadLetters:
        """Those that are there now. What comes later is not looked at: it may be what was sent back.

        Args:
            subject: as in `dead_letter` or `on_failure`; wildcards allowed.

        Raises:
            NoDeadLetters: no stream keeps it, or several do.
            JetStreamRefused, NatsioError: the server could not be asked.
        """
        streams = await streams_with(connection, subject)
        if not streams:
            raise NoDeadLetters(
                f"no dead letters of '{subject}': no stream keeps it\n  see which subjects there are: nats stream ls"
            )
        if len(streams) > 1:
            told = [(name, (await stream_info(connection, name)).get("config") or {}) for name in sorted(streams)]
            kept = [f"{name} ({', '.join(config.get('subjects') or ())})" for name, config in told]
            raise NoDeadLetters(
                f"'{subject}' may be in several streams: {', '.join(kept)}\n"
                "  name what one of them keeps: letters have their numbers in it"
            )
        state = (await stream_info(connection, streams[0])).get("state") or {}
        return cls(connection, streams[0], subject, int(state.get("last_seq", 0)))

    async def entries(self, chosen: Chosen) -> AsyncIterator[Entry]:
        """The letters that are meant, oldest first. Other messages of the stream are left out.

        Raises:
            NoDeadLetters: one that was named by its sequence is not there.
            JetStreamRefused, NatsioError: the server could not be asked.
        """
        if chosen.sequences:
            for sequence in chosen.sequences:
                message = await get_message(self._connection, self.stream, sequence)
                letter = read_letter(message.headers) if message is not None else None
                if message is None or letter is None or not letter.get("reason"):
                    raise NoDeadLetters(
                        f"message {sequence} of the stream '{self.stream}' is no dead letter, or not there any more\n"
                        f"  see what is there: nexfn dlq list {self._subject}"
                    )
                if chosen.takes(letter):
                    yield Entry(message, letter)
            return
        sequence = 1
        while sequence <= self._last:
            message = await get_message(self._connection, self.stream, sequence, subject=self._subject)
            if message is None or message.sequence > self._last:
                return
            letter = read_letter(message.headers)
            if letter.get("reason") and chosen.takes(letter):
                yield Entry(message, letter)
            sequence = message.sequence + 1

    async def send_back(self, entry: Entry) -> None:
        """Put a letter where it came from, and take it out of here.

        Raises:
            NotSentBack: it could not be, and is still here.
            JetStreamRefused, NatsioError: it is where it came from, and could not be taken out of here.
        """
        message, letter = entry.message, entry.letter
        subject, stream = letter.get("subject"), letter.get("stream")
        whose = Sender(letter.get("namespace"), letter.get("function"), letter.get("workload"))
        headers = {
            **letter.headers,
            HISTORY: "; ".join([*letter.history, letter.round()]),
            "Nats-Msg-Id": f"redrive:{self.stream}:{message.sequence}:{message.time}",
        }
        if stream:
            headers["Nats-Expected-Stream"] = stream
        else:
            headers[REDRIVEN] = whose.full_name
            headers[INVOCATION_HEADER] = "?"  # has an answer that went well say as much as one that did not

        def meant(answer: Answer) -> bool:
            # On a subject that a stream keeps, and that functions listen on as well, all of these may answer.
            said = decode_headers(answer.headers)
            return "workload_id" not in said if stream else said.get(REDRIVEN) == whose.full_name

        try:
            answer = await self._ask(
                subject, message.payload, headers, _STREAM_ANSWERS if stream else _FUNCTION_ANSWERS, meant
            )
        except NoResponders:
            who = f"the stream '{stream}' does not keep" if stream else "no function listens on"
            raise NotSentBack(f"{who} '{subject}' any more") from None
        except RequestTimeout:
            who = "nobody" if stream else f"'{whose.full_name}'"
            said = "has answered" if stream else "has not answered"
            raise NotSentBack(f"{who} {said} on '{subject}' in time; it may have been taken all the same") from None
        except NatsioError as error:
            raise NotSentBack(str(error)) from None
        if stream:
            _acknowledged(answer.payload, stream)
        elif failed := decode_headers(answer.headers).get("error"):
            raise NotSentBack(f"it failed again: {failed}")
        await self.discard(entry)

    async def _ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str], within: float, meant: Callable[[Answer], bool]
    ) -> Answer:
        questions = Questions(self._connection)
        try:
            await questions.open()
            return await questions.ask(
                subject,
                payload,
                headers=encode_headers(headers),
                deadline_ns=time.monotonic_ns() + int(within * 1e9),
                meant=meant,
            )
        except ValueError as error:  # larger than the server takes now, or no subject at all
            raise NotSentBack(str(error)) from None
        finally:
            await questions.close()

    async def discard(self, entry: Entry) -> None:
        """Take a letter out of here. Raises as `streams.api.ask` does."""
        await delete_message(self._connection, self.stream, entry.message.sequence)


def _acknowledged(payload: bytes, stream: str) -> None:
    try:
        said = orjson.loads(payload)
        error = said.get("error")
        if error is None and said["stream"] == stream:
            return
        reason = str(error["description"]) if error is not None else f"the stream '{said['stream']}' took it"
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = "somebody answered who is no stream"
    raise NotSentBack(f"the stream '{stream}' did not take it: {reason}")
