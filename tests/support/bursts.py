"""A burst of messages and its account: every one is run, or refused and counted."""

from __future__ import annotations

from benchmarks.accounts import COUNTING, HOW_MANY, Account
from tests.support.agent import AgentBench
from tests.support.polling import eventually

__all__ = ["burst"]


async def burst(bench: AgentBench, count: int, *, max_pending: int, within: float = 60.0) -> None:
    """Publish `count` messages as fast as it goes, and find each of them again.

    Args:
        within: seconds for all of them to end.
    """
    await bench.start(
        source=COUNTING,
        triggers=["burst"],
        workers={"max": 1},
        limits={"max_pending": max_pending, "queue_timeout": "5m", "timeout": "20s"},
    )
    for number in range(count):
        await bench.client.publish("burst", b"%d" % number)
    (function,) = bench.agent._functions.values()
    assert function._dispatcher is not None
    outcomes = function._dispatcher.counts.outcomes
    await eventually(lambda: sum(outcomes.values()) == count, within=within, what="every message has ended")
    run, distinct = map(int, (await bench.ask("burst", HOW_MANY)).data.split())
    account = Account(count, run, distinct, refused=outcomes["rejected"])
    assert (account.unaccounted, account.twice) == (0, 0), account
    assert run == outcomes["ok"] - 1, "what the nexlet counted is what the function ran, and the question"
    if max_pending > count:
        assert outcomes["rejected"] == 0
    events = count + 1 - function._dispatcher.counts.events_dropped
    await eventually(lambda: len(bench.events("WORKLOADTRIGGERED")) >= events, within=within, what="an event for each")
