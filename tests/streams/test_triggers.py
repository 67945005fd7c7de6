"""Stream triggers over a real server: what becomes of messages that are handled, fail, wait, or are in the way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.streams.letters import read_letter
from tests.support.agent import AgentBench, agent_bench
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.settle import settle

TELL = """
def handler(event, context):
    print(event.stream, event.sequence, event.attempt, event.subject, event.tokens, repr(event.reply), event.text)
"""

MOODS = """
def handler(event, context):
    mood = event.text
    if mood == "refuse":
        raise Reject(422, "no such order")
    if mood == "raise":
        raise ValueError("bad")
    if mood == "hang":
        while True:
            pass
    if mood == "grow":
        kept = []
        while True:
            kept.append(bytearray(1 << 20))
    if mood == "once" and event.attempt == 1:
        raise ValueError("not yet")
    print(f"{mood} {event.attempt}")
"""

QUICK = {"max_deliver": 2, "backoff": ["10ms"], "dead_letter": "dead.orders"}


def trigger(**more: Any) -> list[dict[str, Any]]:
    return [{"stream": "ORDERS", **more}]


async def publish(bench: AgentBench, *payloads: str, subject: str = "orders.new", **headers: str) -> None:
    for payload in payloads:
        await bench.client.jetstream().publish(subject, payload.encode(), headers=headers or None)


async def settled(bench: AgentBench, consumer: str = "acme-greet") -> None:
    """Everything in the stream has its end."""
    stream = bench.client.jetstream()

    async def ended() -> bool:
        info = await stream.consumer_info("ORDERS", consumer)
        return not info.num_pending and not info.num_ack_pending

    await until(ended)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.02)


async def letters(bench: AgentBench, *, count: int = 0) -> list[tuple[dict[str, str], bytes]]:
    """What is in DEAD, headers and payload, in order; once there are so many."""
    stream = bench.client.jetstream()

    async def there() -> bool:
        return (await stream.stream_info("DEAD")).state.messages >= count

    await until(there)
    info = await stream.stream_info("DEAD")
    found = [await stream.get_msg("DEAD", number + 1) for number in range(info.state.messages)]
    return [(dict(one.headers or {}), one.data or b"") for one in found]


def facts(summary: Any) -> dict[str, str]:
    assert summary is not None
    return {name: value for name, value in summary.metadata.items() if name.startswith("stream")}


async def told(bench: AgentBench, fact: str) -> str:
    """A fact of the function's metadata, once it is there."""

    async def there() -> bool:
        return fact in facts(await bench.summary())

    await until(there)
    return facts(await bench.summary())[fact]


