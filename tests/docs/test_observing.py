"""docs/observing.md against what it describes."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import yaml

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.observing.catalog import CATALOG
from nexlet_functions.observing.health import readiness
from nexlet_functions.observing.http import MAX_CONNECTIONS, READ_TIMEOUT
from nexlet_functions.observing.reference import PAGE, inserted
from nexlet_functions.runner.runner import Phase
from nexlet_functions.settings import LOGGERS, Settings
from tests.support.agent import agent_bench
from tests.support.documents import blocks
from tests.support.polling import eventually


def test_its_table_is_the_catalog() -> None:
    page = PAGE.read_text()
    assert page == inserted(page), "run: python -m nexlet_functions.observing.reference"
    for name in CATALOG:
        assert f"| `{name}` |" in page


def test_every_metric_it_names_is_one() -> None:
    named = set(re.findall(r"\bnexlet_[a-z_]+", PAGE.read_text())) - {"nexlet_functions"}
    assert named - set(CATALOG) == set()


def test_its_settings_are_settings() -> None:
    page = PAGE.read_text()
    block = re.search(r"```yaml settings file=metrics.yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert str(Settings(**yaml.safe_load(block[1])).metrics) == "127.0.0.1:9464"
    for option in set(re.findall(r"`--([a-z-]+)", page)):
        assert option.replace("-", "_") in Settings.model_fields
    assert all(f"`{logger}`" in page for logger in LOGGERS)
    assert f"after {READ_TIMEOUT:g} seconds, and there are at most {MAX_CONNECTIONS} at a time" in page


def shape(name: str) -> dict[str, Any]:
    """The JSON that the page shows under that name."""
    (block,) = [block for block in blocks(PAGE.read_text()) if block.options.get("of") == name]
    shown: dict[str, Any] = json.loads(block.text)
    return shown


async def test_what_it_shows_of_the_feed_is_what_is_told(nats_server: EmbeddedServer) -> None:
    source = 'def handler(event, context):\n    return "fine"\n'
    async with agent_bench(nats_server, metrics_interval="1h") as bench:
        await bench.agent.register()
        await bench.start(source=source, triggers=["made"])
        await bench.ask("made")
        await bench.agent.stop_workload("W1", "acme")
        await eventually(lambda: any(".metrics." in message.subject for message in bench.heard), what="told")
        (told,) = [json.loads(message.data) for message in bench.heard if ".metrics." in message.subject]
    shown = shape("feed")
    assert list(shown) == list(told)
    assert {type(value) for value in shown.values()} == {type(value) for value in told.values()}
    assert (list(shown["workers"]), list(shown["duration_ms"])) == (list(told["workers"]), list(told["duration_ms"]))


def test_what_it_shows_of_readiness_is_what_is_answered() -> None:
    agent = SimpleNamespace(connected=False, last_failure=None, state=SimpleNamespace(value="disconnected"))
    runner = SimpleNamespace(phase=Phase.RUNNING, agent_id="...", node_id="N...", connections_by_use={"agent": [agent]})
    health = readiness(cast(Any, runner), cast(Any, SimpleNamespace(lives=True)))
    assert shape("readyz") == {"ready": health.well, "reasons": list(health.reasons), **health.facts}
