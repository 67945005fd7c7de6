"""`nexfn doctor` as a process: what it says to people and to programs, and how it ends where a layer is missing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_sandboxes.kernel import landlock
from nexlet_sandboxes.kernel.trials import TRIALS
from nexlet_sandboxes.probe import ADVICE
from nexlet_sandboxes.profiles import DEFAULT, PROFILES
from tests.support.cgroups import Unavailable, delegated_folder
from tests.support.cli import Ended, environment, nexfn
from tests.support.zygotes import arguments, missing

needs_landlock = pytest.mark.skipif(landlock.abi_version() == 0, reason="this kernel has no Landlock")

_ON = """
import sys
from nexlet_sandboxes.zygote import Zygote
Zygote.arguments = {arguments!r}
from nexlet_functions.cli.app import run
sys.argv = ["nexfn", *{command!r}]
run()
"""

_ELSEWHERE = """
import os, resource, sys
import asyncio, subprocess, sysconfig, typer
sysconfig.get_config_vars()
del resource.RLIMIT_MSGQUEUE, os.pidfd_open, os.memfd_create, os.MFD_CLOEXEC
sys.platform = "darwin"
from nexlet_functions.cli.app import run
sys.argv = ["nexfn", "doctor"]
run()
"""


async def python(code: str) -> Ended:
    """Run a program in the environment of a command."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    return Ended(done.returncode, done.stdout, done.stderr)


async def nexfn_without(layer: str, *command: str) -> Ended:
    """A command on a machine that lacks `layer`."""
    return await python(_ON.format(arguments=arguments(missing(layer)), command=command))


def of(ended: Ended, kind: str) -> list[dict[str, Any]]:
    return [record for record in ended.records if record["type"] == kind]


@needs_landlock
async def test_every_layer_is_told_to_programs() -> None:
    ended = await nexfn("doctor", "--json")
    assert ended.code == 0, ended.err
    (machine,) = of(ended, "machine")
    assert machine["landlock"] == landlock.abi_version()
    profiles = {record["profile"]: record for record in of(ended, "profile")}
    assert list(profiles) == ["strict", "isolated", "oneshot"]
    assert [name for name, record in profiles.items() if record["default"]] == [DEFAULT]
    layers = of(ended, "layer")
    for name, record in profiles.items():
        told = [layer for layer in layers if layer["profile"] == name]
        assert [layer["layer"] for layer in told] == list(PROFILES[name].layers)
        assert record["holds"] == all(layer["holds"] for layer in told)
        assert record["engaged"] == [layer["layer"] for layer in told if layer["holds"]]
    assert profiles[DEFAULT]["holds"]
    assert all(layer["tried"] == TRIALS[layer["layer"]].tried and layer["happened"] for layer in layers)


@needs_landlock
async def test_people_read_a_table_and_a_verdict() -> None:
    ended = await nexfn("doctor", "--text")
    assert ended.code == 0, ended.err
    for layer in PROFILES[DEFAULT].layers:
        assert ended.out.count(f"  {layer} ") == 1, layer
    assert "strict (default)  holds: 11 layers" in ended.out
    assert "MISSING" not in ended.out.partition("profile isolated")[0]


@needs_landlock
async def test_a_missing_layer_of_the_default_profile_ends_it_with_1_and_says_what_to_do() -> None:
    ended = await nexfn_without("landlock", "doctor", "--json")
    assert ended.code == 1, ended.err
    (layer,) = [one for one in of(ended, "layer") if one["profile"] == DEFAULT and not one["holds"]]
    assert (layer["layer"], layer["advice"]) == ("landlock", ADVICE["landlock"])
    profiles = {record["profile"]: record for record in of(ended, "profile")}
    assert (profiles[DEFAULT]["available"], profiles[DEFAULT]["missing"]) == (False, ["landlock"])
    text = await nexfn_without("landlock", "doctor", "--text")
    assert text.code == 1
    assert "strict (default)  cannot be used, for want of landlock" in text.out
    assert text.out.count("MISSING") == 3  # once a profile that has it
    assert "CONFIG_SECURITY_LANDLOCK" in " ".join(text.out.split())


