"""`deploy`, `list` and `stop` as processes, beside nodes of both makes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from nexlet_functions.cli.app import expected_failure
from nexlet_functions.cli.exits import Exit
from nexlet_functions.control import ControlClient
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.nexfile import read_function
from nexlet_functions.shipping import Left, ship
from nexlet_models import subjects
from nexlet_models.control import AuctionResponse
from nexlet_models.workloads import AgentListWorkloadsResponse, WorkloadLifecycle
from tests.support.cli import Ended, nexfn
from tests.support.nexlets import NAMESPACE, NexletBench, nexlet_bench
from tests.support.nodes import StandIn
from tests.support.polling import eventually
from tests.support.settle import settle


def write(folder: Path, answer: str, *, name: str = "greet", subject: str = "greet.hello", **start: object) -> Path:
    """A function's folder; what it answers is an expression."""
    folder.mkdir(exist_ok=True)
    (folder / "function.py").write_text(f"def handler(event, context):\n    return {answer}\n")
    start = {"source_file": "function.py", "triggers": [subject], **start}
    nexfile = {"name": name, "type": "python", "lifecycle": "function", "start_request": start}
    (folder / "Nexfile").write_text(json.dumps(nexfile))
    return folder


async def run(bench: NexletBench, command: str, *arguments: str | Path, namespace: str = NAMESPACE) -> Ended:
    """The command, against the one node there is."""
    return await nexfn(command, "-s", bench.server.url, "-n", namespace, "--nodes", "1", *arguments)


async def test_deployed_replaced_listed_and_stopped(bench: NexletBench, tmp_path: Path) -> None:
    first = await run(bench, "deploy", write(tmp_path / "one", "1"))
    assert first.code == 0, first.err
    (one,) = first.records
    assert (one["type"], one["name"], one["namespace"], one["triggers"]) == (
        "deployed",
        "greet",
        "acme",
        ["greet.hello"],
    )
    assert one["replaced"] == one["beside"] == []
    assert (await bench.ask("greet.hello")).data == b"1"

    (two,) = (await run(bench, "deploy", write(tmp_path / "two", "2"))).records
    assert two["replaced"] == [one["id"]]
    assert {(await bench.ask("greet.hello")).data for _ in range(20)} == {b"2"}

    listed = await run(bench, "list", "greet")
    shown = {record["id"]: record for record in listed.records if record["state"] != "stopping"}
    assert set(shown) == {two["id"]}
    said = shown[two["id"]]
    assert (said["name"], said["namespace"], said["state"], said["triggers"]) == (
        "greet", "acme", "running", ["greet.hello"],
    )  # fmt: skip
    assert (said["invocations"], said["failed"], said["workers"]) == (20, 0, 1)
    assert said["digest"].startswith("sha256:")
    table = (await run(bench, "list", "--text", namespace="system")).out.splitlines()
    assert " ".join(table[0].split()) == "NAMESPACE NAME ID STATE WORKERS PENDING INVOKED FAILED TRIGGERS"
    assert any(line.split()[:4] == ["acme", "greet", two["id"], "running"] for line in table[1:])

    stopped = await run(bench, "stop", "greet")
    assert (stopped.code, stopped.records) == (
        0, [{"type": "stopped", "id": two["id"], "name": "greet", "namespace": "acme"}],
    )  # fmt: skip
    await eventually(lambda: bench.events(two["id"], "WORKLOADSTOPPED"), what="it has ended")
    assert (await run(bench, "list", "--text")).out == "nothing runs in namespace acme\n"


