"""What is begun before the command line is read: for which words, and that it is what the command then uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexlet_functions import nexlet as nexlet_module
from nexlet_functions.cli import ahead
from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.nexlet import Nexlet
from nexlet_functions.sandboxing import LayersMissing, prove_soon
from nexlet_functions.settings import Settings, SettingsHolder
from nexlet_sandboxes.zygote import Zygote
from tests.support.polling import eventually
from tests.support.zygotes import missing, open_zygote


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing in the environment says otherwise, and what was launched is gone."""
    for name in ("NEXFN_SETTINGS_FILE", "NEXFN_CGROUP"):
        monkeypatch.delenv(name, raising=False)
    yield
    launched = ahead.take()
    if launched is not None:
        launched.end()


@pytest.mark.parametrize(
    "words",
    [
        "up --help",
        "up -h",
        "up --settings-file settings.yaml",
        "up -s nats://x --settings-file=settings.yaml",
        "up --cgroup /sys/fs/cgroup/x",
        "version",
        "list up",
        "",
    ],
)
def test_for_other_words_nothing_is_begun(words: str) -> None:
    ahead.begin(words.split())
    assert ahead.take() is None


@pytest.mark.parametrize("name", ["NEXFN_SETTINGS_FILE", "NEXFN_CGROUP"])
def test_where_the_environment_asks_for_another_zygote_nothing_is_begun(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/somewhere")
    ahead.begin(["up"])
    assert ahead.take() is None


async def test_the_nexlet_takes_over_the_zygote_that_was_begun_for_it() -> None:
    ahead.begin(["up", "-s", "nats://127.0.0.1:4222"])
    launched = ahead.take()
    assert launched is not None
    zygote = await Zygote.start(launched=launched)
    try:
        assert zygote.pid == launched.process.pid
    finally:
        await zygote.close()
    assert ahead.take() is None, "it is somebody's"


async def test_one_for_modules_that_the_settings_permit_is_another() -> None:
    ahead.begin(["up"])
    launched = ahead.take()
    assert launched is not None
    zygote = await Zygote.start(modules={"colorsys": ("rgb_to_hsv",)}, launched=launched)
    try:
        assert zygote.pid != launched.process.pid
        assert launched.process.returncode is not None
    finally:
        await zygote.close()


def test_a_command_line_that_is_refused_leaves_no_zygote() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nexlet_functions", "up", "--no-such-option"],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert done.returncode == 2, done.stderr
    own = f"-m{chr(0)}nexlet_sandboxes.zygote_main"

    def orphans() -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_text()
                if own in line and "\nPPid:\t1\n" in (folder / "status").read_text():
                    found.append(folder.name)
        return found

    async def none() -> None:
        await eventually(lambda: not orphans(), what="none is left without a parent")

    asyncio.run(none())


async def test_a_proof_that_was_begun_is_not_begun_again(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.read({"servers": nats_server.url, "no_state": True})
    zygote = asyncio.ensure_future(Zygote.start())
    proof = asyncio.ensure_future(prove_soon(zygote, settings))
    monkeypatch.setattr(nexlet_module, "prove", None)  # whoever calls it fails
    async with await Nexlet.start(SettingsHolder(settings), zygote=zygote, proof=proof) as nexlet:
        assert nexlet.sandboxing is proof.result()


async def test_where_the_proof_fails_nothing_of_the_nexlet_is_left(nats_server: EmbeddedServer) -> None:
    settings = Settings.read({"servers": nats_server.url, "no_state": True})
    async with open_zygote(missing("landlock")) as lacking:
        zygote: asyncio.Future[Zygote] = asyncio.get_running_loop().create_future()
        zygote.set_result(lacking)
        proof = asyncio.ensure_future(prove_soon(zygote, settings))
        with pytest.raises(LayersMissing):
            await Nexlet.start(SettingsHolder(settings), zygote=zygote, proof=proof)
        assert proof.done()
        assert lacking.pid is None or not lacking.lives
