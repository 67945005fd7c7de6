"""docs/observing.md against what it describes."""

from __future__ import annotations

import re

import yaml

from nexlet_functions.observing.catalog import CATALOG
from nexlet_functions.observing.http import MAX_CONNECTIONS, READ_TIMEOUT
from nexlet_functions.observing.reference import PAGE, inserted
from nexlet_functions.settings import LOGGERS, Settings


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
    block = re.search(r"```yaml file=metrics.yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert str(Settings(**yaml.safe_load(block[1])).metrics) == "127.0.0.1:9464"
    for option in set(re.findall(r"`--([a-z-]+)", page)):
        assert option.replace("-", "_") in Settings.model_fields
    assert all(f"`{logger}`" in page for logger in LOGGERS)
    assert f"after {READ_TIMEOUT:g} seconds, and there are at most {MAX_CONNECTIONS} at a time" in page
