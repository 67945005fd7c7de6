"""TAB in a shell: a real bash on a terminal, with the script that the command prints for it."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nexlet_functions.cli.app import COMMANDS, _summary, load_command
from nexlet_functions.cli.completion import function_folders
from tests.support.cli import PROGRAM, environment, nexfn

NEXFILE = "name: demo\ntype: python\nlifecycle: function\nstart_request: {source_file: function.py}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two functions side by side, one of them with events, among what else lies about."""
    for name in ("functions/greet/events", "functions/greedy", "functions/notes", "farm", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("functions/greet", "functions/greedy", ".hidden"):
        (tmp_path / name / "Nexfile").write_text(NEXFILE)
    (tmp_path / "functions" / "greet" / "events" / "ada.json").write_text("{}")
    (tmp_path / "functions" / "greet" / "events" / "bob.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["functions", "functions/greedy", "functions/greet"]),
        ("fu", ["functions", "functions/greedy", "functions/greet"]),
        ("functions/", ["functions/greedy", "functions/greet"]),
        ("functions/gree", ["functions/greedy", "functions/greet"]),
        ("functions/greet", ["functions/greet"]),
        ("far", []),
        ("nowhere/", []),
    ],
)
def test_function_folders_are_found_by_their_nexfile(
    project: Path, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]
) -> None:
    monkeypatch.chdir(project)
    assert function_folders(typed) == offered
    assert function_folders(f"{project}/{typed}") == [f"{project}/{each}" for each in offered]


def test_a_function_folder_offers_itself(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "functions" / "greet")
    assert function_folders("") == ["."]
    assert function_folders("../gree") == ["../greedy", "../greet"]


def test_the_line_about_a_command_is_its_own() -> None:
    for name in COMMANDS:
        assert _summary(name) == (load_command(name).help or "").partition("\n")[0].strip(), name


def test_offering_commands_loads_none_of_them() -> None:
    code = "import sys; from nexlet_functions.cli.app import run; import atexit\n"
    code += "atexit.register(lambda: print(*(name for name in sys.modules if name.startswith('nexlet_')))); run()"
    asked = {"_NEXLET_FUNCTIONS_COMPLETE": "complete_bash", "COMP_WORDS": "nexlet-functions ", "COMP_CWORD": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(**asked)
    )
    *offered, loaded = ended.stdout.splitlines()
    assert offered == list(COMMANDS)
    assert not {"nexlet_functions.cli.up", "nexlet_functions.settings", "nexlet_sandboxes"} & set(loaded.split())


async def complete(shell: str, *words: str, cwd: Path) -> list[str]:
    """What the command answers to the script of a shell, asked about the last of these words."""
    variables = {
        "bash": {"COMP_WORDS": "\n".join(["nexfn", *words]), "COMP_CWORD": str(len(words))},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(["nexfn", *words])},
        "fish": {"_TYPER_COMPLETE_ARGS": " ".join(["nexfn", *words]), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    ended = await nexfn(env=environment(_NEXFN_COMPLETE=f"complete_{shell}", **variables), cwd=cwd)
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


async def test_values_are_offered_where_they_are_few(project: Path) -> None:
    asked = (
        ("check", "functions/gree"),
        ("pack", "functions/greet"),
        ("dev", "functions/greed"),
        ("invoke", "--local", "functions/greet", "--event", ""),
        ("init", "x", "--template", "r"),
        ("modules", "urllib."),
        ("check", "--format", ""),
        ("check", "--form"),
    )
    offered = await asyncio.gather(*(complete("bash", *words, cwd=project) for words in asked))
    assert offered == [
        ["functions/greedy", "functions/greet"],
        ["functions/greet"],
        ["functions/greedy"],
        ["ada", "bob"],
        ["request", "router"],
        ["urllib.parse"],
        ["text", "json", "github"],
        ["--format"],
    ]


async def test_the_other_shells_are_told_what_each_command_is_for(project: Path) -> None:
    zsh, fish = await asyncio.gather(complete("zsh", "che", cwd=project), complete("fish", "che", cwd=project))
    assert len(fish) == len(zsh) == 1
    assert fish[0].startswith("check\tCheck functions")
    assert '"check":"Check functions' in zsh[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
async def test_tab_in_bash(project: Path) -> None:
    # Typed in one go: readline takes no key before TAB is done. At the end Ctrl-A, and the line is not run but told.
    tell = b"\x01echo told: \x05\n"
    keys = [
        b"source <(nexfn --show-completion)\n",
        b"nexfn che\tfunctions/greet\t" + tell,
        b"nexfn inv\t--loc\tfunctions/greed\t" + tell,
        b"exit\n",
    ]
    said = await in_bash(b"".join(keys), cwd=project)
    told = [line.partition("told: ")[2].strip() for line in said.splitlines() if line.startswith("told: ")]
    assert told == ["nexfn check functions/greet", "nexfn invoke --local functions/greedy"], said


async def in_bash(keys: bytes, *, cwd: Path) -> str:
    """What a bash says on a terminal where somebody types `keys`."""
    ours, theirs = pty.openpty()
    env = environment(PATH=f"{PROGRAM.parent}:{os.environ['PATH']}", TERM="dumb", PS1="$ ", HOME=str(cwd))
    try:
        shell = await asyncio.create_subprocess_exec(
            "bash", "--norc", "--noprofile", "-i", stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=env,
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(theirs)
    said = bytearray()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        try:
            said.extend(os.read(ours, 65536))
        except OSError:  # the last process at the terminal has ended
            loop.remove_reader(ours)
            ended.set()

    loop.add_reader(ours, read)
    try:
        os.write(ours, keys)
        await asyncio.wait_for(ended.wait(), 60)
    finally:
        loop.remove_reader(ours)
        if shell.returncode is None:
            shell.kill()
        await shell.wait()
        os.close(ours)
    return said.decode()
