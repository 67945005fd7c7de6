"""A burst of messages and its account: every one is run, or refused and counted."""

from __future__ import annotations

from tests.support.agent import AgentBench
from tests.support.polling import eventually

__all__ = ["burst"]

COUNTING = """
seen = []
def handler(event, context):
    if event.data == b"how many?":
        return str(len(seen)) + " " + str(len(set(seen)))
    seen.append(event.text)
"""


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
    assert outcomes["ok"] + outcomes["rejected"] == count
    run, distinct = map(int, (await bench.ask("burst", b"how many?")).data.split())
    assert run == distinct == outcomes["ok"] - 1, "and what ran, ran once"
    if max_pending > count:
        assert outcomes["rejected"] == 0
    events = count + 1 - function._dispatcher.counts.events_dropped
    await eventually(lambda: len(bench.events("WORKLOADTRIGGERED")) >= events, within=within, what="an event for each")
