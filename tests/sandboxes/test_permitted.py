"""Modules that an operator permits: in the memory of every worker, or said to be missing before there is one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from nexlet_sandboxes.outcomes import LoadRefused, Outcome
from nexlet_sandboxes.permitted import Permitted, audit, from_arguments, to_arguments
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Zygote, ZygoteError
from tests.support.polling import eventually
from tests.support.pools import Sandbox, limits, open_pool, run

PERMITTED: Permitted = {"colorsys": ("rgb_to_hsv", "hsv_to_rgb"), "xml.sax.saxutils": ("escape",)}

HUE = """
import colorsys
import xml.sax.saxutils
from colorsys import hsv_to_rgb

def handler(event, context):
    hue = colorsys.rgb_to_hsv(0.25, 0.5, 1.0)[0]
    return {"hue": hue, "back": hsv_to_rgb(hue, 0.75, 1.0), "text": xml.sax.saxutils.escape("<b>")}
"""


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    """A zygote with what is permitted, in the place of the one without."""
    made = await Zygote.start(modules=PERMITTED)
    yield made
    await made.close()


async def test_a_function_uses_them_in_every_profile(sandbox: Sandbox) -> None:
    async with open_pool(sandbox, HUE, limits(), modules=PERMITTED) as pool:
        first, second = await run(pool, b"", b"")
        for result in (first, second):
            assert result.outcome is Outcome.OK, result.error
            answer = orjson.loads(result.body)
            assert answer["hue"] == pytest.approx(0.6111, abs=1e-3)
            assert answer["back"] == pytest.approx([0.25, 0.5, 1.0])
            assert answer["text"] == "&lt;b&gt;"


async def test_what_is_not_permitted_is_refused(sandbox: Sandbox) -> None:
    for source in ("import os\n" + HUE, HUE.replace("import hsv_to_rgb", "import hsv_to_rgb, rgb_to_yiq")):
        with pytest.raises(LoadRefused) as refused:
            async with open_pool(sandbox, source, limits(), modules=PERMITTED):
                pass
        assert {problem.code for problem in refused.value.problems} == {"import-refused"}


async def test_a_zygote_that_is_started_again_has_them_too(zygote: Zygote) -> None:
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGKILL)
    await eventually(lambda: zygote.restarts == 1, within=30)
    for profile in PROFILES:
        async with open_pool(Sandbox(zygote, profile), HUE, limits(), modules=PERMITTED) as pool:
            (result,) = await run(pool, b"")
            assert result.outcome is Outcome.OK, result.error


@pytest.mark.parametrize(
    ("modules", "reasons"),
    [
        (
            {"no_such_module_anywhere": ("x",), "colorsys": ("rgb_to_hsv",), "nor_this.one": ("y",)},
            [
                "module 'no_such_module_anywhere' cannot be given: No module named 'no_such_module_anywhere'",
                f"install it into the nexlet's own environment, {sys.prefix}",
                "module 'nor_this.one' cannot be given",
            ],
        ),
        ({"colorsys": ("rgb_to_nothing",)}, ["module 'colorsys' cannot be given", "no name 'rgb_to_nothing'"]),
        ({"os": ("getcwd", "path")}, ["module 'os' cannot be given", "os.path is a whole module"]),
        ({"asyncio.windows_events": ("x",)}, ["module 'asyncio.windows_events' cannot be given: ImportError"]),
        ({"json": ("scanner",)}, ["module 'json' cannot be given: functions may import it anyway"]),
    ],
)
async def test_what_cannot_be_given_ends_the_start_and_is_named(modules: Permitted, reasons: list[str]) -> None:
    with pytest.raises(ZygoteError) as refused:
        await Zygote.start(modules=modules)
    for reason in reasons:
        assert reason in str(refused.value)


def test_the_arguments_say_what_was_permitted() -> None:
    assert from_arguments(to_arguments(PERMITTED)) == PERMITTED
    assert from_arguments([]) == {}


class TestAudit:
    async def test_each_module_has_its_findings_and_a_harmless_one_none(self) -> None:
        found = await audit({"colorsys": ("rgb_to_hsv",), "shutil": ("rmtree",), "os": ("getcwd", "getpid")})
        assert set(found) == {"shutil", "os"}
        assert "getcwd is posix.getcwd" in found["os"]
        assert all(line.startswith("rmtree uses ") for line in found["shutil"])

    async def test_nothing_is_permitted(self) -> None:
        assert await audit({}) == {}

    async def test_a_module_that_cannot_be_judged_is_told(self) -> None:
        assert await audit({"no_such_module_anywhere": ("x",)}) == {
            "no_such_module_anywhere": ["it was not judged: that ended with exit code 1"]
        }

    async def test_no_module_of_an_operators_is_in_our_memory(self) -> None:
        assert "asyncio.windows_utils" not in sys.modules
        await audit({"asyncio.windows_utils": ("pipe",)})
        assert "asyncio.windows_utils" not in sys.modules

    def test_threads_and_words_of_a_module(self, tmp_path: Path) -> None:
        (tmp_path / "restless.py").write_text(
            "import threading\n"
            "print('imported')\n"
            "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
            "def rest(): return 1\n"
        )
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); from nexlet_sandboxes.audit_process import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), "restless:rest"], capture_output=True, timeout=60, check=True
        )
        (line,) = orjson.loads(done.stdout)["restless"]
        assert line == "importing it starts threads (1), of which no worker has any: workers are forked"

    async def test_it_ends_with_whoever_waits_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[asyncio.subprocess.Process] = []
        create = asyncio.create_subprocess_exec

        async def keep(*arguments: str, **options: object) -> asyncio.subprocess.Process:
            process = await create(*arguments, **options)  # type: ignore[arg-type]  # what it was called with
            process.send_signal(signal.SIGSTOP)  # it does not end by itself before it is ended
            started.append(process)
            return process

        monkeypatch.setattr(asyncio, "create_subprocess_exec", keep)
        waiting = asyncio.create_task(audit({"shutil": ("rmtree",)}))
        await eventually(lambda: started)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert started[0].returncode == -signal.SIGKILL
