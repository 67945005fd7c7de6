from __future__ import annotations

from pathlib import Path

from nexlet_functions.rules import Ceilings, GrantCeilings, HttpRules, NamespaceCredentials, NamespaceRules
from nexlet_functions.settings import Settings
from nexlet_functions.settings_reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_page_is_what_the_settings_say() -> None:
    command = "python -m nexlet_functions.settings_reference > docs/reference/settings.md"
    assert PAGE.read_text() == markdown(), f"run: {command}"


def test_every_setting_is_on_it_and_says_what_it_is() -> None:
    page = markdown().splitlines()
    for model in (Settings, NamespaceRules, Ceilings, GrantCeilings, HttpRules, NamespaceCredentials):
        for name in model.model_fields:
            lines = [line for line in page if line.startswith(f"| `{name}` |")]
            assert lines, name
            assert all(line.split("|")[-2].strip() for line in lines), name


def test_defaults_read_as_an_operator_writes_them() -> None:
    page = markdown()
    assert "| `grace` | `NEXFN_GRACE` | `10s` |" in page
    assert "| `memory` | `1GiB` |" in page
    assert "| `password` | `NEXFN_PASSWORD` |  |" in page
    assert "| `events` | `NEXFN_EVENTS` | `all` | yes |" in page
