"""Functions that run by schedule: a real server and bucket, real workers, and a clock that is set by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.devnode.buckets import make_buckets
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.observing.counts import counts_of
from nexlet_functions.schedules.scheduler import Scheduler
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.wallclock import WallClock

BUCKET = "nexlet-schedules"
TELL = """
def handler(event, context):
    if event.scheduled_time is None:
        return "by hand"
    print(event.subject, event.scheduled_time.isoformat(), event.tokens, event.reply == "", len(event.data))
"""
SLOW = """
import time

def handler(event, context):
    time.sleep(1.5)
"""
EVERY_MINUTE = {"every": "1m", "name": "tick"}


class Scheduled:
    """An agent with a clock of its own."""

    def __init__(self, bench: AgentBench, clock: WallClock, scheduler: Scheduler) -> None:
        self.bench = bench
        self.clock = clock
        self._scheduler = scheduler

    async def pass_(self, seconds: float) -> None:
        await self.clock.pass_(seconds, settled=lambda: not self._scheduler._tasks)

    def outcomes(self, workload_id: str = "W1") -> list[str]:
        return [event["outcome"] for event in self.bench.events("WORKLOADTRIGGERED", workload_id)]

    async def facts(self, workload_id: str = "W1") -> dict[str, str]:
        summary = await self.bench.summary(workload_id)
        assert summary is not None
        return summary.metadata or {}


@contextlib.asynccontextmanager
async def nexlet(
    server: EmbeddedServer, *, clock: WallClock | None = None, url: str = "", **flags: Any
) -> AsyncIterator[Scheduled]:
    clock = clock or WallClock(datetime.fromisoformat("2026-03-28T11:59:30+00:00"))
    scheduler = Scheduler(clock)
    async with agent_bench(server, url=url, scheduler=scheduler, **flags) as bench:
        yield Scheduled(bench, clock, scheduler)
    assert len(scheduler) == 0
    assert clock.timers == 0


@pytest.fixture
async def bucket(nats_server: EmbeddedServer) -> None:
    await make_buckets(nats_server.url, BUCKET)


@pytest.fixture
async def scheduled(nats_server: EmbeddedServer, bucket: None) -> AsyncIterator[Scheduled]:
    async with nexlet(nats_server) as one:
        yield one


async def test_it_runs_when_it_is_due(scheduled: Scheduled) -> None:
    """Through the night on which the clocks in Berlin are put forward."""
    at_night = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "name": "nightly"}
    await scheduled.bench.start(source=TELL, triggers=[at_night, "tell.*", EVERY_MINUTE | {"every": "12h"}])
    await scheduled.pass_(60)
    await scheduled.bench.event("WORKLOADTRIGGERED")
    await scheduled.pass_(18 * 3600)
    told = await scheduled.bench.event("WORKLOADTRIGGERED", count=3)
    assert told["outcome"] == "ok"
    await eventually(lambda: len(scheduled.bench.logs()) == 3)
    assert scheduled.bench.logs() == [
        "$SCHEDULE.tick 2026-03-28T12:00:00+00:00 [] True 0",
        "$SCHEDULE.tick 2026-03-29T00:00:00+00:00 [] True 0",
        "$SCHEDULE.nightly 2026-03-29T03:00:00+02:00 [] True 0",
    ]
    assert (await scheduled.bench.ask("tell.me")).data == b"by hand"


async def test_no_message_can_be_taken_for_a_run(scheduled: Scheduled) -> None:
    await scheduled.bench.start(source=TELL, triggers=["tell.*"])
    answer = await scheduled.bench.client.request(
        "tell.me", b"", headers={"Nex-Scheduled-Time": "2026-01-01T00:00:00Z"}, timeout=10
    )
    assert answer.data == b"by hand"


async def test_what_is_told_of_it(scheduled: Scheduled) -> None:
    await scheduled.bench.start(
        source=TELL, triggers=[EVERY_MINUTE, {"schedule": "@daily", "timezone": "Asia/Kolkata"}]
    )
    facts = await scheduled.facts()
    assert facts["triggers"] == ""
    assert facts["schedules"] == "every 1m0s; 0 0 * * * Asia/Kolkata"
    assert facts["schedule_next"] == "2026-03-28T12:00:00Z"
    await scheduled.pass_(60)
    await scheduled.bench.event("WORKLOADTRIGGERED")
    facts = await scheduled.facts()
    assert facts["schedule_run"] == "1"
    assert facts["schedule_next"] == "2026-03-28T12:01:00Z"
    (function,) = scheduled.bench.agent.functions
    assert counts_of(function).numbers["nexlet_function_schedule_runs_total", "run"] == 1


@row("several clones come to the same run")
async def test_clones_share_it(nats_server: EmbeddedServer, bucket: None) -> None:
    """Of six clones on three nexlets each run is one's, whoever is a little ahead."""
    async with contextlib.AsyncExitStack() as stack:
        nexlets = [
            await stack.enter_async_context(
                nexlet(nats_server, clock=WallClock(datetime.fromisoformat(f"2026-03-28T11:59:{30 + number}+00:00")))
            )
            for number in range(3)
        ]
        for number, one in enumerate(nexlets):
            for clone in range(2):
                await one.bench.start(f"W{number}{clone}", source=TELL, triggers=[EVERY_MINUTE])
        for _ in range(5):
            await asyncio.gather(*(one.pass_(60) for one in nexlets))
        await eventually(lambda: len([m for m in nexlets[0].bench.heard if m.subject.endswith(".stdout")]) >= 5)
        ids = [f"W{number}{clone}" for number in range(3) for clone in range(2)]
        lines = [line.split()[1] for workload_id in ids for line in nexlets[0].bench.logs(workload_id=workload_id)]
        assert sorted(lines) == [f"2026-03-28T12:0{minute}:00+00:00" for minute in range(5)]