class TestHandled:
    @row("a message of a stream is handled")
    async def test_what_is_there_and_what_comes(self, bench: AgentBench) -> None:
        await publish(bench, "a", "b")
        await bench.start(source=TELL, triggers=trigger(filter="orders.*"))
        await publish(bench, "c", subject="orders.old")
        await eventually(lambda: len(bench.logs()) == 3, what="three lines")
        assert sorted(bench.logs()) == [
            "ORDERS 1 1 orders.new ['new'] '' a",
            "ORDERS 2 1 orders.new ['new'] '' b",
            "ORDERS 3 1 orders.old ['old'] '' c",
        ]
        await settled(bench)
        event = await bench.event("WORKLOADTRIGGERED", count=3)
        assert (event["stream"], event["outcome"], event["attempt"]) == ("ORDERS", "ok", 1)
        summary = await bench.summary()
        assert facts(summary) == {"streams": "ORDERS/acme-greet", "stream_done": "3"}

    async def test_beside_a_subject(self, bench: AgentBench) -> None:
        await bench.start(source=TELL, triggers=["greet.*", *trigger(durable="mine")])
        assert (await bench.ask("greet.now", b"x")).data == b""
        await publish(bench, "y")
        await settled(bench, "acme-mine")
        await eventually(lambda: len(bench.logs()) == 2, what="two lines")
        assert "ORDERS 1 1 orders.new ['orders.new'] '' y" in bench.logs()
        assert bench.logs()[0].startswith(" 0 1 greet.now ['now'] '_INBOX.")

    async def test_thousands_each_once(self, bench: AgentBench) -> None:
        await bench.start(source=TELL, triggers=trigger(), limits={"log_rate": "1MiB"})
        for number in range(3000):
            await bench.client.publish("orders.new", b"%d" % number)
        await bench.client.flush()
        await eventually(lambda: len(bench.events("WORKLOADTRIGGERED")) >= 3000, within=30, what="3000 events")
        await settled(bench)
        assert Counter(one["sequence"] for one in bench.events("WORKLOADTRIGGERED")) == Counter(range(1, 3001))

    async def test_clones_share_and_the_consumer_stays(self, bench: AgentBench) -> None:
        await bench.start("W1", source=TELL, triggers=trigger())
        await bench.start("W2", source=TELL, triggers=trigger())
        await publish(bench, *map(str, range(50)))
        await settled(bench)
        await bench.agent.stop_workload("W1", "acme")
        await publish(bench, "more")
        await settled(bench)
        await bench.agent.stop_workload("W2", "acme")
        counts = [len(bench.events("WORKLOADTRIGGERED", one)) for one in ("W1", "W2")]
        assert sum(counts) == 51
        await publish(bench, "while nobody is there")
        await bench.start("W3", source=TELL, triggers=trigger())
        await settled(bench)
        assert len(bench.events("WORKLOADTRIGGERED", "W3")) == 1

    async def test_a_small_batch_keeps_all_workers_busy(self, bench: AgentBench) -> None:
        source = "import time\n\ndef handler(event, context):\n    time.sleep(0.5)\n"
        await bench.start(source=source, triggers=trigger(batch=1), workers={"max": 3})
        await publish(bench, *map(str, range(6)))
        (function,) = bench.agent.functions
        await eventually(lambda: function.stats is not None and function.stats.busy == 3, what="three at a time")
        await settled(bench)

    async def test_a_stream_with_much_in_it_gets_all_workers(self, bench: AgentBench) -> None:
        """Though no more is fetched of it than these get through soon."""
        source = "import time\n\ndef handler(event, context):\n    time.sleep(0.002)\n"
        for number in range(1000):
            await bench.client.publish("orders.new", b"%d" % number)
        await bench.start(source=source, triggers=trigger(), workers={"max": 3})
        (function,) = bench.agent.functions
        await eventually(lambda: function.stats is not None and function.stats.workers == 3, what="three workers")
        await settled(bench)

    async def test_new_ones_alone(self, bench: AgentBench) -> None:
        await publish(bench, "old")
        await bench.start(source=TELL, triggers=trigger(deliver="new"))
        await publish(bench, "new")
        await eventually(bench.logs, what="a line")
        assert [line.rpartition(" ")[2] for line in bench.logs()] == ["new"]

    @pytest.mark.parametrize("profile", ["isolated", "oneshot"])
    async def test_in_other_profiles(self, bench: AgentBench, profile: str) -> None:
        await publish(bench, *map(str, range(20)))
        await bench.start(source=TELL, triggers=trigger(), sandbox=profile)
        await settled(bench)
        assert bench.agent.functions[0].streams.counts()["done"] == 20

    async def test_a_long_run_is_one_run(self, bench: AgentBench) -> None:
        source = "import time\n\ndef handler(event, context):\n    time.sleep(2.2)\n    print(event.attempt)\n"
        await bench.start(source=source, triggers=trigger(ack_wait="1s"))
        await publish(bench, "a")
        await settled(bench)
        await eventually(bench.logs, what="a line")
        assert bench.logs() == ["1"]
        assert len(bench.events("WORKLOADTRIGGERED")) == 1