@needs_landlock
async def test_a_layer_that_only_other_profiles_have_does_not_change_the_exit_code() -> None:
    ended = await nexfn_without("landlock", "doctor", "--default-profile", "process")
    assert ended.code == 0, ended.err
    assert {record["profile"] for record in of(ended, "profile") if not record["available"]} >= {"strict", "oneshot"}


@needs_landlock
async def test_what_is_permitted_to_be_missing_is_said_and_is_missing_all_the_same() -> None:
    ended = await nexfn_without("landlock", "doctor", "--permit-missing-layers", "landlock", "--text")
    assert ended.code == 1
    assert "strict (default)  is used without landlock, as the settings permit" in ended.out


@needs_landlock
async def test_up_refuses_to_start_without_a_layer_and_starts_where_that_is_permitted(
    nats_server: EmbeddedServer,
) -> None:
    ended = await nexfn_without("landlock", "up", "-s", nats_server.url, "--no-state")
    assert ended.code == 1, ended.err
    assert ended.error["code"] == "layers-missing"
    assert "landlock: it could not be applied: no such thing on this machine" in ended.err
    assert "--permit-missing-layers landlock" in ended.err


@needs_landlock
async def test_dev_permits_by_itself_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "function.py").write_text("def handler(event, context):\n    return event.data\n")
    (folder / "Nexfile").write_text(json.dumps({"name": "echo", "type": "python", "lifecycle": "function"}))
    ended = await nexfn_without("landlock", "dev", str(tmp_path), "--once", "--port", "0")
    (record,) = of(ended, "unprotected")
    assert record["missing_layers"] == ["landlock"]


@needs_landlock
async def test_control_groups_are_said_to_be_missing_or_tried_like_every_layer() -> None:
    ended = await nexfn("doctor", "--json")
    (told,) = of(ended, "cgroup")
    assert (told.get("folder"), told["controllers"], told["not_delegated"]) == (None, [], [])
    try:
        with delegated_folder() as folder:
            ended = await nexfn("doctor", "--json", "--cgroup", str(folder))
            left = [entry for entry in folder.iterdir() if entry.is_dir()]
    except Unavailable as why:
        pytest.skip(str(why))
    assert left == []
    (told,) = of(ended, "cgroup")
    assert told["folder"] == str(folder)
    assert sorted([*told["controllers"], *told["not_delegated"]]) == ["cpu", "memory", "pids"]
    found = [layer for layer in of(ended, "layer") if layer["layer"] == "cgroup"]
    assert [layer["profile"] for layer in found] == ["strict", "isolated", "oneshot"]
    assert {layer["holds"] for layer in found} == {bool(told["controllers"])}, found
    assert ended.code == (0 if told["controllers"] else 1), ended.err


async def test_a_folder_that_cannot_hold_control_groups_ends_it(tmp_path: Path) -> None:
    for command in (("doctor",), ("up", "--no-state")):
        ended = await nexfn(*command, "--cgroup", str(tmp_path))
        assert (ended.code, ended.error["code"]) == (1, "cgroup-unusable"), ended.err
        assert f"the cgroup folder {tmp_path} cannot be used: it is no folder of cgroup v2" in ended.err


async def test_elsewhere_than_on_linux_it_is_a_clear_statement() -> None:
    ended = await python(_ELSEWHERE)
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    assert ended.error["code"] == "zygote"
    assert "workers are locked by the Linux kernel, and this is darwin" in ended.err


async def test_a_wrong_setting_is_refused_before_anything_is_tried() -> None:
    ended = await nexfn("doctor", "--permit-missing-layers", "landlok")
    assert ended.code == 2
    assert "no layer is called 'landlok'" in ended.err
    assert ended.out == ""