@row("a run whose predecessor has not ended")
async def test_a_run_whose_predecessor_runs_is_left_out(scheduled: Scheduled) -> None:
    await scheduled.bench.start(source=SLOW, triggers=[{"every": "1s"}], limits={"timeout": "30s"})
    await scheduled.pass_(1)
    await scheduled.pass_(1)
    assert (await scheduled.facts())["schedule_overlapped"] == "1"
    await scheduled.bench.event("WORKLOADTRIGGERED")
    await eventually(lambda: not scheduled._scheduler._tasks)
    await scheduled.pass_(1)
    await scheduled.bench.event("WORKLOADTRIGGERED", count=2)
    facts = await scheduled.facts()
    assert (facts["schedule_run"], facts["schedule_overlapped"]) == ("2", "1")
    assert scheduled.outcomes() == ["ok", "ok"]


async def test_a_run_that_ends_badly_makes_room_for_the_next(scheduled: Scheduled) -> None:
    source = "def handler(event, context):\n    raise ValueError('no')\n"
    await scheduled.bench.start(source=source, triggers=[{"every": "1s"}], limits={"timeout": "30s"})
    for count in (1, 2, 3):
        await scheduled.pass_(1)
        await scheduled.bench.event("WORKLOADTRIGGERED", count=count)
        await eventually(lambda: not scheduled._scheduler._tasks)
    assert scheduled.outcomes() == ["error"] * 3


@row("a run that nobody could begin in time")
async def test_what_was_missed_while_nobody_was_there(nats_server: EmbeddedServer, bucket: None) -> None:
    triggers = [{"schedule": "0 12 * * *", "missed": policy, "name": policy} for policy in ("skip", "once")]
    triggers[0]["schedule"] = "0 13 * * *"
    async with nexlet(nats_server) as before:
        await before.bench.start(source=TELL, triggers=triggers)
    later = WallClock(datetime.fromisoformat("2026-03-30T20:00:00+00:00"))
    async with nexlet(nats_server, clock=later) as after:
        await after.bench.start("W2", existing=True, source=TELL, triggers=triggers)
        await after.pass_(60)
        await eventually(lambda: after.bench.logs(workload_id="W2"))
        assert after.bench.logs(workload_id="W2") == ["$SCHEDULE.once 2026-03-30T12:00:00+00:00 [] True 0"]
        facts = await after.facts("W2")
        assert (facts["schedule_run"], facts["schedule_missed"]) == ("1", "1")