async def test_both_are_kept_when_asked_and_a_name_alone_stops_neither(bench: NexletBench, tmp_path: Path) -> None:
    (one,) = (await run(bench, "deploy", write(tmp_path / "one", "1"))).records
    (two,) = (await run(bench, "deploy", "--alongside", write(tmp_path / "two", "2"))).records
    assert (two["replaced"], two["beside"]) == ([], [one["id"]])

    refused = await run(bench, "stop", "greet")
    assert (refused.code, refused.out, refused.error["code"]) == (1, "", "ambiguous-workload")
    assert one["id"] in refused.error["message"]
    assert two["id"] in refused.error["message"]
    assert len((await run(bench, "list")).records) == 2

    # The name again replaces all that bear it; an id stops that one; --all stops what a name means.
    (three,) = (await run(bench, "deploy", write(tmp_path / "one", "3"))).records
    assert sorted(three["replaced"]) == sorted([one["id"], two["id"]])
    (four,) = (await run(bench, "deploy", "--alongside", tmp_path / "two")).records
    by_id = await run(bench, "stop", three["id"], namespace="system")
    assert [record["id"] for record in by_id.records] == [three["id"]]
    assert [record["id"] for record in (await run(bench, "stop", "--all", "greet")).records] == [four["id"]]


async def test_what_is_not_there_is_said_with_what_is(bench: NexletBench, tmp_path: Path) -> None:
    await run(bench, "deploy", write(tmp_path / "one", "1"))
    for command in ("stop", "list"):
        ended = await run(bench, command, "gret")
        assert (ended.code, ended.error["code"]) == (1, "unknown-workload")
        assert "'gret' runs in namespace acme" in ended.error["message"]
        assert "did you mean greet?" in ended.error["message"]
    elsewhere = await run(bench, "stop", "greet", namespace="other")
    assert elsewhere.code == 1
    assert "nothing runs there" in elsewhere.error["message"]
    assert (await bench.ask("greet.hello")).data == b"1"


async def test_a_refusal_reads_as_in_check_and_the_old_one_goes_on(bench: NexletBench, tmp_path: Path) -> None:
    await run(bench, "deploy", write(tmp_path / "one", "1"))
    broken = write(tmp_path / "one", "open('x')")
    checked = await nexfn("check", "--text", broken)
    refused = await run(bench, "deploy", "--text", broken)
    assert (checked.code, refused.code) == (1, 1)
    assert refused.err == checked.out
    assert "function.py:2:12" in refused.err
    (broken / "Nexfile").write_text((broken / "Nexfile").read_text().replace("greet.hello", "greet..hello"))
    checked = await nexfn("check", "--text", broken)
    refused = await run(bench, "deploy", "--text", broken, write(tmp_path / "good", "2", name="good", subject="good"))
    assert refused.code == 1
    assert refused.err == checked.out
    assert "2 problems" in refused.err
    assert refused.out.startswith("deployed  good  "), "of several, each is deployed that can be"
    assert (await bench.ask("greet.hello")).data == b"1"


