"""The reference of the settings as Markdown, from their fields: `python -m nexlet_functions.settings_reference`.

`docs/reference/settings.md` is what this prints; a test compares them.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from nexlet_functions.rules import (
    Ceilings,
    GrantCeilings,
    HttpRules,
    NamespaceCredentials,
    NamespaceRules,
    NamespaceSecrets,
)
from nexlet_functions.settings import RELOADABLE, Settings, variable
from nexlet_models.durations import format_duration
from nexlet_models.sizes import format_size

__all__ = ["markdown"]

_HEAD: Final = """\
# Settings

Every setting of `nexlet-functions up`, written from the program by `python -m nexlet_functions.settings_reference`.

Each has a variable in the environment, and all but the secret ones a key in the settings file; those that are options
have the variable's name in small letters with dashes (`NEXFN_STATE_DIR`, `--state-dir`; see [cli.md](../cli.md)). An
option goes before the variable, the variable before the file. Lists are joined by commas in a variable, folders by `:`.
Durations are written as `300ms` or `1m30s`, sizes as `64MiB`. Those with "yes" are read again on SIGHUP, all others
take a restart.

| setting | variable | default | on SIGHUP | |
|---|---|---|---|---|
"""

_IN_THE_FILE_ALONE: Final = frozenset({"modules", "defaults", "namespaces"})


def markdown() -> str:
    """The whole page."""
    lines = [_HEAD + "\n".join(_settings()), ""]
    for title, model in (
        ("`defaults`, and each of `namespaces`", NamespaceRules),
        ("`ceilings`", Ceilings),
        ("`grants`", GrantCeilings),
        ("`http`", HttpRules),
        ("`credentials` of a namespace", NamespaceCredentials),
        ("`secrets` of a namespace", NamespaceSecrets),
    ):
        lines += [f"## {title}", "", "| key | default | |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            lines.append(f"| `{name}` | {_default(field)} | {_cell(field.description)} |")
        lines.append("")
    return "\n".join(lines)


def _settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        said = "in the settings file" if name in _IN_THE_FILE_ALONE else f"`{variable(name)}`"
        again = "yes" if name in RELOADABLE else ""
        yield f"| `{name}` | {said} | {_default(field)} | {again} | {_cell(field.description)} |"


def _default(field: FieldInfo) -> str:
    text = _text(field, field.get_default(call_default_factory=True))
    return f"`{text}`" if text else ""


def _text(field: FieldInfo, value: Any) -> str:
    match value:
        case None | "" | () | BaseModel() | SecretStr():
            return ""
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return str(value.value)
        case float():
            return format_duration(value)
        case int() if any(isinstance(each, BeforeValidator) for each in field.metadata):
            return format_size(value)
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return ""
        case str() | int() | Path():
            return str(value)
    raise TypeError(f"a default of type {type(value).__name__} has no text yet")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
