"""`nexfn invoke --local` as a process: a worker as on a node, and no server anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import environment, nexfn

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A copy of the sample to do things to."""
    shutil.copytree(SAMPLES / "orders", tmp_path / "orders")
    return tmp_path / "orders"


async def test_everything_that_there_is_to_tell_is_in_the_record(orders: Path) -> None:
    (orders / "function.py").write_text(
        "print('loading')\n\ndef handler(event, context):\n    print('hello')\n    context.log.info('seen', n=1)\n"
        "    context.metrics.count('calls')\n    reply = {'got': event.json()}\n"
        "    return Reply(reply, headers={'X-Y': event.headers['X']})\n"
    )
    ended = await nexfn("invoke", "--local", orders, "orders.price", '{"a": 1}', "-H", "X: z")
    assert ended.code == 0, ended.err
    (record,) = ended.records
    assert record["type"] == "answer"
    assert (record["ok"], record["code"], record["outcome"], record["json"]) == (True, 200, "ok", {"got": {"a": 1}})
    assert record["headers"] == {"X-Y": "z"}
    assert [line["text"] for line in record["logs"]][:2] == ["loading", "hello"]
    assert '"message":"seen"' in record["logs"][2]["text"].replace('": "', '":"')
    assert record["metrics"] == [{"name": "calls", "kind": "counter", "value": 1}]
    assert record["duration_ms"] > 0
    assert record["cpu_ms"] > 0
    assert record["peak_memory_bytes"] > 0
    assert record["profile"] == "strict"


async def test_an_event_is_named_by_its_file_or_by_its_name(orders: Path) -> None:
    for event in ("book", "book.json", "events/book.json", str(orders / "events" / "book.json")):
        ended = await nexfn("invoke", "--local", orders, "--event", event)
        assert (ended.code, ended.records[0]["differences"]) == (0, []), ended.err
    refused = await nexfn("invoke", "--local", orders, "-e", "no-quantity")
    assert (refused.code, refused.records[0]["code"]) == (0, 422)  # it is what the event expects
    missing = await nexfn("invoke", "--local", orders, "-e", "pen")
    assert (missing.code, missing.error["code"]) == (2, "event-missing")
    assert "book, no-quantity" in missing.error["advice"]


async def test_for_people_the_body_comes_first_then_the_log_then_what_it_took(orders: Path) -> None:
    event = (orders / "events" / "book.json").read_text().replace("27.67", "1.00")
    (orders / "events" / "book.json").write_text(event)
    ended = await nexfn("invoke", "--local", orders, "--event", "book", "--text")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == "{"
    assert any(line.startswith("info     priced  items=2") for line in lines)
    assert any(line.startswith("differs  json.total: expected ") for line in lines)
    assert lines[-1].startswith("ok 200 in ")
    assert lines[-1].endswith(" MiB, profile strict")


async def test_an_error_has_its_traceback(orders: Path) -> None:
    (orders / "function.py").write_text("def handler(event, context):\n    return {}['x']\n")
    ended = await nexfn("invoke", "--local", orders)
    (record,) = ended.records
    assert (ended.code, record["outcome"], record["error"]) == (1, "error", "KeyError: 'x'")
    assert "return {}['x']" in record["traceback"]


async def test_the_time_is_the_functions_unless_one_is_said(orders: Path) -> None:
    (orders / "function.py").write_text("def handler(event, context):\n    return context.remaining_ms()\n")
    assert 0 < (await nexfn("invoke", "--local", orders)).records[0]["json"] <= 2000
    assert 0 < (await nexfn("invoke", "--local", orders, "--timeout", "900ms")).records[0]["json"] <= 900


async def test_secrets_come_from_the_folder_beside(tmp_path: Path) -> None:
    ended = await nexfn("invoke", "--local", SAMPLES / "webhook", "--event", "paid")
    assert ended.code == 0, ended.err
    shutil.copytree(SAMPLES / "webhook", tmp_path / "webhook")
    missing = await nexfn("invoke", "--local", tmp_path / "webhook", "--event", "paid")
    assert (missing.code, missing.error["code"]) == (2, "secret-missing")
    given = environment(NEXFN_SECRETS_DIR=str(SAMPLES / "secrets"))
    assert (await nexfn("invoke", "--local", tmp_path / "webhook", "--event", "paid", env=given)).code == 0


async def test_what_is_refused_is_what_check_says(orders: Path) -> None:
    (orders / "events" / "book.json").write_text("{'no': json}")
    event = await nexfn("invoke", "--local", orders, "--event", "book")
    assert (event.code, event.error["problems"][0]["place"]) == (1, "events/book.json")
    (orders / "function.py").write_text("import os\n")
    function = await nexfn("invoke", "--local", orders)
    checked = (await nexfn("check", orders)).records[0]["problems"]
    assert function.code == 1
    assert function.error["problems"] == [each for each in checked if each["place"] == "function.py"]
    assert (await nexfn("invoke", "--local", SAMPLES)).error["code"] == "several-functions"
    assert (await nexfn("invoke", "--local", SAMPLES / "greet", "nobody.listens")).error["code"] == "invalid-message"
    assert (await nexfn("invoke")).error["code"] == "subject-missing"
