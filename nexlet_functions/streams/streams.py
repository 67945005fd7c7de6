"""All stream triggers of one function: what they need looked at first, then live, then ended.

`Streams` goes through the steps of a function's start and end with it (`functions.function`): nothing is made until
everything else of the start has gone well; messages end before workers do, and what did not end is given back at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple

from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.natsio.complaints import Violation
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.errors import NatsioError, SubscriptionRefused
from nexlet_functions.natsio.subscriptions import Subscription
from nexlet_functions.runner.services import TriggerSpec
from nexlet_functions.streams.consumers import Wanted, look, make, wanted
from nexlet_functions.streams.letters import Sender
from nexlet_functions.streams.puller import Puller
from nexlet_functions.streams.pulls import Way
from nexlet_models.problems import Problem
from nexlet_models.start_request import StartRequest, StreamTrigger
from nexlet_sandboxes.pool import Pool

__all__ = ["Streams"]

_LETTERS_WITHIN = 2.0
"""Seconds for dead letters that are on their way when a function ends."""


class Streams:
    """The stream triggers of one function.

    Attributes:
        consumers: one for each, in the order of the request.
    """

    def __init__(self, start: StartRequest, sender: Sender) -> None:
        """Nothing is asked yet."""
        self.consumers: Sequence[Wanted] = tuple(
            wanted(trigger, number, sender.namespace, sender.name)
            for number, trigger in enumerate(start.triggers)
            if isinstance(trigger, StreamTrigger)
        )
        self._sender = sender
        self._there: list[bool] = []
        self._pullers: list[Puller] = []
        self._connection: Connection | None = None
        self._subscriptions: list[Subscription] = []

    def __bool__(self) -> bool:
        return bool(self.consumers)

    # --- the way in --------------------------------------------------------------------------------------------------

    async def look(self, connection: Connection) -> None:
        """See whether all that is needed is there, or can be made. Nothing is made.

        Raises:
            Refusal: with everything that is wrong.
        """
        found = await asyncio.gather(*(look(connection, one) for one in self.consumers), return_exceptions=True)
        problems: list[Problem] = []
        for outcome in found:
            if isinstance(outcome, Refusal):
                problems += outcome.problems
            elif isinstance(outcome, BaseException):
                raise outcome
        if problems:
            raise Refusal(*problems)
        self._there = [outcome is True for outcome in found]

    def specs(self, connection: Connection, pool: Pool, way: Way, *, max_hops: int) -> list[TriggerSpec]:
        """Where messages come, to be subscribed to with the function's other triggers.

        Args:
            connection: theirs, which stays until `close`.
            way: takes what the consumers are told.
        """
        self._connection = connection
        self._pullers = [
            Puller(
                one,
                inbox=f"_INBOX.{secrets.token_hex(11)}",
                pattern=one.number,
                pool=pool,
                way=way,
                connection=connection,
                sender=self._sender,
                max_hops=max_hops,
            )
            for one in self.consumers
        ]
        return [TriggerSpec(f"{puller.inbox}.*.*", sink=puller) for puller in self._pullers]

    async def begin(self) -> None:
        """Make the consumers that are missing, and ask for messages.

        Raises:
            Refusal: a permission is missing, or a consumer cannot be made.
        """
        connection = self._connection
        if connection is None or not self.consumers:
            return
        try:
            await self._subscribe_letters(connection)
            await self._prove(connection)
        except NatsioError as error:
            problem = Problem(str(error), "triggers", advice="try again", code="unreachable")
            raise Refusal(problem) from None
        for one, there in zip(self.consumers, self._there, strict=True):
            if not there:
                await make(connection, one)
        for puller in self._pullers:
            puller.begin()

    async def _subscribe_letters(self, connection: Connection) -> None:
        """What streams say of dead letters comes until the very end, when the triggers have long gone."""
        for puller, one in zip(self._pullers, self.consumers, strict=True):
            if puller.letters is None:
                continue
            try:
                self._subscriptions.append(
                    await connection.subscribe(f"{puller.inbox}.*", sink=puller.letters, repeatable=True)
                )
            except SubscriptionRefused as refused:
                raise Refusal(
                    one.problem(
                        f"answers cannot be heard: the server says '{refused.permission}'",
                        "allow the credentials of this workload to subscribe to '_INBOX.>'",
                        "trigger-refused",
                    )
                ) from None

    async def _prove(self, connection: Connection) -> None:
        """Say something harmless on the subjects that are going to be published on, to learn what is forbidden.

        A request for messages that cannot be read is answered with an error, and a sign about message 0 is about none.
        """
        refused: dict[str, str] = {}

        def heard(violation: Violation) -> None:
            if violation.kind == "publish":
                refused.setdefault(violation.subject.lower(), violation.text)

        said: list[tuple[Wanted, str]] = []
        forget = connection.on_violation(heard)
        try:
            for one, puller in zip(self.consumers, self._pullers, strict=True):
                pull = f"$JS.API.CONSUMER.MSG.NEXT.{one.stream}.{one.name}"
                ack = f"$JS.ACK.{one.stream}.{one.name}.1.0.0.0.0"
                connection.publish(pull, b"?", reply=f"{puller.inbox}.0.0")
                connection.publish(ack, b"+WPI")
                said += [(one, pull), (one, ack)]
            await connection.flush()
        finally:
            forget()
        problems = [
            one.problem(
                f"its messages cannot be had: the server says '{refused[subject.lower()]}'",
                "allow the credentials of this workload to publish on "
                + ("'$JS.ACK." if subject.startswith("$JS.ACK.") else "'$JS.API.CONSUMER.MSG.NEXT.")
                + f"{one.stream}.{one.name}"
                + (".>'" if subject.startswith("$JS.ACK.") else "'"),
                "trigger-refused",
            )
            for one, subject in said
            if subject.lower() in refused
        ]
        if problems:
            raise Refusal(*problems)

    # --- the way out -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for nothing more."""
        for puller in self._pullers:
            puller.stop()

    async def finish(self) -> None:
        """Give back what has not ended with the workers; dead letters get a moment to be kept."""
        await asyncio.gather(*(puller.finish(_LETTERS_WITHIN) for puller in self._pullers))

    async def close(self) -> None:
        """End all of it, whatever there is."""
        await asyncio.gather(*(puller.close() for puller in self._pullers))
        subscriptions, self._subscriptions = self._subscriptions, []
        for one in subscriptions:
            await one.unsubscribe()

    # --- what is told ------------------------------------------------------------------------------------------------

    def counts(self) -> Counter[str]:
        """Messages so far, by what became of them (see `StreamCounts`); none of a function without streams."""
        counts: Counter[str] = Counter()
        for puller in self._pullers:
            counts.update(asdict(puller.counts))
        return counts

    @property
    def counted(self) -> int:
        """All of `counts` together: another number whenever one of them is."""
        return sum(sum(astuple(puller.counts)) for puller in self._pullers)

    def facts(self) -> dict[str, str]:
        """For the function's metadata."""
        if not self.consumers:
            return {}
        facts = {"streams": ",".join(f"{one.stream}/{one.name}" for one in self.consumers)}
        facts |= {f"stream_{name}": str(count) for name, count in self.counts().items() if count}
        trouble = "; ".join(dict.fromkeys(puller.pulls.trouble for puller in self._pullers if puller.pulls.trouble))
        return facts | ({"stream_trouble": trouble} if trouble else {})
