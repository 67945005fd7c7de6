"""The reference of the start request as Markdown, written from its schema: `python -m nexlet_models.reference`.

`docs/reference/start-request.md` is what this prints; a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nexlet_models.start_request import schema, trigger_kinds

__all__ = ["markdown"]

_HEAD = """\
# The start request

What stands under `start_request` in a Nexfile, or behind `--start-request`. Written from
`start_request.json`, the schema that every request is held to, by `python -m nexlet_models.reference`. A request that
is refused is refused with all its problems at once, each with its place.

```yaml
name: greet
type: python
lifecycle: function
start_request:
  source: |
    def handler(event, context):
        return {"greeting": f"{context.env['GREETING']}, {event.json()['name']}"}
  triggers:
    - greet
    - {subject: "audit.greet.>", queue_group: "", reply: false}
    - {schedule: "30 2 * * MON-FRI", timezone: Europe/Berlin, name: nightly, missed: once}
  environment: {GREETING: hello}
  limits: {timeout: 300ms, memory: 64MiB}
```
"""


def markdown() -> str:
    """The whole page."""
    whole = schema()
    parts = [_HEAD, _table("Keys", whole, whole)]
    parts += _below("", whole, whole)
    return "\n".join(parts)


def _below(place: str, part: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    """The tables of what has keys of its own, each before those below it."""
    for name, entry in part["properties"].items():
        if part is whole and name == "triggers":
            for key, kind in trigger_kinds(whole).items():
                yield _table(f"`{name}`, each with `{key}`", kind, whole)
            continue
        inner = entry.get("items", entry)
        if "properties" in inner:
            yield _table(f"`{place}{name}`" + (", each" if "items" in entry else ""), inner, whole)
            yield from _below(f"{place}{name}.", inner, whole)


def _table(title: str, part: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    rows = ["| key | type | default | |", "|---|---|---|---|", *_rows(part, whole)]
    return f"## {title}\n\n{part['description']}\n\n" + "\n".join(rows) + "\n"


def _rows(part: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    required = set(part.get("required", ()))
    for name, entry in part["properties"].items():
        if "$ref" in entry:
            entry = whole["definitions"][entry["$ref"].rpartition("/")[2]]
        default = f"`{json.dumps(entry['default'])}`" if "default" in entry else "required" if name in required else ""
        said = entry["description"].replace("|", "\\|")
        if "enum" in entry:
            said += f" One of {', '.join(f'`{value}`' for value in entry['enum'])}."
        yield f"| `{name}` | {_type(entry)} | {default} | {said} |"


_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


def _type(entry: Mapping[str, Any]) -> str:
    kinds: list[str] = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds)


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201  # what it is for