class TestFailures:
    @row("a message of a stream fails")
    async def test_it_is_tried_again_and_then_buried(self, bench: AgentBench) -> None:
        await publish(bench, "raise", **{"X-Customer": "42", "Nats-Msg-Id": "one", "Nex-Hops": "3"})
        await bench.start(source=MOODS, triggers=trigger(**QUICK))
        await settled(bench)
        ((headers, payload),) = await letters(bench)
        letter = read_letter(b"NATS/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n")
        assert payload == b"raise"
        assert (headers["X-Customer"], headers["Nex-Hops"]) == ("42", "4")
        assert headers["Nats-Msg-Id"].startswith("dlq:ORDERS:acme-greet:1:")
        said = dict(letter.said)
        event = await bench.event("WORKLOADTRIGGERED", count=2)
        assert event["invocation_id"] == said.pop("invocation")
        assert said.pop("time")
        assert said.pop("traceback").startswith("sha256:")
        assert said == {
            "reason": "error", "code": "500", "error": "ValueError: bad", "attempt": "2", "subject": "orders.new",
            "stream": "ORDERS", "sequence": "1", "consumer": "acme-greet", "namespace": "acme", "function": "greet",
            "workload": "W1",
        }  # fmt: skip

    @pytest.mark.parametrize(("mood", "reason"), [("hang", "timeout"), ("grow", "memory")])
    async def test_whatever_it_fails_of(self, bench: AgentBench, mood: str, reason: str) -> None:
        limits = {"timeout": "200ms" if mood == "hang" else "10s", "memory": "32MiB"}
        await bench.start(source=MOODS, triggers=trigger(**QUICK), limits=limits)
        await publish(bench, mood, "fine")
        await settled(bench)
        ((headers, _),) = await letters(bench)
        assert (headers["Nex-Dlq-Reason"], headers["Nex-Dlq-Attempt"]) == (reason, "2")
        await eventually(lambda: "fine 1" in bench.logs(), what="the one beside it")

    @row("a message of a stream is refused by the function")
    async def test_a_refusal_is_not_tried_again(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=trigger(**QUICK))
        await publish(bench, "refuse")
        await settled(bench)
        ((headers, _),) = await letters(bench)
        assert headers["Nex-Dlq-Reason"] == "rejected_by_function"
        assert (headers["Nex-Dlq-Code"], headers["Nex-Dlq-Error"]) == ("422", "no such order")
        assert len(bench.events("WORKLOADTRIGGERED")) == 1

    async def test_one_whose_end_nobody_ever_saw_is_not_run_for_ever(self, bench: AgentBench) -> None:
        stream = bench.client.jetstream()
        await publish(bench, "killer")
        config = {"ack_policy": "explicit", "max_ack_pending": 1000, "max_deliver": -1}
        await stream.add_consumer("ORDERS", ConsumerConfig(durable_name="acme-greet", **config))  # type: ignore[arg-type]  # nats-py takes the word
        pulled = await stream.pull_subscribe_bind("acme-greet", "ORDERS")
        for _ in range(4):  # as nexlets that are killed with it
            (message,) = await pulled.fetch(1)
            await message.nak()
        await settle(bench.client)
        await bench.start(source=MOODS, triggers=trigger(**QUICK))
        await settled(bench)
        ((headers, _),) = await letters(bench)
        assert headers["Nex-Dlq-Attempt"] == "5"
        assert "an end that nobody saw" in headers["Nex-Dlq-Error"]
        assert bench.logs() == []

    async def test_the_second_attempt_may_do(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=trigger(**QUICK))
        await publish(bench, "once")
        await settled(bench)
        await eventually(bench.logs, what="a line")
        assert bench.logs() == ["once 2"]
        assert await letters(bench) == []

    async def test_without_dead_letters_it_is_given_up_and_counted(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=trigger(max_deliver=1))
        await publish(bench, "raise")
        await settled(bench)
        assert facts(await bench.summary())["stream_dropped"] == "1"

    @row("a dead letter that no stream takes")
    async def test_a_dead_letter_that_nothing_keeps_is_not_the_end(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=trigger(**QUICK))
        await bench.client.jetstream().delete_stream("DEAD")
        await publish(bench, "refuse")
        await told(bench, "stream_unkept")
        info = await bench.client.jetstream().consumer_info("ORDERS", "acme-greet")
        assert (info.num_ack_pending or 0) + (info.num_pending or 0) == 1, "it is still the stream's"

    @row("there is no room for a message of a stream")
    async def test_what_has_no_room_waits(self, bench: AgentBench) -> None:
        """Neither a full queue nor a long wait is an attempt, or an event."""
        source = "import time\n\ndef handler(event, context):\n    time.sleep(0.02)\n    print(event.attempt)\n"
        limits = {"max_pending": 1, "queue_timeout": "5ms"}
        await bench.start(source=source, triggers=["greet", *trigger(max_deliver=1)], limits=limits, workers={"max": 2})
        await publish(bench, *map(str, range(40)))
        await settled(bench)
        await eventually(lambda: len(bench.logs()) == 40, what="forty lines")
        assert set(bench.logs()) == {"1"}
        assert {one["outcome"] for one in bench.events("WORKLOADTRIGGERED")} == {"ok"}
        assert len(bench.events("WORKLOADTRIGGERED")) == 40

    @row("a message goes from function to function without end")
    async def test_a_loop_ends(self, bench: AgentBench) -> None:
        await bench.start(source=TELL, triggers=[*trigger(**QUICK), {"subject": "a", "on_failure": "dead.a"}])
        await publish(bench, "x", **{"Nex-Hops": "17"})
        await publish(bench, "y", **{"nex-hops": "16"})
        await settled(bench)
        await bench.client.publish("a", b"z", headers={"Nex-Hops": "17"})
        await eventually(lambda: len(bench.logs()) == 1, what="a line")
        found = await letters(bench, count=2)
        assert [headers["Nex-Dlq-Code"] for headers, _ in found] == ["508", "508"]
        assert bench.logs()[0].endswith(" y")


