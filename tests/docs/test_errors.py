"""docs/errors.md: every text that it quotes is what an author or a caller reads, for the reason that it gives.

Each row has its cause here. A row without one fails, as does a cause whose row is gone.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.testing import AsyncFunction, Invocation, load_function
from nexlet_functions.testing.worker import WorkerHome
from nexlet_sandboxes.pool import Pool
from tests.support.documents import ROOT
from tests.support.polling import eventually

NEXFILE = """\
name: shown
type: python
lifecycle: function
start_request:
  source_file: function.py
  triggers: [shown]
  workers: {max: 1}
"""
FINE = "def handler(event, context):\n    return None\n"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without their backquotes."""
    section = (ROOT / "docs" / "errors.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def returning(value: str) -> str:
    return f"def handler(event, context):\n    return {value}\n"


def written(folder: Path, source: str, nexfile: str = NEXFILE) -> Path:
    (folder / "function.py").write_text(source)
    (folder / "Nexfile").write_text(nexfile)
    return folder


REFUSED = {
    "import of 'requests' is not allowed here": (f"import requests\n{FINE}", NEXFILE),
    "'open' is not available in a function": (returning("open('x')"), NEXFILE),
    "'eval' is not available in a function": (returning("eval('1')"), NEXFILE),
    "attribute names may not begin with '_'": (returning("event._call"), NEXFILE),
    "no handler named 'handler'": ("answer = 42\n", NEXFILE),
    "'handler' cannot be called with (event, context)": ("def handler(event):\n    return None\n", NEXFILE),
    "the module raised ZeroDivisionError": (f"half = 1 / 0\n{FINE}", NEXFILE),
    "loading did not end within": (f"{FINE}while True:\n    pass\n", NEXFILE + "  limits: {load_timeout: 200ms}\n"),
    "unknown key 'limit'": (FINE, NEXFILE + "  limit: {timeout: 1s}\n"),
    "has an empty token": (FINE, NEXFILE.replace("[shown]", "[a..b]")),
    "the first token must be literal": (FINE, NEXFILE.replace("[shown]", "['*.b']")),
}
"""What a refusal says, to a source and a Nexfile that are refused so."""


@pytest.mark.parametrize("said", [row[0] for row in rows("Refused when it is deployed")])
def test_a_refusal_reads_like_that(said: str, tmp_path: Path) -> None:
    with pytest.raises(NexletFunctionsError, match=re.escape(said)), load_function(written(tmp_path, *REFUSED[said])):
        pass


LIMITS = {"timeout": 0.3, "memory": 64 * 1024 * 1024, "max_reply": 1000, "max_pending": 1}
ENDLESS = "def handler(event, context):\n    while True:\n        pass\n"
ANSWERED = {
    "the payload is not JSON:": returning("event.json()"),
    "the payload is not UTF-8 text:": returning("event.text"),
    "qty must be > 0": 'def handler(event, context):\n    raise Reject(422, "qty must be > 0")\n',
    "KeyError: 'name'": returning("{}['name']"),
    "the return value holds a set, which is not JSON": returning("{1, 2}"),
    "the return value holds a datetime.datetime, which is not JSON": "import datetime\n"
    + returning("datetime.datetime(2026, 1, 1)"),
    "the return value holds nan, which is not JSON": returning("float('nan')"),
    "the return value holds a generator, which is not JSON": returning("(n for n in range(3))"),
    "the return value holds itself, or is nested more than": (
        "def handler(event, context):\n    each = []\n    each.append(each)\n    return each\n"
    ),
    "the return value holds a dict with a key that is not text": returning("{(1, 2): 3}"),
    "header 'Nats-Msg-Id' is written by the nexlet": returning("Reply('', headers={'Nats-Msg-Id': '1'})"),
    "the reply is 2000 bytes, more than the": returning("b'x' * 2000"),
    "'list' object has no attribute 'json'": returning("event.json()"),
    "a handler with batch: 64 returns None, or a list": returning("{}"),
    "ValueError: Reject takes a code from 400 to 599": "def handler(event, context):\n    raise Reject(200, 'fine')\n",
    "AttributeError: attribute '_call' is out of reach": returning("getattr(event, '_call')"),
    "TypeError: items of Environment objects cannot be written": (
        "def handler(event, context):\n    context.env['A'] = 'b'\n"
    ),
    "Denied: publishing on 'a.b' was not granted": returning("context.publish('a.b')"),
    "took longer than its limit of": ENDLESS,
    "took more memory than its limit of": returning("len(bytearray(10 ** 9))"),
}
"""What an answer says, to the function that answers so to b'\\xff'."""


BATCHED = {said for said in ANSWERED if "batch" in said or "'list'" in said}
"""To functions whose Nexfile says `batch`."""


async def crowded(function: AsyncFunction) -> Invocation:
    """One of more invocations than may wait."""
    ended = await asyncio.gather(*(function.invoke() for _ in range(600)))
    return next(each for each in ended if each.code == 429)


def pool_of(function: AsyncFunction) -> Pool:
    home = function._home
    assert isinstance(home, WorkerHome)
    return home._pool


async def orphaned(function: AsyncFunction) -> Invocation:
    """One whose worker is killed."""
    pool = pool_of(function)
    running = asyncio.create_task(function.invoke())
    await eventually(lambda: pool.stats().busy == 1, what="it runs")
    os.kill(pool._links[0].process.pid, signal.SIGKILL)
    return await running


async def hurried(function: AsyncFunction) -> Invocation:
    return await function.invoke(headers={"Nex-Deadline-Ms": "0"})


async def late(function: AsyncFunction) -> Invocation:
    """One that comes while the function is stopped."""
    await pool_of(function).close()
    return await function.invoke()


AROUND = {
    "are waiting already": crowded,
    "the worker died:": orphaned,
    "and was not run": hurried,
    "the function is stopping": late,
}
"""What an answer says that no function has a say in."""


@pytest.mark.parametrize(("code", "said"), [row[:2] for row in rows("Answered with an error")])
async def test_an_error_reads_like_that(code: str, said: str, tmp_path: Path) -> None:
    around = AROUND.get(said)
    limits = LIMITS if around is None else {**LIMITS, "timeout": 10.0 if around is orphaned else 0.3}
    nexfile = NEXFILE + "  batch: 64\n" if said in BATCHED else NEXFILE
    async with load_function(written(tmp_path, ANSWERED.get(said, ENDLESS), nexfile), limits=limits) as function:
        result = await (function.invoke(data=b"\xff") if around is None else around(function))
    assert said in result.error
    assert result.code == int(code)


def test_every_cause_has_its_row() -> None:
    assert set(REFUSED) == {row[0] for row in rows("Refused when it is deployed")}
    assert set(ANSWERED) | set(AROUND) == {row[1] for row in rows("Answered with an error")}