async def test_what_is_stopped_runs_no_more(scheduled: Scheduled) -> None:
    await scheduled.bench.start(source=TELL, triggers=[EVERY_MINUTE])
    await scheduled.bench.agent.stop_workload("W1", "acme")
    await scheduled.pass_(600)
    await scheduled.bench.event("WORKLOADSTOPPED")
    assert scheduled.outcomes() == []


@row("NATS is away when a run is due")
async def test_a_server_that_is_away_for_a_moment(nats_server: EmbeddedServer, scheduled: Scheduled) -> None:
    """The run is made as soon as it is back; nothing is run twice."""
    await scheduled.bench.start(source=TELL, triggers=[EVERY_MINUTE])
    await nats_server.kill()
    await scheduled.clock.pass_(31)  # what was begun waits for its server
    await nats_server.start()
    await eventually(
        lambda: not scheduled._scheduler._tasks, within=20, what="it is back, or was waited for long enough"
    )
    await scheduled.pass_(2)
    facts = await scheduled.facts()
    assert (facts["schedule_run"], facts.get("schedule_error")) == ("1", None)


@row("a schedule whose bucket or permission is missing")
async def test_without_a_bucket_it_is_refused(nats_server: EmbeddedServer) -> None:
    async with nexlet(nats_server, schedules_bucket="ticks") as one:
        refused = await one.bench.refusal(source=TELL, triggers=["tell.*", EVERY_MINUTE])
        assert refused.status == 404
        assert "triggers[1]" in refused.text
        assert "nats kv add ticks" in refused.text


async def test_without_jetstream_it_is_refused() -> None:
    async with EmbeddedServer(jetstream=False) as server, nexlet(server) as one:
        refused = await one.bench.refusal(source=TELL, triggers=[EVERY_MINUTE])
        assert "enable JetStream" in refused.text


@pytest.mark.parametrize("lacks", ["$JS.API.STREAM.MSG.GET.KV_nexlet-schedules", "$KV.nexlet-schedules.acme.>"])
async def test_without_a_permission_it_is_refused(lacks: str) -> None:
    config = f"""
    authorization {{ users = [
      {{ user: admin, password: admin }}
      {{ user: lacking, password: x, permissions: {{ publish: {{ deny: "{lacks}" }} }} }}
      {{ user: enough, password: x, permissions: {{
        publish: ["$JS.API.STREAM.MSG.GET.KV_{BUCKET}", "$KV.{BUCKET}.acme.>"], subscribe: "_INBOX.>" }} }}
    ] }}
    """
    async with EmbeddedServer(config=config) as server:
        url = server.url.replace("nats://", "nats://admin:admin@")
        await make_buckets(url, BUCKET)
        async with nexlet(server, url=url) as one:
            asked: dict[str, Any] = {"source": TELL, "triggers": [EVERY_MINUTE]}
            creds = {"nats_user_password": "x"}
            refused = await one.bench.refusal(**asked, creds={**creds, "nats_user_name": "lacking"})
            assert refused.status == 403
            assert "permissions violation" in refused.text.lower()
            assert lacks in refused.text
            await one.bench.start(**asked, creds={**creds, "nats_user_name": "enough"})
            await one.pass_(60)
            await one.bench.event("WORKLOADTRIGGERED")


async def test_an_operator_says_how_often(nats_server: EmbeddedServer, bucket: None, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("defaults: {ceilings: {interval: 30s}}")
    async with nexlet(nats_server, settings_file=file) as one:
        refused = await one.bench.refusal(source=TELL, triggers=[{"every": "10s"}, {"schedule": "* * * * *"}])
        assert refused.status == 403
        assert "triggers[0].every" in refused.text
        assert "30s" in refused.text
        assert "triggers[1]" not in refused.text
