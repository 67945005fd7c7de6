"""`nexfn dev` while somebody works: what is saved, renamed, copied and removed, and what runs then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import environment, nexfn
from tests.support.load import Load

StartLive = Callable[..., Awaitable[Any]]


def write(folder: Path, answer: str, *, name: str = "greet", subject: str = "greet.hello") -> Path:
    """A function's folder; what it answers is an expression."""
    folder.mkdir(exist_ok=True)
    save(folder / "function.py", source(answer))
    save(folder / "Nexfile", nexfile(name, subject))
    return folder


def source(answer: str) -> str:
    return f"def handler(event, context):\n    return {answer}\n"


def nexfile(name: str, subject: str, **environment: str) -> str:
    start = {"source_file": "function.py", "triggers": [subject], "environment": environment}
    return json.dumps({"name": name, "type": "python", "lifecycle": "function", "start_request": start})


def save(file: Path, text: str) -> None:
    """As many editors do: written beside its place, and moved there."""
    beside = file.with_name(f".{file.name}.swp")
    beside.write_text(text)
    beside.replace(file)


async def answer(url: str, subject: str = "greet.hello") -> Any:
    return (await nexfn("invoke", "-s", url, subject)).records[0]["json"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of function folders."""
    folder = tmp_path / "functions"
    folder.mkdir()
    return folder


async def test_what_is_saved_runs_and_what_is_refused_does_not(live: StartLive, root: Path) -> None:
    greet = write(root / "greet", "1")
    dev = await live("dev", root, "-p", "0")
    url = (await dev.until("ready"))["url"]
    first = dev.of("deployed")[0]

    save(greet / "function.py", source("2"))
    second = await dev.until("redeployed")
    assert second["replaced"] == [first["workload_id"]]
    assert await answer(url) == 2

    save(greet / "function.py", source("open('x')"))
    refused = await dev.until("refused")
    assert "function.py:2:12" in refused["text"]
    assert refused["text"] == (await nexfn("check", "--text", greet)).out.removeprefix("error: ").rstrip("\n")
    assert refused["goes_on"] == second["workload_id"]
    assert await answer(url) == 2

    save(greet / "Nexfile", nexfile("greet", "greet..hello"))
    refused = await dev.until("refused")
    assert [problem["place"] for problem in refused["problems"]] == ["Nexfile", "function.py"]

    save(greet / "Nexfile", nexfile("greet", "greet.hello"))
    await dev.until("refused")  # the source is still what it was
    save(greet / "function.py", source("2"))
    assert (await dev.until("unchanged"))["workload_id"] == second["workload_id"]

    save(greet / "test_function.py", "nobody deploys this\n")
    save(greet / "function.py", source("3"))
    third = await dev.until("redeployed")
    assert third["replaced"] == [second["workload_id"]]
    assert await answer(url) == 3
    assert [record["type"] for record in dev.records].count("redeployed") == 2
    assert dev.of("stopped") == [], "what is replaced is no news"
    assert await dev.end() == 0


async def test_folders_come_and_go_and_are_renamed(live: StartLive, root: Path) -> None:
    write(root / "greet", "1")
    dev = await live("dev", root, "-p", "0")
    url = (await dev.until("ready"))["url"]
    first = dev.of("deployed")[0]

    write(root / "other", "['new']", name="other", subject="other.ask")
    added = await dev.until("deployed", name="other")
    assert await answer(url, "other.ask") == ["new"]

    (root / "greet").rename(root / "hello")
    moved = await dev.until("redeployed", name="greet")
    assert moved["replaced"] == [first["workload_id"]]

    save(root / "hello" / "Nexfile", nexfile("hello", "greet.hello"))
    renamed = await dev.until("redeployed", name="hello")
    assert renamed["replaced"] == [moved["workload_id"]]
    assert await answer(url) == 1

    shutil.rmtree(root / "other")
    removed = await dev.until("removed")
    assert (removed["name"], removed["workload_id"]) == ("other", added["workload_id"])
    gone = await nexfn("invoke", "-s", url, "other.ask")
    assert gone.code == 3, "nobody listens any more"
    assert await dev.end() == 0


async def test_two_folders_cannot_have_one_name(live: StartLive, root: Path) -> None:
    write(root / "greet", "1")
    dev = await live("dev", root, "-p", "0")
    url = (await dev.until("ready"))["url"]
    write(root / "copy", "2")
    refused = await dev.until("refused")
    assert f"greet is the name of the function in {root / 'greet'} as well" in refused["text"]
    assert refused["problems"][0]["line"] == 1
    assert await answer(url) == 1
    save(root / "greet" / "Nexfile", nexfile("first", "first.ask"))
    await dev.until("redeployed", name="greet")  # the copy now has the name to itself, and its subject
    assert await answer(url) == 2
    await dev.until("deployed", name="first")
    assert await answer(url, "first.ask") == 1
    assert await dev.end() == 0


async def test_a_folder_that_is_taken_away_and_brought_back_is_noticed(live: StartLive, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "1")
    dev = await live("dev", greet, "-p", "0")
    url = (await dev.until("ready"))["url"]
    shutil.rmtree(greet)
    await dev.until("removed")
    write(greet, "2")
    await dev.until("deployed")
    assert await answer(url) == 2
    save(greet / "function.py", source("3"))
    await dev.until("redeployed")
    assert await answer(url) == 3
    assert await dev.end() == 0


async def test_a_secret_that_is_saved_is_a_new_version(live: StartLive, tmp_path: Path) -> None:
    greet = write(tmp_path / "greet", "context.env['KEY']")
    save(greet / "Nexfile", nexfile("greet", "greet.hello", KEY="secret://KEY"))
    secrets = tmp_path / "secrets" / "demo"
    secrets.mkdir(parents=True)
    (secrets / "KEY").write_text("one")
    dev = await live("dev", greet, "-p", "0")
    url = (await dev.until("ready"))["url"]
    assert (await nexfn("invoke", "-s", url, "greet.hello")).records[0]["text"] == "one"
    save(secrets / "KEY", "two")
    await dev.until("redeployed")
    assert (await nexfn("invoke", "-s", url, "greet.hello")).records[0]["text"] == "two"
    assert await dev.end() == 0


async def test_no_request_is_lost_while_somebody_saves_again_and_again(live: StartLive, root: Path) -> None:
    greet = write(root / "greet", "0")
    dev = await live("dev", root, "-p", "0")
    url = (await dev.until("ready"))["url"]
    async with Load(url, "greet.hello", at_once=8) as load:
        for version in range(1, 6):
            await load.more(20)
            save(greet / "function.py", "")  # emptied first, as some write, and several times over
            (greet / "function.py").write_text(source("'half'")[:20])
            os.utime(greet / "function.py")
            save(greet / "function.py", source(str(version)))
            await dev.until("redeployed")
        await load.more(20)
        assert load.answers["5"]
        before = load.answers["4"]
        await load.more(40)
    assert load.answers["4"] <= before + 8, "the one before it gets no more than was on its way"
    assert await dev.end() == 0


@pytest.mark.parametrize(
    ("watchfiles", "advice"),
    [
        ("raise ImportError('not installed')", "pip install 'nexlet-functions[dev]'"),
        (
            "async def awatch(*places, **how):\n    raise RuntimeError('too many open files')\n    yield\n",
            "see fs.inotify.max_user_watches and max_user_instances, or name fewer folders",
        ),
    ],
)
async def test_where_saves_cannot_be_noticed_it_says_so_and_goes_on(
    live: StartLive, tmp_path: Path, watchfiles: str, advice: str
) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "watchfiles.py").write_text(f"{watchfiles}\n")
    dev = await live("dev", write(tmp_path / "greet", "1"), "-p", "0", env=environment(PYTHONPATH=str(missing)))
    url = (await dev.until("ready"))["url"]
    assert (await dev.until("not-watched"))["advice"] == advice
    assert await answer(url) == 1
    assert await dev.end() == 0
