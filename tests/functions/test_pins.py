"""What is kept for workloads over a restart: sources and their compiled forms."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from nexlet_functions.functions.artifacts import Artifact, digest_of
from nexlet_functions.functions.pins import Pins
from nexlet_models.start_request import parse_start_request

SOURCE = "def handler(event, context):\n    return 'ä'\n"
ONE, OTHER = "01" * 32, "02" * 32
FORM = bytes(range(256)) * 10

REQUEST = parse_start_request('{"uri": "nats://functions/greet"}')
ARTIFACT = Artifact(SOURCE, digest_of(SOURCE.encode()), "nats://functions/greet")


async def test_what_a_workload_runs_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    await Pins(folder).keep("../W1", ARTIFACT)
    assert await Pins(folder).find("../W1", REQUEST) == ARTIFACT
    assert await Pins(folder).find("W2", REQUEST) is None
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await Pins(folder).drop("../W1")
    await Pins(folder).drop("../W1")
    assert await Pins(folder).find("../W1", REQUEST) is None


async def test_it_has_to_fit_what_is_asked_for(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    await pins.keep("W1", ARTIFACT)
    for request in (
        {"source": SOURCE},
        {"uri": "nats://functions/other"},
        {"uri": "nats://functions/greet", "sha256": "0" * 64},
    ):
        assert await pins.find("W1", parse_start_request(json.dumps(request))) is None


async def test_inline_sources_and_a_nexlet_without_state_keep_nothing(tmp_path: Path) -> None:
    await Pins(tmp_path).keep("W1", Artifact(SOURCE, digest_of(SOURCE.encode())))
    assert list(tmp_path.iterdir()) == []
    await Pins(None).keep("W1", ARTIFACT)
    assert await Pins(None).find("W1", REQUEST) is None
    await Pins(None).drop("W1")
    assert await Pins(None).forget_old() == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1}'])
async def test_a_damaged_pin_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    pins = Pins(tmp_path)
    await pins.keep("W1", ARTIFACT)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert await pins.find("W1", REQUEST) is None


async def test_what_nobody_uses_is_forgotten(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    for workload in ("old", "used", "running", "new"):
        await pins.keep(workload, ARTIFACT)
    old = [file for file in tmp_path.iterdir() if file != pins._path("new")]
    for file in old:
        os.utime(file, (0, 0))
    assert await pins.find("used", REQUEST) is not None
    assert await pins.forget_old(in_use=["running", "never heard of"]) == 1
    assert await pins.find("running", REQUEST) is not None
    assert await pins.find("used", REQUEST) is not None
    assert await pins.find("new", REQUEST) is not None


# --- compiled forms ---------------------------------------------------------------------------------------------------


async def test_a_form_is_found_by_whoever_would_make_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    await Pins(folder).keep_form("../W1", ONE, FORM)
    pins = Pins(folder)
    assert await pins.find_form("../W1", ONE) == FORM
    assert await pins.find_form("../W1", OTHER) == b""
    assert await pins.find_form("W2", ONE) == b""
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_form_goes_with_its_workload(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    await pins.keep("W1", ARTIFACT)
    await pins.keep_form("W1", ONE, FORM)
    await pins.drop_form("W1")
    assert await pins.find_form("W1", ONE) == b""
    assert await pins.find("W1", REQUEST) == ARTIFACT
    await pins.keep_form("W1", ONE, FORM)
    await pins.drop("W1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0, 10, 20, 50, 80, 200, -1])
async def test_a_damaged_form_is_as_good_as_none(tmp_path: Path, at: int) -> None:
    pins = Pins(tmp_path)
    await pins.keep_form("W1", ONE, FORM)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:at])
    assert await pins.find_form("W1", ONE) == b""
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + (whole[at + 1 :] if at >= 0 else b""))
    assert await pins.find_form("W1", ONE) == b""
    file.write_bytes(whole)
    assert await pins.find_form("W1", ONE) == FORM


async def test_forms_that_nobody_uses_are_forgotten(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    for workload in ("old", "used", "running"):
        await pins.keep_form(workload, ONE, FORM)
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    assert await pins.find_form("used", ONE) == FORM
    assert await pins.forget_old(in_use=["running"]) == 1
    assert await pins.find_form("running", ONE) == FORM


async def test_without_state_no_form_is_kept() -> None:
    await Pins(None).keep_form("W1", ONE, FORM)
    assert await Pins(None).find_form("W1", ONE) == b""
    await Pins(None).drop_form("W1")
