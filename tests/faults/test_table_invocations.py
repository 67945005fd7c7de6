"""The failure table's rows about starts and invocations (`docs/failures.md`): what the requester reads, the event with
all its fields, the feeds, the counts, the worker's fate, and that the nexlet holds afterwards what it held before.

All of it over both ways of using nats-py, beside the stand-in node and, where there is a `nex`, beside a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from prometheus_client.parser import text_string_to_metric_families

from nexlet_functions.control import ControlRefused
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from nexlet_models.events import INVOCATION_HEADER
from tests.support.inventory import Inventory, fetch, nothing_left, settled_inventory
from tests.support.nexlets import MONITORED, NAMESPACE, NexletBench, deploy, nexlet_bench
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex
from tests.support.polling import eventually
from tests.support.row import row
from tests.support.settle import settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOURCE = """
import itertools
import os
import time

def failing(text):
    raise ValueError(text)

def handler(event, context):
    what, _, rest = event.text.partition(" ")
    if what == "return":
        return rest
    if what == "headers":
        return Reply(rest, headers={"X-Kind": "test"})
    if what == "reject":
        raise Reject(422, rest)
    if what == "json":
        return event.json()
    if what == "raise":
        failing(rest + chr(13) + chr(10) + "workload_id: forged")
    if what == "spin":
        while True:
            pass
    if what == "grow":
        kept = []
        while True:
            kept.append("x" * 1048576)
    if what == "syscall":
        os.getpgrp()
    if what == "set":
        return {1, 2}
    if what == "nan":
        return float("nan")
    if what == "large":
        return "x" * int(rest)
    if what == "endless":
        nested = []
        nested.append(nested)
        return nested
    if what == "flood":
        for n in range(5000):
            print("x" * 200)
        return "flooded"
    if what == "sleep":
        time.sleep(float(rest))
        return "slept"
    if what == "print":
        print(rest)
        context.metrics.gauge("level", 3)
        return None
