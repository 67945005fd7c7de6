"""One function's subscriptions: live from one moment on, out of the others' way while it is flooded, and ended.

`Listening` goes through these steps with its function. What the server does not let the workload subscribe to becomes a
problem for each trigger, at its place in the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from nexlet_functions.functions.apart import Apart
from nexlet_functions.functions.dispatch import Dispatcher
from nexlet_functions.functions.floods import Floods
from nexlet_functions.functions.refusals import Refusal
from nexlet_functions.functions.triggers import Trigger
from nexlet_functions.runner.agent import AgentError
from nexlet_functions.runner.services import Services, TriggerRefused, TriggerSpec
from nexlet_models.connection import NatsConnectionData
from nexlet_models.problems import Problem
from nexlet_models.start_request import StartRequest
from nexlet_sandboxes.pool import Pool

__all__ = ["Listening"]


class Listening:
    """The subscriptions of one workload.

    Attributes:
        apart: where its messages come; None before any can.
    """

    def __init__(
        self,
        workload_id: str,
        namespace: str,
        creds: NatsConnectionData,
        start: StartRequest,
        triggers: Sequence[Trigger],
        *,
        services: Services,
        floods: Floods,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Nothing is subscribed yet.

        Args:
            creds: what it subscribes with.
            triggers: what `start` says of subjects.
            services: the runner's, which subscribe.
            floods: are told from when to when it listens.
        """
        self.apart: Apart | None = None
        self._workload_id = workload_id
        self._namespace = namespace
        self._creds = creds
        self._start = start
        self._triggers = triggers
        self._services = services
        self._floods = floods
        self._log = log
        self._listens = False

    async def begin(self, dispatcher: Dispatcher, pool: Pool, pulled: Sequence[TriggerSpec]) -> None:
        """Subscribe to all triggers.

        Args:
            pulled: where messages of streams come.

        Raises:
            Refusal: the server forbids some of it, or cannot be reached.
        """
        specs = [*dispatcher.specs(), *pulled]
        if not specs:
            return  # it runs by schedule alone
        entrance = specs[0].sink
        assert entrance is not None, "each trigger has an entrance of its own"
        try:
            registered = await self._services.register_trigger(
                self._workload_id,
                self._namespace,
                self._creds,
                specs,
                entrance,
                # A message may come, and be answered, before the last subscription is confirmed.
                on_connection=dispatcher.answer_on,
            )
        except TriggerRefused as error:
            raise Refusal(*self._problems(error)) from None
        except AgentError as error:
            reason = error.text.partition("\n")[0]
            raise Refusal(Problem(reason, "triggers", advice="try again", code="unreachable")) from None
        self._listens = True
        self.apart = Apart(self._services, dispatcher, pool, registered.connection, self._log)
        self._floods.join(self.apart, asyncio.get_running_loop().time())

    async def stop(self) -> None:
        """End the subscriptions. When this returns, what was delivered is with the pool and nothing more comes.

        Once only, however often it is called: afterwards another function may listen under the same id.
        """
        if self.apart is not None:
            self._floods.leave(self.apart)
            await self.apart.stop()
        if self._listens:
            self._listens = False
            await self._services.unregister_trigger(self._workload_id)

    async def close(self) -> None:
        """Let go of a connection of its own, where it has one: everything is answered."""
        if self.apart is not None:
            await self.apart.close()

    def _problems(self, error: TriggerRefused) -> list[Problem]:
        """A problem for each trigger that the server turned down."""
        return [
            Problem(
                f"'{trigger.subject}' may not be subscribed to"
                + (f": the server says '{permission}'" if permission else ""),
                f"triggers[{trigger.number}].subject" if self._start.triggers else "",
                advice="the credentials of this workload need the permission to subscribe there: ask the operator",
                code="trigger-refused",
            )
            for trigger in self._triggers
            for subject, permission in error.refused
            if subject == trigger.subject
        ] + [
            Problem(
                f"what is pulled from a stream comes on an inbox, which may not be subscribed to: '{permission}'",
                "triggers",
                advice="the credentials of this workload need the permission to subscribe to '_INBOX.>'",
                code="trigger-refused",
            )
            for subject, permission in error.refused
            if subject.startswith("_INBOX.")
        ]
