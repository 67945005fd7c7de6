from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from nexlet_models.reference import markdown
from nexlet_models.start_request import parse_start_request, schema

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "start-request.md"


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == markdown(), "run: python -m nexlet_models.reference > docs/reference/start-request.md"


def test_every_key_is_on_it() -> None:
    page = markdown()
    for name in schema()["properties"]:
        assert f"| `{name}` |" in page


def test_its_example_is_accepted() -> None:
    example = re.search(r"```yaml\n(.*?)```", markdown(), re.DOTALL)
    assert example is not None
    nexfile = yaml.safe_load(example[1])
    read = parse_start_request(json.dumps(nexfile["start_request"]))
    assert [trigger.pattern for trigger in read.triggers] == ["greet", "audit.greet.>", "$SCHEDULE.nightly"]