"""

FIELDS = {
    "id", "namespace", "duration", "invocation_id", "subject", "outcome", "error", "queue_ms", "cpu_ms",
    "peak_memory_bytes", "attempt",
}  # fmt: skip
"""Of an event about an invocation; `error` only where there is one."""


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[("stand-in", "fast"), ("stand-in", "public"), ("real", "fast")],
    ids=lambda of: " ".join(of),
)
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NexletBench]:
    """One nexlet for all rows: what a row leaves would be seen by its own inventory."""
    kind, client = request.param
    folder = tmp_path_factory.mktemp("table")
    settings = folder / "settings.yaml"
    settings.write_text("modules: {os: [getpgrp]}\n")  # which is a system call that `strict` has no use for
    async with EmbeddedServer(config=MONITORED) as server:
        binary = find_nex()
        if kind == "real" and binary is None:
            pytest.skip(NO_NEX)
        node: Node = RealNode(binary, server.url, folder) if kind == "real" and binary else StandIn(server.url, folder)
        await node.start()
        try:
            options = Options(public_only=client == "public")
            state = folder / "state"
            async with nexlet_bench(server, node, options=options, state_dir=state, settings_file=settings) as made:
                # What is made for a namespace's first function stays: its feed.
                warm = await deploy(made.control, SOURCE, name="first")
                await made.control.stop(warm)
                yield made
        finally:
            await node.stop()


@dataclass
class Function:
    """A function that was deployed for one row.

    Attributes:
        subject: its trigger.
        worker: the process of its first worker.
    """

    bench: NexletBench
    id: str
    name: str
    subject: str
    worker: int

    async def ask(self, payload: bytes, *, timeout: float = 20.0) -> Msg:
        return await self.bench.ask(self.subject, payload, timeout=timeout)

    @property
    def identity(self) -> dict[str, str]:
        """The headers that every answer has, an error or not."""
        return {"workload_id": self.id, "namespace": NAMESPACE}

    async def event(self, *, count: int = 1) -> dict[str, Any]:
        """The last event, once there are `count`; every one has its fields."""
        await self.bench.event(self.id, count=count)
        for event in self.bench.events(self.id):
            assert set(event) | {"error"} == FIELDS
            assert (event["id"], event["namespace"], event["subject"]) == (self.id, NAMESPACE, self.subject)
            assert event["attempt"] == 1
        events = self.bench.events(self.id)
        assert len({event["invocation_id"] for event in events}) == len(events)
        return events[-1]

    async def counts(self) -> dict[str, int]:
        """Ended invocations by outcome, as the list of workloads tells them."""
        metadata = (await self.bench.summary(self.id)).metadata or {}
        counted = {
            name.removeprefix("outcome_"): int(value) for name, value in metadata.items() if name.startswith("outcome_")
        }
        assert int(metadata["invocations"]) == sum(counted.values())
        return counted

    async def metrics(self) -> dict[str, dict[str, float]]:
        """What Prometheus reads of this function: values by metric and its one further label, "" where it has none."""
        found: dict[str, dict[str, float]] = {}
        text = await asyncio.to_thread(fetch, f"http://{self.bench.metrics}/metrics")
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                labels = dict(sample.labels)
                if (labels.pop("namespace", ""), labels.pop("name", "")) == (NAMESPACE, self.name):
                    found.setdefault(sample.name, {})[next(iter(labels.values()), "")] = sample.value
        return found

    def logs(self, stream: str) -> list[str]:
        return self.bench.logs(self.id, stream)


Deployed = Callable[..., contextlib.AbstractAsyncContextManager[Function]]


@pytest.fixture
def deployed(bench: NexletBench, request: pytest.FixtureRequest) -> Deployed:
    """Deploys the function of a row; at the end it is stopped, and the nexlet holds what it held before."""
    name = f"row{zlib.crc32(request.node.name.encode()):x}"

    @contextlib.asynccontextmanager
    async def deployed(**start: Any) -> AsyncIterator[Function]:
        before = await inventory(bench)
        processes = bench.workers()
        asked = {"triggers": [name], "workers": {"min": 0, "max": 1}, **start}
        workload_id = await deploy(bench.control, SOURCE, name=name, **asked)
        (worker,) = bench.workers() - processes
        yield Function(bench, workload_id, name, name, worker)
        assert (await bench.control.stop(workload_id)).stopped
        await left_nothing(bench, before)
        bench.heard.clear()

    return deployed


async def inventory(bench: NexletBench) -> Inventory:
    return await settled_inventory(bench.server.monitoring, *folders(bench))


async def left_nothing(bench: NexletBench, before: Inventory) -> None:
    await nothing_left(before, bench.server.monitoring, *folders(bench))


def folders(bench: NexletBench) -> list[Path]:
    """Where a nexlet might leave a file: its state, and files of its own that it would name like itself."""
    state = bench.nexlet._settings.current.state_dir
    assert state is not None
    return [state, *Path(tempfile.gettempdir()).glob("nexlet-functions*")]


def is_error(answer: Msg, function: Function, code: int, text: str) -> None:
    """An answer with an error: these headers, and no others."""
    assert answer.headers is not None
    assert text in answer.headers["error"]
    assert answer.headers == {
        **function.identity,
        INVOCATION_HEADER: answer.headers[INVOCATION_HEADER],
        "error": answer.headers["error"],
        "Nats-Service-Error": answer.headers["error"],
        "Nats-Service-Error-Code": str(code),
    }


@dataclass(frozen=True)
class Case:
    """One request to a function, and all that comes of it.

    Attributes:
        payload: says what the function does.
        code, error: what the requester reads; 200 is a reply without an error.
        body: of the answer.
        headers: beside ours.
        start: the rest of the start request.
        stdout: lines on the feed.
        stderr: what is in the one message on the feed; "" for none.
        kept: whether the worker lives on.
        act: what happens to the worker while it runs.
    """

    payload: bytes
    outcome: str
    code: int = 200
    error: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    stdout: tuple[str, ...] = ()
    stderr: str = ""
    kept: bool = True
    act: Callable[[int], None] | None = None


def segfault(worker: int) -> None:
    os.kill(worker, signal.SIGSEGV)


LONG = {"limits": {"timeout": "20s"}}

CASES = [
    row("returns", Case(b"return well", "ok", body=b"well")),
    row("returns", Case(b"headers well", "ok", body=b"well", headers={"X-Kind": "test"}), "with headers"),
    row("returns", Case(b"print hello", "ok", stdout=("hello",)), "nothing"),
    row(
        "raises `Reject(code, text)`, or asks for JSON where there is none",
        Case(b"reject qty must be > 0", "rejected_by_function", 422, "qty must be > 0", body=b"qty must be > 0"),
    ),
    row(
        "raises `Reject(code, text)`, or asks for JSON where there is none",
        Case(
            b"json {", "rejected_by_function", 400, "the payload is not JSON",
            body=b"the payload is not JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0)",
        ),
        "no JSON",
    ),
    row("raises", Case(b"raise no luck", "error", 500, "ValueError: no luck", stderr="raise ValueError(text)")),
    row(
        "over its time",
        Case(
            b"spin", "timeout", 504, "took longer than its limit of 0.2 s", start={"limits": {"timeout": "200ms"}},
            stderr="timeout: took longer than its limit of 0.2 s", kept=False,
        ),
    ),
    row(
        "over its memory",
        Case(
            b"grow", "memory", 507, "48 MiB", start={"limits": {"memory": "48MiB", "timeout": "20s"}},
            stderr="memory: ", kept=False,
        ),
    ),
    row(
        "dies",
        Case(
            b"sleep 15", "crash", 502, "the worker died: signal SIGSEGV", start=LONG,
            stderr="crash: the worker died: signal SIGSEGV", kept=False, act=segfault,
        ),
        "of a signal",
    ),
    row(
        "dies",
        Case(
            b"syscall", "crash", 502, "the worker died: signal SIGSYS", start=LONG,
            stderr="crash: the worker died: signal SIGSYS", kept=False,
        ),
        "of a system call",
    ),
    row("a result that is no answer", Case(b"set", "error", 500, "a set, which is not JSON", stderr="a set"), "a set"),
    row("a result that is no answer", Case(b"nan", "error", 500, "nan, which is not JSON", stderr="nan"), "NaN"),
    row(
        "a result that is no answer",
        Case(b"large 2000000", "error", 500, "the reply is 2000000 bytes, more than the", stderr="2000000 bytes"),
        "too large",
    ),
    row("a result that is no answer", Case(b"endless", "error", 500, "holds itself", stderr="holds itself"), "endless"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_an_invocation(case: Case, bench: NexletBench, deployed: Deployed) -> None:
    async with deployed(**case.start) as function:
        asked = asyncio.create_task(function.ask(case.payload))
        if case.act is not None:
            await runs(function)
            case.act(function.worker)
        answer = await asked

        # The requester.
        if case.code == 200:
            assert answer.headers == {**function.identity, **case.headers}
        else:
            is_error(answer, function, case.code, case.error)
        assert answer.data == case.body

        # The event.
        event = await function.event()
        assert event["outcome"] == case.outcome
        assert answer.headers is not None
        assert answer.headers.get(INVOCATION_HEADER, event["invocation_id"]) == event["invocation_id"]
        if case.code == 200:
            assert "error" not in event
        else:
            assert event["error"].partition("\r")[0] in answer.headers["error"]
        limit = 200 if case.outcome == "timeout" else 0
        assert limit <= event["duration"] < 20_000
        assert 0 <= event["queue_ms"] < 20_000
        assert 0 <= event["cpu_ms"] < 20_000
        if case.outcome in ("timeout", "memory"):
            assert event["cpu_ms"] > 0, "it did nothing but compute"
        assert event["peak_memory_bytes"] > 1_000_000

        # The feeds.
        assert len(case.stderr.splitlines()) <= 1
        await eventually(lambda: len(function.logs("stderr")) == bool(case.stderr), what="what its author reads")
        await eventually(lambda: tuple(function.logs("stdout")) == case.stdout, what="what it printed")
        for message in function.logs("stderr"):
            assert case.stderr in message
            assert "nexlet_sandboxes" not in message, "lines of ours are no business of the author's"
            assert "site-packages" not in message
        if case.outcome == "error" and case.payload.startswith(b"raise"):
            (traceback,) = function.logs("stderr")
            assert traceback.count("function.py") == 2, "handler, and what it called"

        # The counts.
        assert await function.counts() == {case.outcome: 1}
        metrics = await function.metrics()
        assert nonzero(metrics["nexlet_function_invocations_total"]) == {case.outcome: 1}
        assert metrics["nexlet_function_duration_seconds_count"] == {"": 1}
        assert metrics["nexlet_function_queue_seconds_count"] == {"": 1}
        assert metrics["nexlet_function_in_flight"] == metrics["nexlet_function_pending"] == {"": 0}
        deaths = {} if case.kept else {case.outcome: 1}
        assert nonzero(metrics.get("nexlet_function_worker_deaths_total", {})) == deaths

        # The worker, and that the function goes on.
        assert (await function.ask(b"return on")).data == b"on"
        if case.kept:
            assert function.worker in bench.workers()
        else:
            await eventually(lambda: function.worker not in bench.workers(), what="the worker is gone")
        summary = await bench.summary(function.id)
        assert summary.workload_state == "running"
        assert (summary.metadata or {})["workers"] == "1/1"


def nonzero(values: dict[str, float]) -> dict[str, float]:
    return {label: value for label, value in values.items() if value}


async def runs(function: Function) -> None:
    """Return once the function is at an invocation."""
    pool = function.bench.nexlet.runner.agent._functions[function.id]._pool  # type: ignore[attr-defined]
    await eventually(lambda: any(link.process.running_call for link in pool._links), what="it runs")


@row("an output flood")
async def test_a_flood_of_output(bench: NexletBench, deployed: Deployed) -> None:
    async with deployed(limits={"log_rate": "2KiB"}) as function:
        answer = await function.ask(b"flood")
        assert (answer.data, answer.headers) == (b"flooded", function.identity)
        assert (await function.event())["outcome"] == "ok"
        await eventually(lambda: any("lines dropped" in line for line in function.logs("stderr")), what="it is said")
        dropped = sum(int(line.split()[0]) for line in function.logs("stderr") if "lines dropped" in line)
        assert dropped + len(function.logs("stdout")) == 5000
        assert 10 < len(function.logs("stdout")) < 200
        assert (await bench.summary(function.id)).metadata["log_lines_dropped"] == str(dropped)  # type: ignore[index]
        assert await function.counts() == {"ok": 1}
        assert (await function.metrics())["nexlet_function_log_lines_dropped_total"] == {"": dropped}
        assert function.worker in bench.workers()


@row("the queue is full")
async def test_the_queue_is_full(bench: NexletBench, deployed: Deployed) -> None:
    async with deployed(limits={"max_pending": 2, "timeout": "20s"}) as function:
        first = asyncio.create_task(function.ask(b"sleep 0.5"))
        await runs(function)
        began = asyncio.get_running_loop().time()
        others = [asyncio.create_task(function.ask(b"return later")) for _ in range(6)]
        done: set[asyncio.Task[Msg]] = set()
        while len(done) < 4:
            done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        assert not first.done(), f"refused at once, and not {asyncio.get_running_loop().time() - began} s later"
        for task in done:
            is_error(task.result(), function, 429, "2 invocations")
        assert [(await task).data for task in others if task not in done] == [b"later", b"later"]
        assert (await first).data == b"slept"
        await function.event(count=7)
        outcomes = [event["outcome"] for event in bench.events(function.id)]
        assert (outcomes.count("rejected"), outcomes.count("ok")) == (4, 3)
        assert await function.counts() == {"rejected": 4, "ok": 3}
        metrics = await function.metrics()
        assert nonzero(metrics["nexlet_function_invocations_total"]) == {"rejected": 4, "ok": 3}
        assert function.logs("stderr") == [], "a line for each would drown the author's own"
        assert function.worker in bench.workers()


@row("waited too long")
async def test_it_waited_too_long(bench: NexletBench, deployed: Deployed) -> None:
    async with deployed(limits={"queue_timeout": "100ms", "timeout": "20s"}) as function:
        first = asyncio.create_task(function.ask(b"sleep 0.4"))
        await runs(function)
        is_error(await function.ask(b"print never"), function, 503, "was not run")
        assert (await first).data == b"slept"
        await function.event(count=2)
        expired, ran = sorted(bench.events(function.id), key=lambda event: str(event["outcome"]))
        assert (expired["outcome"], ran["outcome"]) == ("expired", "ok")
        assert (expired["duration"], expired["cpu_ms"]) == (0, 0)
        assert expired["queue_ms"] >= 100
        assert function.logs("stdout") == []
        assert await function.counts() == {"expired": 1, "ok": 1}
        metrics = await function.metrics()
        assert nonzero(metrics["nexlet_function_invocations_total"]) == {"expired": 1, "ok": 1}
        assert metrics["nexlet_function_duration_seconds_count"] == {"": 1}
        assert function.worker in bench.workers()


@row("stopped or lameduck with work in flight")
@pytest.mark.parametrize(("seconds", "code"), [("0.3", 200), ("15", 503)], ids=["within the grace", "over the grace"])
async def test_it_is_stopped_with_work_in_flight(
    seconds: str, code: int, bench: NexletBench, deployed: Deployed
) -> None:
    before = await inventory(bench)
    workload_id = await deploy(
        bench.control, SOURCE, name="stopped", triggers=["stopped"], workers={"min": 0, "max": 1}, **LONG
    )
    function = Function(bench, workload_id, "stopped", "stopped", 0)
    running = asyncio.create_task(function.ask(b"sleep " + seconds.encode()))
    await runs(function)
    assert (await bench.control.stop(workload_id)).stopped
    with pytest.raises(nats.errors.NoRespondersError):
        await function.ask(b"return no")  # subscriptions go first
    answer = await running
    if code == 200:
        assert answer.data == b"slept"
        assert (await function.event())["outcome"] == "ok"
    else:
        is_error(answer, function, 503, "the function was stopped before it ended")
        assert (await function.event())["outcome"] == "unavailable"
    await eventually(lambda: bench.events(workload_id, "WORKLOADSTOPPED"), what="that it has stopped")
    await left_nothing(bench, before)
    bench.heard.clear()


async def test_an_event_without_a_requester(bench: NexletBench, deployed: Deployed) -> None:
    async with deployed() as function:
        await bench.client.publish(function.subject, b"print to the feed")
        assert (await function.event())["outcome"] == "ok"
        await eventually(lambda: function.logs("stdout") == ["to the feed"], what="the line is on the feed")
        # Now and then the nexlet adds figures of its own.
        own = b'"kind":"nexlet"'
        (metric,) = [each for each in bench.heard if ".metrics." in each.subject and own not in each.data]
        assert metric.subject == f"$NEX.FEED.{NAMESPACE}.metrics.{function.id}"
        assert json.loads(metric.data) == {"name": "level", "kind": "gauge", "value": 3}
        (line,) = [message for message in bench.heard if ".logs." in message.subject]
        # nats-py's own interface refuses a slash in the name of a header: without its insides these are left out.
        headers = {"synadia.com/group": "", "synadia.com/namespace": NAMESPACE} if bench.fast else {}
        invocation_id = bench.events(function.id)[0]["invocation_id"]
        assert line.headers == headers | {INVOCATION_HEADER: invocation_id} == metric.headers


@pytest.mark.parametrize(("payload", "code"), [(b"return fine", 200), (b"headers fine", 200), (b"raise x", 500)])
async def test_an_answer_says_which_invocation_it_is_of_where_it_is_asked(
    payload: bytes, code: int, bench: NexletBench, deployed: Deployed
) -> None:
    async with deployed() as function:
        for name in (INVOCATION_HEADER, INVOCATION_HEADER.lower()):
            answer = await bench.ask(function.subject, payload, headers={"X": "y", name: "?"})
            event = await function.event()
            more = {"X-Kind": "test"} if payload.startswith(b"headers") else {}
            if code == 200:
                assert answer.headers == function.identity | {INVOCATION_HEADER: event["invocation_id"]} | more
            else:
                is_error(answer, function, code, "x")
                assert answer.headers is not None
                assert answer.headers[INVOCATION_HEADER] == event["invocation_id"]
            bench.heard.clear()
        other = await bench.ask(function.subject, b"return fine", headers={"X-Nex-Invocation-Id": "?"})
        assert other.headers == function.identity


async def test_no_answer_is_given_where_none_may_be(bench: NexletBench, deployed: Deployed) -> None:
    async with deployed(triggers=["table", {"subject": "mute", "reply": False}]) as function:
        for trigger, reply in (("table", "$JS.API.STREAM.LIST"), ("table", "table"), ("mute", "some.inbox")):
            heard: list[Msg] = []

            async def hear(message: Msg, heard: list[Msg] = heard) -> None:
                heard.append(message)

            subscription = None
            if reply != "table":
                subscription = await bench.client.subscribe(reply, cb=hear)
            await settle(bench.client)
            before = len(bench.events(function.id))
            await bench.client.publish(trigger, b"return no", reply=reply)
            await bench.event(function.id, count=before + 1)
            await settle(bench.client)
            assert heard == []
            if subscription is not None:
                await subscription.unsubscribe()
        assert len(bench.events(function.id)) == 3  # and none of them set off another


TRIGGERED = "events.WORKLOADTRIGGERED"
HANDLER = "def handler(event, context): pass\n"

STARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "import": ("import json\nimport socket\n" + HANDLER, ("function.py:2:1", "import of 'socket' is not allowed")),
    "source": (
        "def handler(event, context):\n    return event.__class__\n",
        ("function.py:2:18", "attribute names may not begin with '_'", "^^^^^^^^^"),
    ),
    "syntax": ("def handler(event, context:\n", ("function.py:1", "never closed")),
    "handler": ("def other(event, context): pass\n", ("no handler named 'handler'", "other")),
    "raises": (HANDLER + "raise ValueError('not today')\n", ("function.py:2", "ValueError: not today")),
    "hangs": (HANDLER + "while True: pass\n", ("function.py", "loading did not end within 0.2 s")),
}


@row("a source that is refused, cannot be imported, has no handler, raises or hangs while it loads")
@pytest.mark.parametrize("kind", STARTS)
async def test_a_start_that_fails(kind: str, bench: NexletBench) -> None:
    source, says = STARTS[kind]
    before = await inventory(bench)
    bench.heard.clear()
    with pytest.raises(ControlRefused) as refused:
        await deploy(
            bench.control, source, name="refused", triggers=["refused"], limits={"load_timeout": "200ms"}
        )  # fmt: skip
    assert refused.value.status == 400
    assert refused.value.text.startswith("refused refused: 1 problem")
    assert all(one in refused.value.text for one in says), refused.value.text
    with pytest.raises(nats.errors.NoRespondersError):
        await bench.ask("refused")
    assert await bench.control.workloads(["refused"]) == []
    await settle(bench.client)
    feed = f"$NEX.FEED.{NAMESPACE}."
    told = [one.subject.removeprefix(feed) for one in bench.heard if one.subject.startswith(feed)]
    assert not [one for one in told if one.startswith("logs.") or one in ("events.WORKLOADSTARTED", TRIGGERED)]
    await left_nothing(bench, before)
