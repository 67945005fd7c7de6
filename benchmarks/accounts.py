"""What became of messages: how each one ended, by its function's own word, the nexlet's and the server's.

- `Account` holds the counts against each other; what none of them explains is unaccounted.
- `outcomes` is how a function's invocations ended, as the nexlet tells the node.
- `delivered` is how many messages of a subject the server handed on.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nexlet_functions.control import ControlClient

__all__ = ["COUNTING", "HOW_MANY", "Account", "delivered", "outcomes"]

HOW_MANY = b"how many?"
COUNTING = f"""
seen = []
def handler(event, context):
    if event.data == {HOW_MANY!r}:
        return str(len(seen)) + " " + str(len(set(seen)))
    seen.append(event.text)
"""
"""A function that knows what it ran: how many messages, and how many that were not the same. Of one worker."""


@dataclass(frozen=True, slots=True)
class Account:
    """Of so many messages, which all differ.

    Attributes:
        sent: as the publisher knows, once the server has read them all.
        run: times that one was handled, as whoever handled them counted.
        distinct: of these, messages that were not the same.
        refused: by the nexlet, with an answer, an event and a count each.
        dropped_by_server: never handed to the subscription.
        dropped_by_client: thrown away by the subscriber's client library, over its pending limits.
    """

    sent: int
    run: int
    distinct: int
    refused: int = 0
    dropped_by_server: int = 0
    dropped_by_client: int = 0

    @property
    def twice(self) -> int:
        """How often a message was run that had been run before."""
        return self.run - self.distinct

    @property
    def lost(self) -> int:
        """What was neither run nor refused: known to nobody who could do something about it."""
        return self.sent - self.distinct - self.refused

    @property
    def unaccounted(self) -> int:
        """What is lost and was counted by nobody; below 0, what was counted and never sent."""
        return self.lost - self.dropped_by_server - self.dropped_by_client

    def as_json(self) -> dict[str, int]:
        """For `--json`."""
        return asdict(self) | {"twice": self.twice, "lost": self.lost, "unaccounted": self.unaccounted}


async def outcomes(control: ControlClient, workload_id: str) -> dict[str, int]:
    """Ended invocations of a function, by outcome."""
    (summary,) = await control.workloads([workload_id])
    facts: Mapping[str, str] = summary.metadata or {}
    return {fact.removeprefix("outcome_"): int(count) for fact, count in facts.items() if fact.startswith("outcome_")}


def delivered(monitoring: str, subject: str) -> int:
    """How many messages the server has handed to subscriptions of exactly this subject, closed connections included.

    Args:
        monitoring: of the server.
    """
    with urllib.request.urlopen(f"{monitoring}/connz?subs=detail&state=any&limit=10000", timeout=30) as answer:
        connections = json.load(answer)["connections"]
    return sum(
        int(one["msgs"])
        for connection in connections
        for one in connection.get("subscriptions_list_detail") or ()
        if one["subject"] == subject
    )
