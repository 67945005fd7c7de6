"""`nexfn pack --seal --push`: what a nexlet then opens and fetches, and nobody else can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.artifacts import digest_of
from tests.support.cli import nexfn
from tests.support.nexlets import NAMESPACE, nexlet_bench
from tests.support.nodes import NO_NEX, Node, RealNode, StandIn, find_nex

SOURCE = "def handler(event, context):\n    return context.env['WORD'] + context.env['PLAIN']\n"


def write(folder: Path, **start: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "function.py").write_text(SOURCE)
    nexfile = {
        "name": "sealed",
        "type": "python",
        "lifecycle": "function",
        "start_request": {"source_file": "function.py", "triggers": ["sealed.ask"], **start},
    }
    (folder / "Nexfile").write_text(json.dumps(nexfile))
    return folder


@pytest.mark.parametrize("make", ["stand-in", "real"])
async def test_sealed_and_pushed_it_runs_and_gives_nothing_away(
    make: str, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    binary = find_nex()
    if make == "real" and binary is None:
        pytest.skip(NO_NEX)
    url = nats_server.url
    node: Node = StandIn(url, tmp_path) if make == "stand-in" else RealNode(binary or "", url, tmp_path)
    folder = write(tmp_path / "sealed", environment={"WORD": "hunter2", "PLAIN": "secret://PLAIN"})
    (tmp_path / "secrets" / NAMESPACE).mkdir(parents=True)
    (tmp_path / "secrets" / NAMESPACE / "PLAIN").write_text("!")
    packed = tmp_path / "packed"
    packed.mkdir()
    options = ("-s", url, "-n", NAMESPACE, "--nodes", "1")
    await node.start()
    try:
        async with nexlet_bench(nats_server, node, secrets_dir=tmp_path / "secrets") as bench:
            nowhere = await nexfn("pack", *options, "--push", "functions", folder)
            assert (nowhere.code, nowhere.error["code"], nowhere.out) == (1, "no-bucket", "")

            await bench.client.jetstream().create_object_store("functions")
            done = await nexfn("pack", *options, "--seal", "--push", "functions", folder, "-o", packed / "Nexfile")
            assert done.code == 0, done.err
            text = (packed / "Nexfile").read_text()
            assert "hunter2" not in text
            request = yaml.safe_load(text)["start_request"]
            digest = digest_of(SOURCE.encode())
            assert (request["uri"], request["sha256"]) == (f"nats://functions/sealed:{digest[:12]}", digest)
            assert "source" not in request
            assert request["environment"] == {"PLAIN": "secret://PLAIN"}

            deployed = await nexfn("deploy", *options, packed)
            assert deployed.code == 0, deployed.err
            assert (await bench.ask("sealed.ask")).data == b"hunter2!"
    finally:
        await node.stop()


async def test_what_cannot_be_sealed_is_said(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    folder = write(tmp_path / "sealed", environment={"WORD": "secret://WORD"})
    nothing = await nexfn("pack", "-s", nats_server.url, "--seal", folder)
    assert (nothing.code, nothing.error["code"]) == (2, "nothing-to-seal")
    nobody = await nexfn("pack", "-s", nats_server.url, "--seal", write(folder, environment={"WORD": "hunter2"}))
    assert (nobody.code, nobody.error["code"], nobody.out) == (3, "no-bid", "")
    assert "hunter2" not in nobody.err
