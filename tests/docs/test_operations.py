"""What docs/operations.md shows of other programs' files."""

from __future__ import annotations

import json
import shlex

from tests.support.documents import ROOT, Shown, blocks


def shape(name: str) -> Shown:
    (block,) = [
        block for block in blocks((ROOT / "docs" / "operations.md").read_text()) if block.options.get("of") == name
    ]
    return block


def test_the_nodes_settings_run_the_command_of_the_unit() -> None:
    (agent,) = json.loads(shape("nex.json").text)["agents"]
    assert set(agent) == {"uri", "argv", "env"}
    command = [agent["uri"].removeprefix("file://"), *agent["argv"]]
    unit = (ROOT / "deploy" / "nexlet-functions.service").read_text()
    (started,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(started.removeprefix("ExecStart="))[:2] == command


def test_what_is_delegated_is_what_the_unit_offers_to_delegate() -> None:
    unit = (ROOT / "deploy" / "nexlet-functions.service").read_text()
    section, *lines = shape("unit").text.splitlines()
    assert section in unit.splitlines()
    for line in lines:
        name, _, value = line.partition("=")
        assert f"{name}={value}" in unit, line
