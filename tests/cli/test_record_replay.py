"""`dev --record` and `replay`, as processes: what is sent is kept, masked, and compared when it is sent once more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.testing import load_function
from nexlet_functions.testing.events import read_event
from tests.support.cli import Ended, nexfn

StartLive = Callable[..., Awaitable[Any]]

SECRET = "kept-by-the-operator"

FUNCTION = """\
from nexlet_functions.authoring import Reject, Reply


def handler(event, context):
    order = event.json()
    if not order["items"]:
        raise Reject(422, "an order has items")
    total = sum(item["price"] for item in order["items"])
    return Reply({"total": total, "for": order["customer"]["name"], "key": context.env["KEY"]}, headers={"X-N": "1"})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a function that prices orders, and its secret."""
    folder = tmp_path / "shop" / "price"
    folder.mkdir(parents=True)
    (folder / "function.py").write_text(FUNCTION)
    start = {
        "source_file": "function.py",
        "triggers": ["orders.price", {"subject": "orders.note", "reply": False}],
        "environment": {"KEY": "secret://KEY", "PLAIN": "not-secret"},
    }
    nexfile = {"name": "price", "type": "python", "lifecycle": "function", "start_request": start}
    (folder / "Nexfile").write_text(json.dumps(nexfile))
    secrets = tmp_path / "shop" / "secrets" / "demo"
    secrets.mkdir(parents=True)
    (secrets / "KEY").write_text(SECRET)
    return tmp_path / "shop"


ORDER = {
    "customer": {"name": "Ada", "card": "4111"},
    "items": [{"price": 2}, {"price": 3}],
    "note": f"the key is {SECRET}, not-secret",
}


async def recorded_in(live: StartLive, shop: Path, kept: Path) -> None:
    """Three messages are sent and kept."""
    dev = await live("dev", shop, "-p", "0", "--record", kept, "--mask", "customer.card", "--mask", "X-User")
    url = (await dev.until("ready"))["url"]
    headers = ("-H", "Authorization: Bearer x", "-H", "X-User: ada", "-H", "X-Trace: 1")
    answer = await nexfn("invoke", "-s", url, "orders.price", json.dumps(ORDER), *headers)
    assert answer.records[0]["json"] == {"total": 5, "for": "Ada", "key": SECRET}
    await dev.until("recorded")
    assert (await nexfn("invoke", "-s", url, "orders.price", '{"items": []}')).code == 1
    await dev.until("recorded")
    note = json.dumps({"items": [{"price": 1}], "customer": {"name": "Bo"}})
    assert (await nexfn("invoke", "-s", url, "--no-reply", "orders.note", note)).code == 0
    await dev.until("recorded")
    await nexfn("invoke", "-s", url, "orders.price", json.dumps(ORDER), *headers)  # the same once more
    await dev.until("invocation")
    assert await dev.end() == 0
    assert len(dev.of("recorded")) == 3


async def replay(*arguments: str | Path) -> Ended:
    return await nexfn("replay", *arguments)


async def test_what_is_sent_is_kept_masked_and_the_same_comes_back(live: StartLive, shop: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    await recorded_in(live, shop, kept)
    files = sorted(kept.rglob("*.json"))
    assert [file.name.rpartition("-")[0] for file in files] == ["ok", "ok", "rejected_by_function"]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    for file in files:
        assert SECRET not in file.read_text()
        assert "4111" not in file.read_text()
    event = next(each for each in map(read_event, files) if each.subject == "orders.price" and each.headers)
    assert event.headers == {"Authorization": "***", "X-User": "***", "X-Trace": "1"}
    message = json.loads(event.payload)
    assert message["customer"] == {"name": "Ada", "card": "***"}
    assert message["note"] == "the key is ***, not-secret"
    assert event.expect == {"outcome": "ok", "headers": {"X-N": "1"}, "json": {"total": 5, "for": "Ada", "key": "***"}}

    # Here, as a sample event for the testing kit, and over NATS.
    again = await replay(kept, shop)
    assert again.code == 0, again.out
    assert again.records[-1] == {"type": "summary", "replayed": 3, "same": 3, "updated": 0, "differ": 0}
    async with load_function(shop / "price", secrets={"KEY": "another"}) as function:
        assert (await function.invoke(event)).differences(event) == []
    dev = await live("dev", shop, "-p", "0")
    url = (await dev.until("ready"))["url"]
    over_nats = await replay(event_file(files, "ok", "orders.price"), "--nats", "-s", url)
    assert over_nats.code == 0, over_nats.out
    silent = await replay(event_file(files, "ok", "orders.note"), "--nats", "-s", url, "--timeout", "100ms")
    assert silent.code == 1
    assert silent.records[0]["differences"] == ["no answer within 0.1 s"]
    elsewhere = await replay(files[0], "--nats", "-s", url, "--subject", "nobody.there")
    assert elsewhere.code == 3
    assert await dev.end() == 0


def event_file(files: list[Path], outcome: str, subject: str) -> Path:
    return next(file for file in files if file.name.startswith(outcome) and read_event(file).subject == subject)


async def test_what_differs_is_shown_and_can_be_accepted(live: StartLive, shop: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    await recorded_in(live, shop, kept)
    changed = FUNCTION.replace("total = sum(", "total = 1 + sum(").replace('"for": ', '"to": ').replace("422", "400")
    (shop / "price" / "function.py").write_text(changed)

    differs = await replay(kept, shop, "--format", "text")
    assert differs.code == 1
    assert "json.total: expected 5, got 6" in differs.out
    assert 'json.for: missing, expected "Ada"' in differs.out
    assert 'json.to: not expected, got "Ada"' in differs.out
    assert "code: expected 422, got 400" in differs.out
    assert (
        "its message was masked (headers.Authorization, headers.X-User, json.customer.card, json.note)" in differs.out
    )
    assert differs.out.endswith("3 replayed: 0 the same, 3 not\n")

    ignored = await replay(kept, shop, "--ignore", "total", "--ignore", "to", "--ignore", "for")
    assert [record["verdict"] for record in ignored.records[:-1]] == ["same", "same", "differs"]

    assert (await replay(kept, shop, "--update", "--nats")).code == 2, "secrets are not known there"
    updated = await replay(kept, shop, "--update")
    assert updated.code == 0
    assert updated.records[-1] == {"type": "summary", "replayed": 3, "same": 0, "updated": 3, "differ": 0}
    assert (await replay(kept, shop)).code == 0
    for file in kept.rglob("*.json"):
        assert SECRET not in file.read_text(), "an update masks as well"
        assert file.stat().st_mode & 0o777 == 0o600


async def test_a_functions_own_events_are_replayed_and_stay_as_they_are(shop: Path) -> None:
    events = shop / "price" / "events"
    events.mkdir()
    mine = {"subject": "orders.price", "description": "mine", "json": ORDER, "expect": {"json": {"total": 4}}}
    (events / "one.json").write_text(json.dumps(mine))
    (events / "one.json").chmod(0o644)
    assert (await replay(shop / "price")).code == 1
    assert (await replay(shop / "price", "--update")).code == 0
    written = json.loads((events / "one.json").read_text())
    assert written["description"] == "mine"
    assert written["json"] == ORDER
    assert written["expect"]["json"] == {"total": 5, "for": "Ada", "key": "***"}
    assert written["recorded"] == {"masked": ["expect.json.key"]}
    assert (events / "one.json").stat().st_mode & 0o777 == 0o644
    assert (await replay(shop / "price")).code == 0


async def test_what_cannot_be_replayed_is_said(shop: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = await replay(empty, shop)
    assert (nothing.code, nothing.error["code"]) == (2, "no-events")
    (empty / "one.json").write_text(json.dumps({"recorded": {"function": "other"}}))
    unknown = await replay(empty, shop)
    assert (unknown.code, unknown.error["code"]) == (2, "function-missing")
    assert "the function other" in unknown.error["message"]
    assert "there are: price" in unknown.error["advice"]
    (empty / "one.json").write_text(json.dumps({"subject": "nobody.takes"}))
    nowhere = await replay(empty, shop)
    assert (nowhere.code, nowhere.error["code"]) == (2, "invalid-message")
    (empty / "one.json").write_text('{"recorded": {"masked": 1}}')
    refused = await replay(empty, shop)
    assert refused.code == 1
    assert refused.error["problems"][0]["message"] == "'masked' is not a list of places"
    wrong = await replay(empty, shop, "--ignore", "a..b")
    assert (wrong.code, wrong.error["code"]) == (2, "invalid-field")


async def test_nothing_is_recorded_unless_asked(live: StartLive, shop: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    dev = await live("dev", shop, "-p", "0")
    url = (await dev.until("ready"))["url"]
    await nexfn("invoke", "-s", url, "orders.price", json.dumps(ORDER))
    await dev.until("invocation")
    assert await dev.end() == 0
    shutil.rmtree(tmp_path / "tmp")
    assert set(tmp_path.rglob("*")) <= before
