"""The pytest plugin, as a project of its own has it: a pytest process in a folder that knows nothing of this one."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.support.cli import environment

NEXFILE = """\
name: demo
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [demo.run]
  environment: {GREETING: Hello}
"""
COUNTING = """\
count = [0]

def handler(event, context):
    count[0] += 1
    return {"greeting": context.env["GREETING"], "count": count[0]}
"""


def function_in(folder: Path, *, nexfile: str = NEXFILE, source: str = COUNTING, tests: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "Nexfile").write_text(nexfile)
    (folder / "function.py").write_text(source)
    (folder / f"test_{folder.name}.py").write_text(tests)
    return folder


async def run_pytest(folder: Path, *arguments: str) -> tuple[dict[str, str], str]:
    """How each test ended, by its name, and all that was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-vv", "--tb=short", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto",
        "--strict-markers", "-W", "error::pytest.PytestUnknownMarkWarning", *arguments, cwd=folder, env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 90)
    text = out.decode()
    return dict(re.findall(r"::(test_\S+) (\w+)", text)), text


GOOD = """\
import pytest
from pathlib import Path


def test_first(function):
    assert function.invoke().json() == {"greeting": "Hello", "count": 1}


def test_the_worker_is_kept_for_the_module(function):
    assert function.invoke().json()["count"] == 2


@pytest.mark.nexfn(environment={"GREETING": "Moin"})
class TestMarked:
    def test_its_own_worker(self, function):
        assert function.invoke().json() == {"greeting": "Moin", "count": 1}

    @pytest.mark.nexfn(limits={"timeout": 7.0})
    def test_markers_add_up(self, function):
        assert function.invoke().json() == {"greeting": "Moin", "count": 1}


async def test_a_coroutine(async_function):
    async with async_function as function:
        assert (await function.invoke()).json()["count"] == 1


def test_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


@pytest.mark.parametrize("sample_event", ["mine"])
def test_parameters_of_its_own(sample_event):
    assert sample_event == "mine"


@pytest.mark.nexfn(folder="other")
def test_another_folder(function, function_folder):
    assert function_folder == Path(__file__).parent / "other"
    assert function.invoke().text == "other"
"""


async def test_the_fixtures(tmp_path: Path) -> None:
    folder = function_in(tmp_path / "good", tests=GOOD)
    (folder / "events").mkdir()
    (folder / "events" / "one.json").write_text("{}")
    (folder / "events" / "two.json").write_text('{"expect": {"code": 200}}')
    function_in(folder / "other", source="def handler(event, context):\n    return 'other'\n")
    ended, text = await run_pytest(folder)
    assert set(ended.values()) == {"PASSED"}, text
    assert {"test_events[one]", "test_events[two]", "test_parameters_of_its_own[mine]"} <= set(ended)
    assert len(ended) == 9


BAD = """\
import pytest


def test_refused(function):
    pass


@pytest.mark.nexfn(folder="../secret")
def test_secret(function):
    pass


@pytest.mark.nexfn(folder="../secret", secrets={"API_KEY": "k"})
async def test_coroutine(function):
    pass


@pytest.mark.nexfn(tineout=1)
def test_option(function):
    pass
"""


async def test_what_is_wrong_is_said_without_a_traceback_of_ours(tmp_path: Path) -> None:
    function_in(tmp_path / "bad", source="import os\n\ndef handler(event, context):\n    pass\n", tests=BAD)
    function_in(tmp_path / "secret", nexfile=NEXFILE.replace("Hello", "secret://API_KEY"))
    ended, text = await run_pytest(tmp_path)
    assert ended == dict.fromkeys(["test_refused", "test_secret", "test_coroutine", "test_option"], "ERROR"), text
    for said in (
        "function.py:1:1  import of 'os' is not allowed here",
        "GREETING is secret://API_KEY: give it with secrets={'API_KEY': ...}",
        "it takes `async_function`",
        "unexpected keyword argument 'tineout'",
    ):
        assert said in text, text
    assert "nexlet_functions/" not in re.sub(r"plugins: .*", "", text)


async def test_an_event_that_is_none_and_a_missing_nexfile_stop_the_collection(tmp_path: Path) -> None:
    folder = function_in(tmp_path / "broken", tests="def test_it(sample_event):\n    pass\n")
    (folder / "events").mkdir()
    (folder / "events" / "one.json").write_text("{'a': 1}")
    (tmp_path / "test_alone.py").write_text("def test_alone(sample_event):\n    pass\n")
    ended, text = await run_pytest(tmp_path)
    assert ended == {}
    assert "events/one.json" in text
    assert "name the function's folder, @pytest.mark.nexfn(folder=...)" in text


NATS = """\
import pytest


def test_there(function):
    assert function.invoke().json() == {"greeting": "Hello", "count": 1}
    assert type(function._function._home).__name__ == "NatsHome"


@pytest.mark.nexfn(nats=False)
def test_not_for_this_one(function):
    assert type(function._function._home).__name__ == "WorkerHome"


async def test_coroutine(async_function):
    async with async_function as function:
        assert type(function._home).__name__ == "NatsHome"
"""


async def test_the_same_tests_run_beside_a_real_server(tmp_path: Path) -> None:
    folder = function_in(tmp_path / "over", tests=NATS)
    ended, text = await run_pytest(folder, "--nexfn-nats")
    assert set(ended.values()) == {"PASSED"}, text
    assert len(ended) == 3


def loaded_by(code: str) -> set[str]:
    """What a fresh interpreter has loaded after it."""
    code += "\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_who_does_not_use_it_does_not_pay_for_it() -> None:
    more = loaded_by("import pytest, nexlet_functions.pytest_plugin") - loaded_by("import pytest")
    assert more == {"nexlet_functions", "nexlet_functions.pytest_plugin"}


def test_a_worker_alone_is_tested_without_anything_of_nats() -> None:
    loaded = loaded_by("import nexlet_functions.testing")
    assert "nexlet_functions.testing.worker" in loaded
    assert not {"nats", "structlog", "rich", "nexlet_functions.settings", "nexlet_sandboxes.language"} & loaded