class TestAway:
    @row("a function stops with messages of a stream in hand")
    async def test_it_stops_and_gives_back_what_has_not_ended(self, nats_server: EmbeddedServer) -> None:
        source = "import time\n\ndef handler(event, context):\n    print(event.attempt)\n    time.sleep(60)\n"
        async with agent_bench(nats_server, grace="50ms") as bench:
            await bench.client.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
            await bench.start(source=source, triggers=trigger(), limits={"timeout": "2m"})
            await publish(bench, "a")
            await eventually(bench.logs, what="it runs")
            await bench.agent.stop_workload("W1", "acme")
            await bench.start("W2", source=TELL, triggers=trigger())
            await eventually(lambda: bench.logs(workload_id="W2"), what="another one has it")
            assert bench.logs(workload_id="W2") == ["ORDERS 1 2 orders.new ['orders.new'] '' a"]

    @row("a function stops with messages of a stream in hand")
    async def test_what_a_stop_gives_back_is_no_attempt(self, nats_server: EmbeddedServer) -> None:
        """Neither what had begun, nor what had not; until there is somebody who sees how an attempt ends."""
        source = "import time\n\ndef handler(event, context):\n    print(event.text)\n    time.sleep(60)\n"
        more: dict[str, Any] = {"triggers": trigger(**QUICK), "limits": {"timeout": "2m"}, "workers": {"max": 1}}
        async with agent_bench(nats_server, grace="50ms") as bench:
            stream = bench.client.jetstream()
            await stream.add_stream(name="ORDERS", subjects=["orders.>"])
            await stream.add_stream(name="DEAD", subjects=["dead.>"])
            await publish(bench, "raise", "fine", "refuse")
            for number in range(3):  # more often than it may be tried, and twice that
                name = f"W{number}"
                await bench.start(name, source=source, **more)
                await eventually(lambda name=name: bench.logs(workload_id=name), what="one of them runs")  # type: ignore[misc]  # bound, not given
                await bench.agent.stop_workload(name, "acme")
            await bench.start("LAST", source=MOODS, **more)
            await settled(bench)
            found = await letters(bench, count=2)
            assert sorted((payload, headers["Nex-Dlq-Attempt"]) for headers, payload in found) == [
                (b"raise", "2"), (b"refuse", "1"),
            ]  # fmt: skip
            assert len(bench.events("WORKLOADTRIGGERED", "LAST")) == 4, "two, and one of each other"

    async def test_without_the_permission_to_note_it_what_is_given_back_counts(self) -> None:
        users = """accounts { MAIN: { jetstream: enabled, users: [
          { user: admin, password: "a" }
          { user: workload, password: w, permissions: { publish: { deny: ["$JS.API.CONSUMER.CREATE.>"] } } }
        ] } }"""
        async with EmbeddedServer(config=users) as server:
            admin = server.url.replace("nats://", "nats://admin:a@")
            async with agent_bench(server, url=admin, grace="50ms") as bench:
                bench.url = server.url
                stream = bench.client.jetstream()
                await stream.add_stream(name="ORDERS", subjects=["orders.>"])
                await stream.add_stream(name="DEAD", subjects=["dead.>"])
                made = ConsumerConfig(
                    durable_name="acme-greet",
                    ack_policy="explicit",  # type: ignore[arg-type]  # nats-py takes the word
                    max_deliver=-1,
                    max_ack_pending=1000,
                )
                await stream.add_consumer("ORDERS", made)
                creds = {"nats_user_name": "workload", "nats_user_password": "w"}
                source = "import time\n\ndef handler(event, context):\n    print(event.text)\n    time.sleep(60)\n"
                more: dict[str, Any] = {"triggers": trigger(**QUICK), "limits": {"timeout": "2m"}, "creds": creds}
                await bench.start(source=source, **more)
                await publish(bench, "raise")
                await eventually(bench.logs, what="it runs")
                await bench.agent.stop_workload("W1", "acme")
                await bench.start("W2", source=MOODS, **more)
                ((headers, _),) = await letters(bench, count=1)
                assert headers["Nex-Dlq-Attempt"] == "2"
                assert len(bench.events("WORKLOADTRIGGERED", "W2")) == 1

    @row("the server goes with messages of a stream in hand")
    async def test_the_server_goes_and_comes_back(self, bench: AgentBench, nats_server: EmbeddedServer) -> None:
        """What was done is not done again, though its acknowledgement was lost; what was not comes by itself."""
        await bench.start(source=TELL, triggers=trigger(ack_wait="2s"), limits={"log_rate": "1MiB"})
        await publish(bench, *map(str, range(20)))
        await nats_server.kill()
        await nats_server.start()
        await eventually(lambda: bench.client.is_connected, what="the client is back")

        async def back() -> bool:
            try:
                await publish(bench, "first")
            except (nats.errors.Error, nats.js.errors.Error):  # its streams are not there yet
                return False
            return True

        await until(back)
        await publish(bench, *map(str, range(20, 40)))
        await settled(bench)
        (function,) = bench.agent.functions
        assert function.counts is not None
        kept = (await bench.client.jetstream().stream_info("ORDERS")).state.messages
        assert function.counts.outcomes["ok"] == kept >= 41

    @row("the consumer of a stream is deleted")
    async def test_a_consumer_that_is_deleted_is_told(self, bench: AgentBench) -> None:
        await bench.start(source=TELL, triggers=trigger())
        await bench.client.jetstream().delete_consumer("ORDERS", "acme-greet")
        assert "the consumer was deleted" in await told(bench, "stream_trouble")
        assert [one.name for one in await bench.client.jetstream().consumers_info("ORDERS")] == []