async def test_where_nobody_can_run_it_it_says_so(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", "1")
    ended = await nexfn("deploy", "-s", nats_server.url, "-n", "acme", folder)
    assert (ended.code, ended.error["code"]) == (3, "no-bid")
    assert (await nexfn("list", "-s", nats_server.url)).code == 3
    nowhere = await nexfn("deploy", "-s", nats_server.url, folder)
    assert nowhere.code == 2, "a namespace is to be named"
    wrong = await nexfn("deploy", "-s", nats_server.url, "-n", "a.b", folder)
    assert (wrong.code, wrong.error["code"]) == (2, "invalid-namespace")


async def test_an_import_that_an_operator_may_permit_is_for_the_nexlet_to_refuse(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    folder = write(tmp_path / "one", "open('x')", subject="greet..hello")
    (folder / "function.py").write_text(f"import colorsys\n{(folder / 'function.py').read_text()}")
    checked = await nexfn("check", folder)
    refused = await nexfn("deploy", "-s", nats_server.url, "-n", "acme", folder)
    known = [problem["code"] for problem in checked.records[0]["problems"]]
    assert known == [known[0], "import-refused", known[2]]
    assert [problem["code"] for problem in refused.error["problems"]] == [known[0], known[2]]
    (tmp_path / "settings.yaml").write_text("modules: {colorsys: [rgb_to_hsv]}\n")
    permitted = await nexfn("check", "--settings-file", tmp_path / "settings.yaml", folder)
    assert [problem["code"] for problem in permitted.records[0]["problems"]] == [known[0], known[2]]


@pytest.mark.parametrize("words", ["list", "stop one", "deploy", "invoke one", "logs", "top --once", "pack --seal"])
async def test_a_server_that_goes_away_meanwhile_is_nobody_there(tmp_path: Path, words: str) -> None:
    folder = write(tmp_path / "one", "1", environment={"WORD": "1"})
    command, *more = words.split()
    more += {"deploy": ["-n", "acme", str(folder)], "pack": [str(folder)]}.get(command, [])
    async with EmbeddedServer(jetstream=False) as server:
        asked = asyncio.Event()

        async def ask(message: Msg) -> None:
            asked.set()

        client = await nats.connect(server.url)
        await client.subscribe("$NEX.>", cb=ask)
        await settle(client)
        asking = asyncio.create_task(nexfn(command, "-s", server.url, *more))
        await asyncio.wait_for(asked.wait(), 30)
        await client.close()
        await server.kill()
        ended = await asking
    assert (ended.code, ended.error["code"]) == (3, "connection-lost"), ended.err


async def test_a_server_that_goes_away_before_a_start_is_answered(tmp_path: Path) -> None:
    bid = AuctionResponse(
        bidder_id="b", start_request_schema="{}", supported_lifecycles=(WorkloadLifecycle.FUNCTION,), xkey=""
    )
    async with EmbeddedServer(jetstream=False) as server:
        starting = asyncio.Event()

        async def answer(message: Msg) -> None:
            if message.subject == subjects.auction("acme"):
                await message.respond(bid.to_json())
            elif message.subject == subjects.list_workloads("acme"):
                await message.respond(AgentListWorkloadsResponse(()).to_json())
            else:
                assert message.subject == subjects.deploy("acme", "b")
                starting.set()

        client = await nats.connect(server.url)
        await client.subscribe("$NEX.>", cb=answer)
        await settle(client)
        asking = asyncio.create_task(nexfn("deploy", "-s", server.url, "-n", "acme", write(tmp_path / "one", "1")))
        await asyncio.wait_for(starting.wait(), 30)
        await client.close()
        await server.kill()
        ended = await asking
    assert (ended.code, ended.error["code"]) == (3, "connection-lost"), ended.err


async def test_what_is_too_large_for_the_server_is_said(bench: NexletBench, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", "1")
    (folder / "function.py").write_text("def handler(event, context):\n    return b''\n" + "#\n" * 400_000)
    ended = await run(bench, "deploy", folder)
    assert (ended.code, ended.error["code"]) == (1, "payload-too-large"), ended.err
    dev = await nexfn("dev", folder, "--once", "-p", "0")
    assert (dev.code, [record["type"] for record in dev.records]) == (1, ["development", "refused", "summary"])


NO_STOPPING = """
authorization { users: [
  { user: all, password: p }
  { user: eve, password: p, permissions: { publish: { deny: ["$NEX.SVC.*.control.UNDEPLOY.>"] } } }
] }
"""


async def test_what_could_not_be_stopped_is_told_and_goes_on(tmp_path: Path) -> None:
    async with EmbeddedServer(config=NO_STOPPING, jetstream=False) as server:
        url = server.url.replace("//", "//all:p@")
        node = StandIn(url, tmp_path)
        await node.start()
        try:
            async with nexlet_bench(server, node, url=url, servers=url) as bench:
                one = await ship(bench.control, read_function(write(tmp_path / "one", "1")), NAMESPACE)
                client = await nats.connect(server.url.replace("//", "//eve:p@"))
                control = ControlClient(client, NAMESPACE, nodes=1, wait=2.0)
                with pytest.raises(Left) as caught:
                    await ship(control, read_function(write(tmp_path / "two", "2")), NAMESPACE)
                await client.close()
                left = caught.value
                assert [each.id for each in left.shipped.beside] == [one.workload_id]
                assert left.shipped.replaced == ()
                assert expected_failure(left).exit is Exit.FAILED  # type: ignore[union-attr]
                text = f"greet runs as {left.shipped.workload_id}, but what ran before it could not be stopped"
                assert text in str(left)
                assert "do these credentials permit that" in str(left)
                assert f"nexfn stop ID --namespace {NAMESPACE}" in str(left)
                answers = {(await bench.ask("greet.hello")).data for _ in range(40)}
                assert answers == {b"1", b"2"}, "they share the messages"

        finally:
            await node.stop()
