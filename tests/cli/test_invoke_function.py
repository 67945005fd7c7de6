"""`nexfn invoke` of functions that run: found by name or id, and all that is heard of the invocation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nexlet_functions.cli.remote import fill
from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.cli import Ended, environment, nexfn
from tests.support.nexlets import NAMESPACE, NexletBench, deploy, nexlet_bench
from tests.support.nodes import StandIn

TALKS = """
def handler(event, context):
    print("printed", event.text)
    context.log.info("noted", order=17)
    context.metrics.count("calls")
    if event.text == "fail":
        raise ValueError("oh dear")
    if event.text == "reject":
        raise Reject(422, "not that")
    if event.text == "spin":
        while True:
            pass
    return {"subject": event.subject, "tokens": list(event.tokens)}
"""


async def invoke(bench: NexletBench, *arguments: str | Path, namespace: str = NAMESPACE) -> Ended:
    return await nexfn("invoke", "-s", bench.server.url, "-n", namespace, "--nodes", "1", *arguments)


async def test_all_that_is_heard_of_it_is_in_the_record(bench: NexletBench) -> None:
    workload_id = await deploy(bench.control, TALKS, name="talks", triggers=["talk.it"])
    await bench.ask("talk.it", b"before")
    for named in ("talks", workload_id, "talk.it"):
        ended = await invoke(bench, named, "hi")
        assert ended.code == 0, ended.err
        (record,) = ended.records
        assert (record["subject"], record["ok"], record["outcome"], record["code"]) == ("talk.it", True, "ok", 200)
        assert record["json"] == {"subject": "talk.it", "tokens": []}
        assert [(line["stream"], line["text"]) for line in record["logs"]][:1] == [("stdout", "printed hi")]
        assert json.loads(record["logs"][1]["text"])["invocation_id"] == record["invocation_id"]
        assert len(record["logs"]) == 2
        assert record["metrics"] == [{"name": "calls", "kind": "counter", "value": 1}]
        assert record["headers"]["workload_id"] == workload_id
        assert 0 < record["duration_ms"] < record["round_trip_ms"]
        assert record["cpu_ms"] > 0
        assert record["queue_ms"] >= 0
        assert record["peak_memory_bytes"] > 0
        assert "notes" not in record


async def test_how_it_ends_is_the_exit_code_and_the_record(bench: NexletBench) -> None:
    await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    failed = await invoke(bench, "talks", "fail")
    (record,) = failed.records
    assert (failed.code, record["code"], record["outcome"], record["error"]) == (1, 500, "error", "ValueError: oh dear")
    assert record["traceback"].splitlines()[-1] == "ValueError: oh dear"
    assert record["logs"][0]["text"] == "printed fail"
    assert len(record["logs"]) == 2, "the traceback is not told twice"

    rejected = await invoke(bench, "talks", "reject", "--text")
    first, *rest = rejected.out.splitlines()
    assert (rejected.code, first) == (1, "error 422: not that")
    assert rest[:2] == ["stdout   printed reject", "info     noted  order=17"]
    assert rest[2].startswith("rejected_by_function 422 in ")
    assert ", peak memory " in rest[2]
    assert " ms there and back by acme/" in rest[3]
    assert ", invocation " in rest[3]
    assert len(rest) == 4

    # The function is told how long its caller waits, and its own answer about that still counts.
    late = await invoke(bench, "talks", "spin", "--timeout", "300ms")
    (record,) = late.records
    assert (late.code, record["code"], record["outcome"]) == (1, 504, "timeout")
    assert record["duration_ms"] >= 250


async def test_a_sample_event_is_sent_and_compared(bench: NexletBench, tmp_path: Path) -> None:
    await deploy(bench.control, TALKS, name="talks", triggers=["talk.*", "other"])
    event = {"subject": "talk.loud", "data": "hi", "expect": {"json": {"subject": "talk.loud", "tokens": ["loud"]}}}
    (tmp_path / "one.json").write_text(json.dumps(event))
    for named in ((), ("talks",)):
        ended = await invoke(bench, *named, "--event", tmp_path / "one.json")
        assert ended.code == 0, ended.err
        assert (ended.records[0]["subject"], ended.records[0]["differences"]) == ("talk.loud", [])
    (tmp_path / "one.json").write_text(json.dumps(event | {"data": "reject"}))
    differs = await invoke(bench, "--event", tmp_path / "one.json")
    assert differs.code == 1
    assert differs.records[0]["differences"][0] == "outcome: expected ok, got rejected_by_function (not that)"
    (tmp_path / "one.json").write_text(json.dumps(event | {"data": "reject", "expect": {"outcome": "timeout"}}))
    assert (await invoke(bench, "--event", tmp_path / "one.json")).code == 1
    expected = {"outcome": "rejected_by_function", "code": 422}
    (tmp_path / "one.json").write_text(json.dumps(event | {"data": "reject", "expect": expected}))
    assert (await invoke(bench, "--event", tmp_path / "one.json")).code == 0, "an error that is expected is none"


async def test_what_stands_for_wildcards_is_asked_for(bench: NexletBench) -> None:
    await deploy(bench.control, TALKS, name="wild", triggers=["wild.*.of.>"])
    open_ = await invoke(bench, "wild")
    assert (open_.code, open_.error["code"]) == (2, "subject-open")
    assert open_.error["message"] == "wild listens to wild.*.of.>, which stands for more than one subject"
    assert "--wildcard WORD --wildcard REST" in open_.error["advice"]
    assert "--subject wild.WORD.of.REST" in open_.error["advice"]
    for more in (("-w", "a", "-w", "b", "-w", "c"), ("-w", "a", "-w", "b.c"), ("--subject", "wild.a.of.b.c")):
        ended = await invoke(bench, "wild", *more)
        assert ended.code == 0, ended.err
        assert ended.records[0]["json"] == {"subject": "wild.a.of.b.c", "tokens": ["a", "b.c"]}
    unfit = await invoke(bench, "wild", "-w", "a")
    assert (unfit.code, unfit.error["code"]) == (2, "tokens-do-not-fit")
    astray = await invoke(bench, "wild", "--subject", "tame.a")
    assert (astray.code, astray.error["code"]) == (2, "no-trigger")

    several = await deploy(bench.control, TALKS, name="several", triggers=["some.*", "plain"])
    assert (await invoke(bench, "several")).records[0]["subject"] == "plain"
    assert (await invoke(bench, several, "-w", "x")).records[0]["subject"] == "some.x"


async def test_who_is_meant_where_names_do_not_say_it(bench: NexletBench) -> None:
    one = await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    two = await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
    assert (await invoke(bench, "talks")).code == 0, "clones are one function"
    asked = set()
    for _ in range(40):
        (record,) = (await invoke(bench, one)).records
        asked.add(record["headers"]["workload_id"])
        if record["headers"]["workload_id"] == two:
            assert record["notes"] == [f"{two} answered, which shares the messages of {one}"]
            break
    assert two in asked, "40 times by chance"

    nobody = await invoke(bench, "talk5")
    assert (nobody.code, nobody.error["code"]) == (3, "no-responders")
    assert (
        "nobody listens on 'talk5', and nothing of the name or id 'talk5' runs in namespace acme"
        in (nobody.error["message"])
    )
    assert "did you mean talks?" in nobody.error["message"]
    assert (await invoke(bench, "talk.5")).error["code"] == "no-responders"

    bench.control.namespace = "other"
    await deploy(bench.control, TALKS, name="talks", triggers=["elsewhere"])
    ambiguous = await invoke(bench, "talks", namespace="system")
    assert (ambiguous.code, ambiguous.error["code"]) == (1, "ambiguous-workload")
    assert (await invoke(bench, "talks", namespace="other")).records[0]["subject"] == "elsewhere"


async def test_what_does_not_answer_is_not_waited_for(bench: NexletBench) -> None:
    mute = await deploy(bench.control, TALKS, name="mute", triggers=[{"subject": "hush", "reply": False}])
    named = await invoke(bench, "mute", "hi")
    assert (named.code, named.records) == (
        0, [{"type": "published", "subject": "hush", "note": "mute does not answer there"}],
    )  # fmt: skip
    assert (await bench.event(mute))["outcome"] == "ok"
    asked = await invoke(bench, "hush", "hi", "--timeout", "300ms")
    assert (asked.code, asked.error["code"]) == (4, "request-timeout")
    assert asked.error["advice"].startswith("it was run there, and ended ok")
    told = await invoke(bench, "mute", "--no-reply", "told")
    assert (told.code, told.records) == (0, [{"type": "published", "subject": "hush"}])
    assert (await bench.event(mute, count=3))["outcome"] == "ok"
    assert "printed told" in bench.logs(mute, "stdout")
    unknown = await invoke(bench, "mut", "--no-reply", "--subject", "hush")
    assert (unknown.code, unknown.error["code"]) == (1, "unknown-workload")


PERMISSIONS = """
authorization { users: [
  { user: all, password: p }
  { user: own, password: p, permissions: { publish: [">"], subscribe: ["_INBOX.>", "$NEX.FEED.acme.>"] } }
  { user: eve, password: p, permissions: { publish: [">"], subscribe: ["_INBOX.>"] } }
] }
"""


async def test_who_may_not_listen_gets_the_answer_alone(tmp_path: Path) -> None:
    async with EmbeddedServer(config=PERMISSIONS, jetstream=False) as server:
        url = server.url.replace("//", "//all:p@")
        node = StandIn(url, tmp_path)
        await node.start()
        try:
            async with nexlet_bench(server, node, url=url, servers=url) as bench:
                await deploy(bench.control, TALKS, name="talks", triggers=["talk"])

                async def by(user: str, *command: str) -> Ended:
                    env = environment(NATS_URL=server.url.replace("//", f"//{user}:p@"))
                    return await nexfn(*command, "-n", NAMESPACE, "--nodes", "1", env=env)

                (record,) = (await by("own", "invoke", "talks", "hi")).records
                assert (record["outcome"], len(record["logs"])) == ("ok", 2), "its namespace's own feeds will do"
                (record,) = (await by("eve", "invoke", "talks", "hi")).records
                assert (record["ok"], record["json"]["subject"]) == (True, "talk")
                assert not {"logs", "metrics", "duration_ms", "outcome"} & set(record)
                assert record["notes"] == ["the server does not let us listen to events and logs and metrics"]

                # `logs` has nothing without its feed.
                refused = await by("eve", "logs", "--for", "1s")
                assert (refused.code, refused.error["code"]) == (1, "subscription-refused")
                followed = await by("own", "logs", "talks", "--for", "100ms")
                assert (followed.code, followed.records[0]["functions"]) == (0, ["talks"])
        finally:
            await node.stop()


async def test_an_operator_who_publishes_failures_only(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node, events="failures") as bench:
            await deploy(bench.control, TALKS, name="talks", triggers=["talk"])
            (record,) = (await invoke(bench, "talks", "hi")).records
            assert (record["ok"], len(record["logs"])) == (True, 2)
            assert record["notes"][0].startswith("no event came about it")
            (failed,) = (await invoke(bench, "talks", "fail")).records
            assert (failed["outcome"], "notes" in failed) == ("error", False)
    finally:
        await node.stop()


@pytest.mark.parametrize(
    ("pattern", "words", "subject"),
    [
        ("a", (), "a"),
        ("a", ("b",), None),
        ("a.*", ("b",), "a.b"),
        ("a.*", (), None),
        ("a.*", ("b", "c"), None),
        ("a.*", ("b.c",), None),
        ("a.*", ("*",), None),
        ("a.*", ("",), None),
        ("a.*.c.*", ("b", "d"), "a.b.c.d"),
        ("a.>", ("b",), "a.b"),
        ("a.>", ("b", "c"), "a.b.c"),
        ("a.>", ("b.c",), "a.b.c"),
        ("a.>", (), None),
        ("a.>", (">",), None),
        ("a.*.>", ("b",), None),
    ],
)
def test_words_in_place_of_wildcards(pattern: str, words: tuple[str, ...], subject: str | None) -> None:
    assert fill(pattern, words) == subject