class TestRefused:
    @row("a stream is missing, or its consumer is another one")
    async def test_a_stream_that_is_not_there(self, bench: AgentBench) -> None:
        refused = await bench.refusal(triggers=[{"stream": "NONE", "dead_letter": "gone.x"}, "a"])
        assert "triggers[0].stream  there is no stream 'NONE'" in refused.text
        assert "nats stream add NONE" in refused.text
        assert "triggers[0].dead_letter  no stream keeps 'gone.x'" in refused.text

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"filter": "parcels.>"}, "triggers[0].filter  the stream 'ORDERS' has no messages of 'parcels.>'"),
            ({"dead_letter": "orders.dead"}, "triggers[0].dead_letter  'orders.dead' is a subject of the stream"),
        ],
    )
    async def test_what_could_never_work(self, bench: AgentBench, more: dict[str, str], said: str) -> None:
        refused = await bench.refusal(triggers=trigger(**more))
        assert said in refused.text
        assert await bench.client.jetstream().consumers_info("ORDERS") == [], "nothing is left behind"

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"ack_wait": 5.0}, "ack_wait is 5s, asked for is 30s"),
            ({"max_deliver": 3}, "max_deliver is 3, asked for is -1"),
            ({"filter_subject": "orders.x"}, "filter is orders.x, asked for is none"),
            ({"deliver_subject": "push.here"}, "a push consumer"),
            ({"ack_policy": "none"}, "ack_policy is none, asked for is explicit"),
        ],
    )
    async def test_a_consumer_that_is_another(self, bench: AgentBench, config: dict[str, Any], said: str) -> None:
        asked: dict[str, Any] = {"ack_policy": "explicit", "max_ack_pending": 1000, "max_deliver": -1, **config}
        if config.get("ack_policy") == "none":
            del asked["max_ack_pending"]
        stream = bench.client.jetstream()
        await stream.add_consumer("ORDERS", ConsumerConfig(durable_name="acme-greet", **asked))
        refused = await bench.refusal(triggers=trigger())
        assert said in refused.text
        assert "nats consumer rm ORDERS acme-greet" in refused.text
        assert refused.status == 409
        kept = (await stream.consumer_info("ORDERS", "acme-greet")).config
        assert all(getattr(kept, name) == value for name, value in config.items()), "it is not changed"

    async def test_a_consumer_of_another_function(self, bench: AgentBench) -> None:
        await bench.start("W1", name="a.b", triggers=trigger())
        assert "belongs to the function 'a.b'" in (await bench.refusal("W2", name="a_b", triggers=trigger())).text
        await bench.start("W3", name="a_b", triggers=trigger(durable="own"))

    async def test_a_consumer_that_somebody_made_is_taken(self, bench: AgentBench) -> None:
        stream = bench.client.jetstream()
        made = ConsumerConfig(durable_name="acme-greet", ack_policy="explicit", max_deliver=-1, max_ack_pending=1000)  # type: ignore[arg-type]  # nats-py takes the word
        await stream.add_consumer("ORDERS", made)
        await bench.start(source=TELL, triggers=trigger())
        await publish(bench, "a")
        await settled(bench)

    async def test_subjects_that_are_not_the_namespaces(self, nats_server: EmbeddedServer, tmp_path: Any) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text(json.dumps({"defaults": {"subjects": ["{namespace}.>"]}}))
        async with agent_bench(nats_server, settings_file=file) as bench:
            await bench.client.jetstream().add_stream(name="ALL", subjects=["acme.>", "other.>"])
            found = (await bench.refusal(triggers=[{"stream": "ALL"}])).text
            assert "triggers[0].stream  namespace 'acme' may not listen to '>'" in found
            found = (
                await bench.refusal(triggers=[{"stream": "ALL", "filter": "other.*", "dead_letter": "other.a.b"}])
            ).text
            assert "triggers[0].filter  namespace 'acme' may not listen to 'other.*'" in found
            assert "triggers[0].dead_letter  namespace 'acme' may not send to 'other.a.b'" in found
            found = (await bench.refusal(triggers=[{"subject": "acme.a", "on_failure": "other.x"}])).text
            assert "triggers[0].on_failure  namespace 'acme' may not send to 'other.x'" in found
            await bench.start(triggers=[{"stream": "ALL", "filter": "acme.in.*"}])

    @pytest.mark.parametrize(
        ("denied", "said"),
        [
            ("$JS.API.CONSUMER.INFO.>", "cannot look at the consumer 'acme-greet'"),
            ("$JS.API.CONSUMER.CREATE.>", "cannot make the consumer 'acme-greet'"),
            ("$JS.API.CONSUMER.MSG.NEXT.>", "its messages cannot be had"),
            ("$JS.ACK.>", "its messages cannot be had"),
            ("$JS.API.STREAM.NAMES", "cannot see which stream keeps 'dead.a'"),
        ],
    )
    async def test_permissions_are_named(self, denied: str, said: str) -> None:
        users = f"""accounts {{ MAIN: {{ jetstream: enabled, users: [
          {{ user: admin, password: "a" }}
          {{ user: workload, password: w, permissions: {{ publish: {{ deny: ["{denied}"] }} }} }}
        ] }} }}"""
        async with EmbeddedServer(config=users) as server:
            admin = server.url.replace("nats://", "nats://admin:a@")
            async with agent_bench(server, url=admin) as bench:
                bench.url = server.url
                stream = bench.client.jetstream()
                await stream.add_stream(name="ORDERS", subjects=["orders.>"])
                await stream.add_stream(name="DEAD", subjects=["dead.>"])
                creds = {"nats_user_name": "workload", "nats_user_password": "w"}
                refused = await bench.refusal(creds=creds, triggers=trigger(dead_letter="dead.a"))
                assert said in refused.text
                assert denied.rstrip(">") in refused.text
                assert refused.status == 403
                assert await stream.consumers_info("ORDERS") == []

    async def test_without_jetstream(self) -> None:
        async with EmbeddedServer(jetstream=False) as server, agent_bench(server) as bench:
            assert "JetStream is not enabled" in (await bench.refusal(triggers=trigger())).text


