"""The command line as a whole: its commands, options, variables, exit codes and reference."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.cli.app import COMMANDS, load_command
from nexlet_functions.cli.exits import Exit
from nexlet_functions.cli.output import plain, styled
from nexlet_functions.cli.reference import reference
from nexlet_functions.settings import Settings
from tests.support.cli import PROGRAM, environment, nexfn

ROOT = Path(__file__).parents[2]


def options(command: str) -> dict[str, Any]:
    return {
        option.name: option
        for option in load_command(command).params
        if option.param_type_name == "option" and option.name != "help"
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_an_environment_twin(command: str) -> None:
    for name, option in options(command).items():
        if name == "header":  # a list with spaces in its values, which is read by ourselves
            assert "NEXFN_HEADER" in option.help
            continue
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
        twins = {f"NEXFN_{each.lstrip('-').replace('-', '_').upper()}" for each in option.opts}
        assert twins & set(variables), f"{command} {option.opts}"


def test_up_has_an_option_for_every_setting_that_is_neither_secret_nor_a_table() -> None:
    in_the_file_alone = {"modules", "defaults", "namespaces"}
    secret = {"password", "token"}
    assert set(options("up")) == set(Settings.model_fields) - in_the_file_alone - secret


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_a_secret(command: str) -> None:
    assert not {"password", "token", "seed", "jwt"} & set(options(command))


def test_the_reference_is_what_the_commands_say() -> None:
    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == reference(), "run: python -m nexlet_functions.cli.reference > docs/cli.md"


def test_every_exit_code_has_a_meaning_and_a_number_of_its_own() -> None:
    assert {exit.name: exit.value for exit in Exit} == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "UNREACHABLE": 3, "TIMEOUT": 4, "INTERNAL": 70, "INTERRUPTED": 130,
    }  # fmt: skip
    assert all(exit.meaning for exit in Exit)


@pytest.mark.parametrize("command", [*COMMANDS, ""])
async def test_help_fits_a_wide_screen(command: str) -> None:
    ended = await nexfn(*([command] if command else []), "--help", env=environment(COLUMNS="120"))
    assert ended.code == 0, ended.err
    # `up` has the settings of a nexlet, without those that are seldom changed; the others are read at one glance.
    assert len(ended.out.splitlines()) <= (80 if command == "up" else 45)


async def test_version_is_told_as_text_and_as_json() -> None:
    ended = await nexfn("version")
    (record,) = ended.records
    assert record["type"] == "version"
    assert "nats-py" in record["packages"]
    text = await nexfn("version", "--text")
    assert text.out.startswith(f"nexlet-functions {record['version']}\n")
    assert (await nexfn("--version", env=environment(NEXFN_JSON="0"))).code == 0


async def test_a_width_of_nothing_is_none() -> None:
    shown = await nexfn("version", "--text", env=environment(COLUMNS="0"))
    assert shown.out.startswith("nexlet-functions ")
    refused = await nexfn("check", "--text", "/nowhere", env=environment(COLUMNS="0"))
    assert "no such folder" in refused.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("version >&-", 0),
        ("version --text >&-", 0),
        ("version <&- >&- 2>&-", 0),
        ("check /nowhere 2>&-", 1),
        ("secrets set token <&-", 2),
    ],
)
def test_standard_streams_that_are_closed_are_empty_ones(words: str, code: int) -> None:
    command = f"{sys.executable} {PROGRAM} {words}"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment(), check=False)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("how", ["--json", "--text"])
def test_a_full_disk_is_said(how: str) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(PROGRAM), "version", how]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert ended.returncode == Exit.FAILED
    assert "standard output cannot be written: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_version_loads_nothing_that_takes_time() -> None:
    code = "import sys; from nexlet_functions.cli.app import load_command; load_command('version'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "nexlet_functions.cli.version" in loaded
    assert not {"nats", "pydantic", "structlog", "RestrictedPython", "yaml"} & set(loaded)


INTERRUPTED = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.argv = ["nexfn", "version"]
from nexlet_functions.cli import main
main()
"""


def test_ctrl_c_while_it_is_loaded_is_no_fault() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (Exit.INTERRUPTED, "", "")


async def test_an_unknown_command_or_option_ends_with_2() -> None:
    assert (await nexfn("deplyo")).code == 2
    assert (await nexfn("version", "--jsno")).code == 2


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\x07\u202ec\td\n") == "a\ufffd[31mb\ufffd\ufffdc\td\n"
    assert styled("a\x1b", ("b\x9b", "red")).plain == "a\ufffdb\ufffd"


def test_commands_are_documented_functions() -> None:
    for name in COMMANDS:
        assert inspect.getdoc(load_command(name).callback), name
