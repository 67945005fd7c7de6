"""The function agent over a real server, with real workers: starting, stopping, telling, leaving."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog.testing

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.artifacts import digest_of
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.runner.agent import Agent, ClosingAgent, DescribedAgent, Refused, WorkloadNotFound
from nexlet_models.durations import parse_duration
from nexlet_models.registration import AgentState
from nexlet_models.start_request import open_schema, parse_start_request
from nexlet_models.workloads import WorkloadState
from tests.support.agent import GREET, AgentBench, agent_bench, request, workers_of
from tests.support.polling import eventually

SLOW = """
def handler(event, context):
    print("began")
    total = 0
    for number in range(int(event.text)):
        total += number
    return "done"
"""
ENDLESS = "while True:\n    pass\n\ndef handler(event, context):\n    return None\n"


@pytest.fixture
async def bench(nats_server: EmbeddedServer) -> AsyncIterator[AgentBench]:
    async with agent_bench(nats_server) as made:
        yield made


class TestWhoWeAre:
    async def test_the_registration_says_what_a_client_needs(self, bench: AgentBench) -> None:
        said = await bench.agent.register()
        assert (said.name, said.register_type, said.version) == ("nexlet-functions", "python", "1.2.3")
        assert said.supported_lifecycles == ("function",)
        assert said.public_xkey == bench.key.public
        assert said.start_request_schema == open_schema()

    async def test_the_register_type_can_be_changed(self, nats_server: EmbeddedServer) -> None:
        async with agent_bench(nats_server, register_type="snake") as other:
            assert (await other.agent.register()).register_type == "snake"
            assert "runs workloads of type 'snake', not 'python'" in (await other.refusal()).text

    async def test_a_heartbeat_counts(self, bench: AgentBench) -> None:
        await bench.start("W1", triggers=["one"])
        await bench.start("W2", namespace="other", triggers=["two"])
        await bench.ask("one")
        beat = await bench.agent.heartbeat()
        assert beat.summary == await bench.agent.ping()
        assert (beat.summary.workload_count, beat.summary.state) == (2, "running")
        assert beat.summary.supported_lifecycles == "function"
        data = json.loads(beat.data)
        assert (data["namespace_count"], data["functions"], data["workers"]) == (2, {"running": 2}, 2)
        assert data["invocations"]["ok"] == 1
        assert "rlimits" in data["sandboxes"]["strict"]["engaged"]
        assert data["sandboxes"]["strict"]["missing"] == []


class TestContract:
    async def test_it_is_an_agent_with_its_capabilities(self, bench: AgentBench) -> None:
        agent: Agent = bench.agent  # for the type checker
        assert isinstance(agent, ClosingAgent)
        assert isinstance(agent, DescribedAgent)
        said = agent.service_metadata()
        assert said["xkey"] == bench.key.public
        assert "rlimits" in said["layers"]

    async def test_whatever_comes_in_whatever_order_nothing_is_left_behind(self, bench: AgentBench) -> None:
        chance = random.Random(20261123)  # the same order each time
        ids = [f"W{number}" for number in range(4)]

        async def one() -> None:
            workload_id = chance.choice(ids)
            match chance.randrange(6):
                case 0 | 1:
                    await bench.start(workload_id, triggers=[f"t.{workload_id}"])
                case 2:
                    await bench.start(workload_id, source="import os\n")
                case 3 | 4:
                    await bench.agent.stop_workload(workload_id, "acme")
                case _:
                    await bench.agent.query_workloads("system", ())
                    await bench.agent.heartbeat()

        for _ in range(20):
            outcomes = await asyncio.gather(*(one() for _ in range(chance.randrange(1, 12))), return_exceptions=True)
            unexpected = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            assert all(isinstance(error, Refused | WorkloadNotFound) for error in unexpected), unexpected
        listed = {
            summary.id
            for summary in await bench.agent.query_workloads("system", ())
            if summary.workload_state is not WorkloadState.STOPPING
        }
        assert bench.services.registered == listed
        for workload_id in ids:
            assert await bench.silent(f"t.{workload_id}") is (workload_id not in listed)


class TestStarting:
    async def test_its_triggers_are_live_when_the_answer_comes(self, bench: AgentBench) -> None:
        answer = await bench.start(triggers=["greet", "greet.*.loud"])
        assert (answer.id, answer.name) == ("W1", "greet")
        for subject in ("greet", "greet.very.loud"):
            reply = await bench.ask(subject)
            assert reply.data == b"hello, world"
            assert reply.headers == {"workload_id": "W1", "namespace": "acme"}

    async def test_it_says_what_it_runs(self, bench: AgentBench) -> None:
        await bench.start()
        event = await bench.event("WORKLOADSTARTED")
        assert (event["namespace"], event["workload_type"]) == ("acme", "python")
        assert event["metadata"]["digest"] == f"sha256:{digest_of(GREET.encode())}"
        assert event["metadata"]["sandbox"] == "strict"
        summary = await bench.summary()
        assert summary is not None
        assert summary.metadata is not None
        assert event["metadata"].items() <= summary.metadata.items()
        assert (summary.workload_type, summary.workload_lifecycle) == ("python", "function")
        assert summary.workload_state is WorkloadState.RUNNING
        assert summary.tags == {"tier": "test"}

    async def test_without_triggers_and_name_both_come_from_the_id(self, bench: AgentBench) -> None:
        answer = await bench.start("W1", name="")
        assert answer.name == "function-W1"
        assert (await bench.ask("W1")).data == b"hello, world"
        assert (await bench.agent.get_workload("W1", "")).name == "function-W1"

    async def test_the_same_start_again_is_the_same_answer(self, bench: AgentBench) -> None:
        first = await bench.start(triggers=["greet"])
        workers = workers_of(bench.zygote)
        assert await bench.start(triggers=["greet"]) == first
        assert await bench.start(existing=True, triggers=["greet"]) == first
        assert workers_of(bench.zygote) == workers
        await bench.ask("greet")
        await bench.event("WORKLOADTRIGGERED")
        assert len(bench.events("WORKLOADSTARTED")) == 1

    async def test_the_same_start_at_the_same_time_is_one_start(self, bench: AgentBench) -> None:
        answers = await asyncio.gather(*(bench.start(triggers=["greet"]) for _ in range(5)))
        assert len({answer.to_json() for answer in answers}) == 1
        assert len(workers_of(bench.zygote)) == 1
        (refused,) = {
            str(outcome)
            for outcome in await asyncio.gather(
                *(bench.start("W2", source="import os\n") for _ in range(3)), return_exceptions=True
            )
        }
        assert "import" in refused

    async def test_another_request_under_the_same_id_conflicts(self, bench: AgentBench) -> None:
        await bench.start(triggers=["greet"])
        with pytest.raises(Refused, match="runs already, from another request") as refused:
            await bench.start(triggers=["other"])
        assert refused.value.status == 409
        assert (await bench.ask("greet")).data == b"hello, world"

    async def test_many_start_side_by_side(self, bench: AgentBench) -> None:
        await asyncio.gather(*(bench.start(f"W{number}", triggers=[f"many.{number}"]) for number in range(20)))
        replies = await asyncio.gather(*(bench.ask(f"many.{number}") for number in range(20)))
        assert [reply.headers["workload_id"] for reply in replies if reply.headers] == [f"W{n}" for n in range(20)]

    async def test_whoever_asked_may_go_away(self, bench: AgentBench) -> None:
        asked = asyncio.ensure_future(bench.start(triggers=["greet"]))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        assert (await bench.start(triggers=["greet"])).name == "greet"
        assert (await bench.ask("greet")).data == b"hello, world"

    async def test_the_environment_has_all_three_kinds(self, bench: AgentBench) -> None:
        bench.services.secrets["acme", "API_KEY"] = "k3y"
        sender = CurveKey.generate()
        box = base64.b64encode(sender.seal(b'{"TOKEN": "t0ken"}', bench.key.public)).decode()
        await bench.start(
            source="def handler(event, context):\n    return dict(context.env)\n",
            environment={"GREETING": "hello", "KEY": "secret://API_KEY"},
            encrypted_environment={"encrypted_by": sender.public, "base64_encrypted_env": box},
        )
        assert json.loads((await bench.ask("W1")).data) == {"GREETING": "hello", "KEY": "k3y", "TOKEN": "t0ken"}

    async def test_helper_modules_are_there(self, bench: AgentBench) -> None:
        await bench.start(
            source="import prices\n\ndef handler(event, context):\n    return prices.total(2)\n",
            files={"prices.py": "def total(count):\n    return count * 21\n"},
        )
        assert (await bench.ask("W1")).data == b"42"


class TestRefusing:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("def handler(event, context:\n    pass\n", "function.py:1:"),
            ("import os\n\ndef handler(event, context):\n    pass\n", "function.py:1:"),
            ("def other(event, context):\n    pass\n", "handler"),
            ("x = 1\nraise ValueError('not today')\n\ndef handler(event, context):\n    pass\n", "not today"),
            (ENDLESS, "function.py"),
        ],
    )
    async def test_a_source_that_cannot_be_loaded(self, bench: AgentBench, source: str, expected: str) -> None:
        refused = await bench.refusal(source=source, limits={"load_timeout": "300ms"})
        assert refused.status == 400
        assert refused.text.startswith("greet refused: ")
        assert expected in refused.text
        # The nexlet goes on as if nothing had happened.
        await bench.start("W2", triggers=["greet"])
        assert (await bench.ask("greet")).data == b"hello, world"

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ({"source": GREET, "uri": "nats://b/o"}, "source and uri"),
            ({"source": "", "uri": "nats://b/o"}, "source"),
            ({"source_file": "function.py", "uri": "nats://b/o"}, "pack"),
            ({"source": GREET, "sha256": "0" * 64}, "checksum differs"),
            ({"uri": "file:///etc/passwd"}, "is not allowed"),
            ({"uri": "nats://functions/greet"}, "does not exist"),
            ({"environment": {"A": "secret://MISSING"}}, "secret://MISSING cannot be had"),
            ({"limits": {"timeout": "1h"}}, "that the operator allows"),
            ({"limits": {"max_reply": "2MiB"}}, "that the server takes"),
            (
                {"triggers": [{"subject": "a.*", "queue_group": ""}, {"subject": "a.b", "queue_group": ""}]},
                "overlaps",
            ),
        ],
    )
    async def test_what_cannot_be_had(self, bench: AgentBench, start: dict[str, Any], expected: str) -> None:
        assert expected in (await bench.refusal(**start)).text

    async def test_source_and_environment_are_refused_together(self, bench: AgentBench) -> None:
        refused = await bench.refusal(uri="nats://functions/greet", environment={"A": "secret://MISSING"})
        assert refused.text.startswith("greet refused: 2 problems")
        assert refused.status == 404

    async def test_what_only_the_server_and_the_secrets_tell_is_said_with_what_is_wrong_in_the_source(
        self, bench: AgentBench
    ) -> None:
        wrong: dict[str, Any] = {"limits": {"max_reply": "2MiB"}, "environment": {"A": "secret://MISSING"}}
        refused = await bench.refusal(source="import os\n" + GREET, **wrong)
        assert refused.text.startswith("greet refused: 3 problems")
        for expected in ("that the server takes", "secret://MISSING cannot be had", "import of 'os'"):
            assert expected in refused.text

    async def test_a_refused_permission_names_subject_and_permission(self) -> None:
        users = """authorization { users = [
          { user: admin, password: a }
          { user: workload, password: w, permissions: { subscribe: ["allowed", "_INBOX.>"] } }
        ] }"""
        creds = {"nats_user_name": "workload", "nats_user_password": "w"}
        async with EmbeddedServer(config=users) as server:
            admin = server.url.replace("nats://", "nats://admin:a@")
            async with agent_bench(server, url=admin) as bench:
                bench.url = server.url
                refused = await bench.refusal(creds=creds, triggers=["allowed", "orders.created", "b"])
                assert "triggers[1].subject  'orders.created' may not" in refused.text
                assert "triggers[2].subject  'b' may not" in refused.text
                assert "permissions violation for subscription" in refused.text.lower()
                assert refused.status == 403
                await bench.start("W2", creds=creds, triggers=["allowed"])
                assert (await bench.ask("allowed")).data == b"hello, world"

    async def test_credentials_that_do_not_connect(self) -> None:
        users = 'authorization { users = [ { user: admin, password: "a" } ] }'
        async with (
            EmbeddedServer(config=users) as server,
            agent_bench(server, url=server.url.replace("nats://", "nats://admin:a@")) as bench,
        ):
            bench.url = server.url
            refused = await bench.refusal(creds={"nats_user_name": "nobody", "nats_user_password": "s3cret"})
            assert refused.status == 503
            assert "no connection" in refused.text
            assert "s3cret" not in refused.text

    async def test_a_bug_of_ours_gets_an_id_and_the_log_its_cause(self, bench: AgentBench) -> None:
        bench.services.fail_with = RuntimeError("the cause")
        with structlog.testing.capture_logs() as logs:
            refused = await bench.refusal()
        assert refused.status == 500
        assert "the cause" not in refused.text
        (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert entry["error"] == "the cause"
        assert entry["error_id"] in refused.text
        bench.services.fail_with = None
        await bench.start()

    async def test_no_value_of_the_environment_is_logged_or_told(self, bench: AgentBench) -> None:
        with structlog.testing.capture_logs() as logs:
            refused = await bench.refusal(source="import os\n", environment={"A": "hunter2"})
            # An author may quote what they like: they read it, the operator's log does not.
            source = "def handler(event, context):\n    pass\nraise ValueError('from-the-author')\n"
            quoted = await bench.refusal("W3", source=source)
            await bench.start("W2", environment={"A": "hunter2"})
        assert "from-the-author" in quoted.text
        assert "from-the-author" not in f"{logs}"
        assert "hunter2" not in f"{logs} {refused.text} {await bench.summary('W2')!r} {bench.heard!r}"

    async def test_a_start_that_takes_too_long_is_given_up(
        self, bench: AgentBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nexlet_functions.functions.agent._START_DEADLINE", 0.2)
        refused = await bench.refusal(source=ENDLESS, limits={"load_timeout": "30s"})
        assert refused.status == 503
        assert "did not start within 0.2 s" in refused.text


class TestStopping:
    async def test_nothing_is_delivered_once_it_answers(self, bench: AgentBench) -> None:
        await bench.start(triggers=["greet"])
        await bench.agent.stop_workload("W1", "acme")
        assert await bench.silent("greet")
        event = await bench.event("WORKLOADSTOPPED")
        assert "error" not in event
        await eventually(lambda: not workers_of(bench.zygote), what="its workers are gone")
        assert await bench.summary() is None

    async def test_what_runs_is_finished_in_the_background(self, bench: AgentBench) -> None:
        await bench.start(source=SLOW, triggers=["slow"])
        asked = asyncio.ensure_future(bench.ask("slow", b"3000000"))
        await eventually(lambda: bench.logs() == ["began"], what="it runs")
        await bench.agent.stop_workload("W1", "acme")
        assert not asked.done()
        summary = await bench.summary()
        assert summary is not None
        assert summary.workload_state is WorkloadState.STOPPING
        assert (await asked).data == b"done"
        await bench.event("WORKLOADSTOPPED")

    async def test_what_outlives_the_grace_gets_503(self, nats_server: EmbeddedServer) -> None:
        async with agent_bench(nats_server, grace="50ms") as bench:
            await bench.start(source=SLOW, triggers=["slow"])
            asked = asyncio.ensure_future(bench.ask("slow", b"1000000000"))
            await eventually(lambda: bench.logs() == ["began"], what="it runs")
            await bench.agent.stop_workload("W1", "acme")
            reply = await asked
            assert reply.headers is not None
            assert reply.headers["Nats-Service-Error-Code"] == "503"

    async def test_only_its_namespace_and_system_may(self, bench: AgentBench) -> None:
        await bench.start("W1", triggers=["one"])
        for workload_id, namespace in (("W1", "other"), ("W9", "acme"), ("W9", "system")):
            with pytest.raises(WorkloadNotFound):
                await bench.agent.stop_workload(workload_id, namespace)
        assert (await bench.ask("one")).data == b"hello, world"
        await bench.agent.stop_workload("W1", "system")
        assert await bench.silent("one")

    async def test_while_it_starts_the_start_fails_and_the_stop_succeeds(self, bench: AgentBench) -> None:
        starting = asyncio.ensure_future(bench.start(source=ENDLESS, limits={"load_timeout": "30s"}))
        await eventually(lambda: workers_of(bench.zygote), what="it loads")
        await asyncio.gather(bench.agent.stop_workload("W1", "acme"), bench.agent.stop_workload("W1", "acme"))
        with pytest.raises(Refused, match="stopped while it was starting") as refused:
            await starting
        assert refused.value.status == 409
        await eventually(lambda: not workers_of(bench.zygote), what="nothing is left")
        assert await bench.summary() is None
        with pytest.raises(WorkloadNotFound):
            await bench.agent.stop_workload("W1", "acme")

    async def test_before_it_took_its_first_step(self, bench: AgentBench) -> None:
        starting = asyncio.ensure_future(bench.start())
        await asyncio.sleep(0)
        await bench.agent.stop_workload("W1", "acme")
        with pytest.raises(Refused, match="stopped while it was starting"):
            await starting
        await bench.start()

    async def test_it_can_be_started_again_under_its_id(self, bench: AgentBench) -> None:
        for _ in range(3):
            await bench.start(triggers=["greet"])
            assert (await bench.ask("greet")).data == b"hello, world"
            await bench.agent.stop_workload("W1", "acme")

    async def test_started_again_it_listens_while_the_former_one_still_works(
        self, nats_server: EmbeddedServer, tmp_path: Path
    ) -> None:
        async with agent_bench(nats_server, state_folder=tmp_path) as bench:
            await bench.start(source=SLOW, triggers=["slow"])
            asked = asyncio.ensure_future(bench.ask("slow", b"6000000"))
            await eventually(lambda: bench.logs() == ["began"], what="it runs")
            await bench.agent.stop_workload("W1", "acme")
            await put(nats_server.url, GREET)
            await bench.start(uri="nats://functions/greet", triggers=["greet"])
            assert (await asked).data == b"done"
            await bench.event("WORKLOADSTOPPED")
            await eventually(lambda: len(workers_of(bench.zygote)) == 1, what="the former one has gone")
            assert (await bench.ask("greet")).data == b"hello, world"
            assert len(list(tmp_path.rglob("sources/*.json"))) == 1, "what runs is pinned"


class TestClones:
    async def test_they_share_messages_by_default(self, bench: AgentBench) -> None:
        for workload_id in ("W1", "W2"):
            await bench.start(workload_id, triggers=["shared"])
        replies = [await bench.ask("shared") for _ in range(40)]
        assert {reply.headers["workload_id"] for reply in replies if reply.headers} == {"W1", "W2"}
        await bench.event("WORKLOADTRIGGERED", "W1")
        await bench.event("WORKLOADTRIGGERED", "W2")
        await eventually(
            lambda: len(bench.events("WORKLOADTRIGGERED", "W1") + bench.events("WORKLOADTRIGGERED", "W2")) == 40
        )

    async def test_all_get_each_message_when_asked_for(self, bench: AgentBench) -> None:
        for workload_id in ("W1", "W2"):
            await bench.start(workload_id, triggers=[{"subject": "all", "queue_group": ""}])
        await bench.client.publish("all", b"x")
        await bench.event("WORKLOADTRIGGERED", "W1")
        await bench.event("WORKLOADTRIGGERED", "W2")

    async def test_a_group_of_another_namespace_is_another_group(self, bench: AgentBench) -> None:
        for workload_id, namespace in (("W1", "acme"), ("W2", "other")):
            await bench.start(workload_id, namespace=namespace, triggers=[{"subject": "g", "queue_group": "same"}])
        await bench.client.publish("g", b"x")
        await bench.event("WORKLOADTRIGGERED", "W1")
        await bench.event("WORKLOADTRIGGERED", "W2")


class TestTelling:
    async def test_the_request_of_a_clone_is_as_it_came_with_its_name(self, bench: AgentBench) -> None:
        await bench.start(name="", triggers=["x"])
        told = await bench.agent.get_workload("W1", "")
        asked = request(bench.url, name="", triggers=["x"]).request
        assert told == asked.model_copy(update={"name": "function-W1"})

    async def test_unknown_ones_are_not_found(self, bench: AgentBench) -> None:
        with pytest.raises(WorkloadNotFound):
            await bench.agent.get_workload("W1", "")

    async def test_a_sealed_environment_stays_sealed_but_to_peers(self, nats_server: EmbeddedServer) -> None:
        peer, stranger, sender, key = (CurveKey.generate() for _ in range(4))
        box = base64.b64encode(sender.seal(b'{"TOKEN": "t0ken"}', key.public)).decode()
        sealed = {"encrypted_by": sender.public, "base64_encrypted_env": box}
        async with agent_bench(nats_server, key=key, xkey_peers=[peer.public]) as bench:
            await bench.start(encrypted_environment=sealed)
            for target in ("", stranger.public, "rubbish"):
                told = json.loads((await bench.agent.get_workload("W1", target)).run_request)
                assert told["encrypted_environment"] == sealed
            told = json.loads((await bench.agent.get_workload("W1", peer.public)).run_request)
            again = parse_start_request(json.dumps(told)).encrypted_environment
            assert again is not None
            opened = peer.open(base64.b64decode(again.base64_encrypted_env), again.encrypted_by)
            assert json.loads(opened) == {"TOKEN": "t0ken"}

    async def test_the_list_is_a_namespaces_own(self, bench: AgentBench) -> None:
        await bench.start("W1", name="one", triggers=["t1"])
        await bench.start("W2", name="two", triggers=["t2"])
        await bench.start("W3", name="one", namespace="other", triggers=["t3"])

        async def ids(namespace: str, *wanted: str) -> list[str]:
            return [summary.id for summary in await bench.agent.query_workloads(namespace, wanted)]

        assert await ids("acme") == ["W1", "W2"]
        assert await ids("system") == ["W1", "W2", "W3"]
        assert await ids("system", "one") == ["W1", "W3"]
        assert await ids("acme", "W2", "W3") == ["W2"]
        assert await ids("nobody") == []

    async def test_the_runtime_is_the_time_that_its_invocations_took(self, bench: AgentBench) -> None:
        await bench.start(source=SLOW, triggers=["slow"])
        before = await bench.summary()
        assert before is not None
        assert before.runtime == "0s"
        await bench.ask("slow", b"100000")
        summary = await bench.summary()
        assert summary is not None
        assert 0 < parse_duration(summary.runtime) < 10
        assert summary.metadata is not None
        assert (summary.metadata["invocations"], summary.metadata["outcome_ok"]) == ("1", "1")


class TestHealth:
    async def test_without_work_it_turns_warm_and_a_message_brings_it_back(self, bench: AgentBench) -> None:
        await bench.start(triggers=["greet"], limits={"idle": "20ms"})
        assert (await bench.ask("greet")).data == b"hello, world"
        await eventually(lambda: not workers_of(bench.zygote), what="its worker goes")
        summary = await bench.summary()
        assert summary is not None
        assert summary.workload_state is WorkloadState.WARM
        assert (await bench.ask("greet")).data == b"hello, world"

    async def test_workers_that_die_again_and_again_show_as_error(self, bench: AgentBench) -> None:
        await bench.start(triggers=["greet"])
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await eventually(lambda: workers_of(bench.zygote), what="there is a worker")
                (pid,) = workers_of(bench.zygote)
                os.kill(pid, signal.SIGKILL)
                await eventually(lambda: pid not in workers_of(bench.zygote), what="it is dead")  # noqa: B023
            beats = bench.services.heartbeats
            await eventually(lambda: any("unwell" in entry["event"] for entry in logs), what="it is said")
        summary = await bench.summary()
        assert summary is not None
        assert summary.workload_state is WorkloadState.ERROR
        assert beats > 0
        assert (await bench.ask("greet")).data == b"hello, world"
        summary = await bench.summary()
        assert summary is not None
        assert summary.workload_state is WorkloadState.RUNNING

    async def test_a_worker_that_dies_with_its_invocation_is_told_to_both(self, bench: AgentBench) -> None:
        await bench.start(source=SLOW, triggers=["slow"])
        with structlog.testing.capture_logs() as logs:
            asked = asyncio.ensure_future(bench.ask("slow", b"1000000000"))
            await eventually(lambda: bench.logs() == ["began"], what="it runs")
            (pid,) = workers_of(bench.zygote)
            os.kill(pid, signal.SIGKILL)
            reply = await asked
        assert reply.headers is not None
        assert reply.headers["Nats-Service-Error-Code"] == "502"
        event = await bench.event("WORKLOADTRIGGERED")
        (entry,) = [entry for entry in logs if entry["event"] == "worker ended with its invocation"]
        assert (entry["workload_id"], entry["outcome"]) == ("W1", "crash")
        assert entry["invocation_id"] == event["invocation_id"]
        assert "SIGKILL" in entry["reason"]
        await eventually(lambda: any("SIGKILL" in line for line in bench.logs("stderr")), what="the author reads it")

    async def test_without_a_zygote_a_start_is_refused_and_nothing_left(self, bench: AgentBench) -> None:
        await bench.zygote.close()
        refused = await bench.refusal()
        assert refused.status == 503
        assert "no worker could be made" in refused.text


async def put(url: str, source: str) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    try:
        store = await stream.object_store("functions")
    except nats.js.errors.NotFoundError:
        store = await stream.create_object_store("functions")
    await store.put("greet_latest", source.encode())
    await client.close()


def answering(text: str) -> str:
    return f"def handler(event, context):\n    return {text!r}\n"


class TestRecovery:
    URI = "nats://functions/greet"

    async def test_what_ran_runs_again_from_the_source_it_was_started_with(
        self, nats_server: EmbeddedServer, tmp_path: Path
    ) -> None:
        await put(nats_server.url, answering("first"))
        async with agent_bench(nats_server, state_folder=tmp_path) as bench:
            await bench.start(uri=self.URI, triggers=["greet"])
            await put(nats_server.url, answering("second"))
            told = json.loads((await bench.agent.get_workload("W1", "")).run_request)
            assert told["sha256"] == digest_of(answering("first").encode())
        async with agent_bench(nats_server, state_folder=tmp_path) as bench:
            await bench.start(existing=True, uri=self.URI, triggers=["greet"])
            assert (await bench.ask("greet")).data == b"first"
            # Deployed anew, it is what the tag says now.
            await bench.start("W2", uri=self.URI, triggers=["newer"], name="newer")
            assert (await bench.ask("newer")).data == b"second"
            # Stopped, it is forgotten.
            await bench.agent.stop_workload("W1", "acme")
            await bench.event("WORKLOADSTOPPED")
            await bench.start(existing=True, uri=self.URI, triggers=["greet"])
            assert (await bench.ask("greet")).data == b"second"

    async def test_one_that_cannot_start_holds_up_nobody(self, bench: AgentBench) -> None:
        outcomes = await asyncio.gather(
            bench.start("W1", existing=True, source="import os\n", triggers=["bad"]),
            bench.start("W2", existing=True, source=ENDLESS, limits={"load_timeout": "200ms"}),
            bench.start("W3", existing=True, triggers=["good"]),
            return_exceptions=True,
        )
        assert [isinstance(outcome, Refused) for outcome in outcomes] == [True, True, False]
        assert (await bench.ask("good")).data == b"hello, world"

    async def test_one_that_cannot_start_can_be_stopped(self, bench: AgentBench) -> None:
        # The node keeps it, and replays it for ever, until an agent says that it has stopped.
        await bench.refusal("W1", existing=True, source="import os\n")
        with pytest.raises(WorkloadNotFound):
            await bench.agent.stop_workload("W1", "other")
        await bench.agent.stop_workload("W1", "acme")
        with pytest.raises(WorkloadNotFound):
            await bench.agent.stop_workload("W1", "acme")

    async def test_what_cannot_be_pinned_runs_all_the_same(self, nats_server: EmbeddedServer, tmp_path: Path) -> None:
        await put(nats_server.url, answering("first"))
        (tmp_path / "sources").write_text("a file in its way")
        async with agent_bench(nats_server, state_folder=tmp_path) as bench:
            with structlog.testing.capture_logs() as logs:
                await bench.start(uri=self.URI, triggers=["greet"])
            assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["source not pinned"]
            assert (await bench.ask("greet")).data == b"first"


class TestLeaving:
    async def test_lameduck_takes_nothing_new_serves_on_and_then_drains(self, bench: AgentBench) -> None:
        await bench.start(triggers=["greet"])
        beats = bench.services.heartbeats
        await bench.agent.set_lameduck(60.0)
        assert bench.services.heartbeats == beats + 1
        assert (await bench.agent.ping()).state == AgentState.LAMEDUCK
        refused = await bench.refusal("W2")
        assert refused.status == 503
        assert (await bench.ask("greet")).data == b"hello, world"
        await bench.agent.close(grace=1.0)
        assert await bench.silent("greet")
        event = await bench.event("WORKLOADSTOPPED")
        assert event["error"] == {"code": "503", "message": "its nexlet went into lameduck"}

    async def test_closing_ends_starts_and_finishes_what_runs(self, bench: AgentBench) -> None:
        await bench.start("W1", source=SLOW, triggers=["slow"])
        starting = asyncio.ensure_future(bench.start("W2", source=ENDLESS, limits={"load_timeout": "30s"}))
        await eventually(lambda: len(workers_of(bench.zygote)) == 2, what="the second loads")
        asked = asyncio.ensure_future(bench.ask("slow", b"1000000"))
        await eventually(lambda: bench.logs() == ["began"], what="the first runs")
        await bench.agent.close()
        assert (await asked).data == b"done"
        with pytest.raises(Refused, match="stopped while it was starting"):
            await starting
        assert workers_of(bench.zygote) == []
        assert (await bench.agent.ping()).state == AgentState.STOPPING
        assert (await bench.refusal("W3")).status == 503
        await bench.agent.set_lameduck(0.0)
        assert (await bench.agent.ping()).state == AgentState.STOPPING

    async def test_rules_that_change_count_from_the_next_start_on(
        self, nats_server: EmbeddedServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "nexlet.yaml"
        file.write_text("defaults: {max_functions: 1}\n")
        async with agent_bench(nats_server, settings_file=file) as bench:
            await bench.start("W1", triggers=["t1"])
            assert (await bench.refusal("W2", triggers=["t2"])).status == 429
            bench.settings._read = lambda: type(bench.settings.current).read(
                {"settings_file": file, "grace": "5s", "reserve_workers": 0}
            )
            file.write_text("defaults: {max_functions: 2}\n")
            assert bench.settings.reload() == (("defaults",), ())
            await bench.start("W2", triggers=["t2"])