class TestNobodyWaits:
    @row("a message fails and nobody waits for an answer")
    async def test_messages_that_failed_go_where_they_are_said_to_go(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=[{"subject": "work.*", "on_failure": "dead.work"}])
        for mood in ("raise", "fine", "refuse"):
            await bench.client.publish("work.x", mood.encode(), headers={"X-A": "1"})
        assert (await bench.client.request("work.x", b"raise")).headers["error"] == "ValueError: bad"  # type: ignore[index]  # there is one
        found = await letters(bench, count=2)
        assert [payload for _, payload in found] == [b"raise", b"refuse"]
        headers = found[0][0]
        assert (headers["X-A"], headers["Nex-Dlq-Subject"], headers["Nex-Dlq-Reason"]) == ("1", "work.x", "error")
        assert "Nex-Dlq-Stream" not in headers
        await bench.event("WORKLOADTRIGGERED", count=4)
        assert len(await letters(bench)) == 2, "whoever waited was told"

    async def test_who_waits_for_a_stream_waits_for_nobody_here(self, bench: AgentBench) -> None:
        silent = {"subject": "orders.*", "reply": False, "on_failure": "dead.orders"}
        await bench.start(source=MOODS, triggers=[silent])
        await publish(bench, "raise")
        ((headers, payload),) = await letters(bench, count=1)
        assert (payload, headers["Nex-Dlq-Subject"]) == (b"raise", "orders.new")

    async def test_one_that_never_answers_does_so_where_its_own_letter_is_sent_back(self, bench: AgentBench) -> None:
        await bench.start(source=MOODS, triggers=[{"subject": "silent", "reply": False}], workers={"max": 1})
        answered: list[str] = []

        async def hear(message: Msg) -> None:
            answered.append(message.subject)

        await bench.client.subscribe("answers.*", cb=hear)
        for whose in ("acme/other", "other/greet", "acme/greet.more", "acme/greet"):
            headers = {"nex-dlq-redriven": whose}
            await bench.client.publish("silent", b"fine", reply=f"answers.{whose[:4]}-{whose[-4:]}", headers=headers)
        await eventually(lambda: answered, what="one answer")
        await bench.event("WORKLOADTRIGGERED", count=4)
        assert answered == ["answers.acme-reet"]
