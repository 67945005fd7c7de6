"""A function is replaced under load, by the command that people use, and not one request is lost over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.natsio.life import Options
from tests.support.cli import nexfn
from tests.support.load import Load
from tests.support.nexlets import NAMESPACE, nexlet_bench
from tests.support.nodes import StandIn

AT_ONCE = 64


def write(folder: Path, version: int) -> Path:
    """A function that answers with its version, and takes a moment for it."""
    folder.mkdir(exist_ok=True)
    (folder / "function.py").write_text(f"def handler(event, context):\n    sum(range(2000))\n    return {version}\n")
    start = {"source_file": "function.py", "triggers": ["versions.ask"]}
    nexfile = {"name": "versions", "type": "python", "lifecycle": "function", "start_request": start}
    (folder / "Nexfile").write_text(json.dumps(nexfile))
    return folder


@pytest.mark.parametrize("public_only", [False, True], ids=["fast", "public"])
@pytest.mark.parametrize("requests", [1_000, pytest.param(10_000, marks=pytest.mark.faults)])
async def test_no_request_is_lost_when_a_function_is_replaced(
    requests: int, public_only: bool, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    options = ("-s", nats_server.url, "-n", NAMESPACE, "--nodes", "1")
    try:
        async with nexlet_bench(nats_server, node, options=Options(public_only=public_only)):
            first = await nexfn("deploy", *options, write(tmp_path / "versions", 1))
            assert first.code == 0, first.err
            async with Load(nats_server.url, "versions.ask", at_once=AT_ONCE) as load:
                await load.more(requests // 4)
                second = await nexfn("deploy", *options, write(tmp_path / "versions", 2))
                assert second.code == 0, second.err
                await load.more(requests // 4)
                assert load.answers["2"], "the new one answers"
                before = load.answers["1"]
                await load.more(requests // 2)
            assert load.answers["1"] <= before + AT_ONCE, "and the old one gets no more than was on its way"
            assert second.records[0]["replaced"] == [first.records[0]["id"]]
            assert load.answered >= requests
    finally:
        await node.stop()
