"""What `dev` takes for a version: what is seen in the middle of saving is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nexlet_functions.cli.devloop.deployments import Change, Deployments, Gone, Refused, Started
from nexlet_functions.devnode.server import EmbeddedServer
from tests.cli.test_dev_saves import source, write
from tests.support.nexlets import NAMESPACE, NexletBench, nexlet_bench
from tests.support.nodes import StandIn


@pytest.fixture
async def bench(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[NexletBench]:
    node = StandIn(nats_server.url, tmp_path)
    await node.start()
    try:
        async with nexlet_bench(nats_server, node) as nexlet:
            yield nexlet
    finally:
        await node.stop()


class Editor:
    """Does what is left of a save when it is waited for, a step each time."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)

    async def pause(self, seconds: float) -> None:
        if self.steps:
            self.steps.pop(0)()


async def all_of(deployments: Deployments) -> list[Change]:
    return [change async for change in deployments.look()]


async def test_a_save_in_several_steps_is_one_version(bench: NexletBench, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    editor = Editor()
    deployments = Deployments([greet], bench.control, NAMESPACE, None, pause=editor.pause)
    (first,) = await all_of(deployments)
    assert isinstance(first, Started)

    file = greet / "function.py"
    file.write_text("")  # emptied
    editor.steps = [lambda: file.write_text("def handler(event"), lambda: file.write_text(source("2"))]
    (second,) = await all_of(deployments)
    assert isinstance(second, Started)
    assert second.replaced == (first.deployed.workload_id,)
    assert editor.steps == []
    assert (await bench.ask("greet.hello")).data == b"2"
    assert await all_of(deployments) == []

    file.write_text("")
    editor.steps = [lambda: file.write_text(source("2"))]
    assert await all_of(deployments) == [], "saved as it was"


async def test_a_manifest_that_is_moved_aside_is_not_gone(bench: NexletBench, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    editor = Editor()
    deployments = Deployments([greet], bench.control, NAMESPACE, None, pause=editor.pause)
    await all_of(deployments)
    nexfile = greet / "Nexfile"
    aside = nexfile.rename(greet / "Nexfile~")
    editor.steps = [lambda: aside.rename(nexfile)]
    assert await all_of(deployments) == []
    assert (await bench.ask("greet.hello")).data == b"1"

    nexfile.rename(aside)
    (gone,) = await all_of(deployments)
    assert isinstance(gone, Gone)
    assert not gone.failure
    assert deployments.running == {}


async def test_what_is_still_wrong_a_moment_later_is_told_once(bench: NexletBench, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    deployments = Deployments([greet], bench.control, NAMESPACE, None, pause=Editor().pause)
    await all_of(deployments)
    (greet / "function.py").write_text("def handler(event")
    (refused,) = await all_of(deployments)
    assert isinstance(refused, Refused)
    assert "function.py:1" in refused.text
    assert refused.kept is not None
    assert await all_of(deployments) == []
    assert (await bench.ask("greet.hello")).data == b"1"


async def test_what_somebody_else_replaced_is_replaced_again(bench: NexletBench, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    deployments = Deployments([greet], bench.control, NAMESPACE, None, pause=Editor().pause)
    await all_of(deployments)
    (other,) = await all_of(Deployments([greet], bench.control, NAMESPACE, None))
    assert isinstance(other, Started)
    (greet / "function.py").write_text(source("2"))
    (mine,) = await all_of(deployments)
    assert isinstance(mine, Started)
    assert mine.replaced == (other.deployed.workload_id,)
    assert {(await bench.ask("greet.hello")).data for _ in range(10)} == {b"2"}
