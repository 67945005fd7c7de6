"""A terminal session, recorded: `make session` writes docs/session.md.

The steps stand below as a person would do them: commands, edits, and a second terminal in which `nexfn dev` goes on.
They are done for real, in a temporary folder, and what the commands print goes into the page as it came. Times and ids
are different each time; `normalised` takes them out, so that a test can tell whether a page still says what happens.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import re
import signal
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import environment
from tests.support.documents import ROOT

__all__ = ["PAGE", "normalised", "record"]

PAGE = ROOT / "docs" / "session.md"

_HEAD = """\
# A session, from nothing to a function that is replaced while it runs

<!-- Recorded by `make session`; a test does all of it again and compares, but for times and ids. -->

Two terminals and an editor. Nothing has to be installed but this package (with its extra `dev`), and nothing runs
before the first command.
"""

_WORKS = '    return {"greeting": f"{context.env[\'GREETING\']}, {name}!"}\n'
_REFUSED = '    return {"greeting": f"{os.environ[\'GREETING\']}, {name}!"}\n'
_BETTER = '    return {"greeting": f"{context.env[\'GREETING\']}, dear {name}!"}\n'
_ADA = """nexfn invoke demo.greet '{"name": "Ada"}'"""


@dataclass(frozen=True)
class Say:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Run:
    """Commands in the first terminal, each to its end.

    Attributes:
        fails: whether the last one ends with another code than 0.
    """

    commands: tuple[str, ...]
    fails: bool = False


@dataclass(frozen=True)
class Start:
    """A command in the second terminal, which goes on; shown as far as to the line that has `until`."""

    command: str
    until: str


@dataclass(frozen=True)
class Watch:
    """What the second terminal shows meanwhile, as far as to the line that has `until`."""

    until: str


@dataclass(frozen=True)
class Follow:
    """A command that waits for what another one does.

    Attributes:
        until: in the line with which it is ready.
        meanwhile: the other command.
    """

    command: str
    until: str
    meanwhile: str


@dataclass(frozen=True)
class End:
    """Ctrl-C in the second terminal."""


@dataclass(frozen=True)
class Edit:
    """A change to a file, shown as a diff.

    Attributes:
        replacing: what is there, to what takes its place; "" is the beginning of the file.
    """

    file: str
    replacing: Sequence[tuple[str, str]]


Step = Say | Run | Start | Watch | Follow | End | Edit

STEPS: Sequence[Step] = (
    Say("## A function that works\n\n`init` makes a folder with all that a function has, and its test passes at once."),
    Run(("nexfn init demo", "cd demo", "python -m pytest -q")),
    Say(
        "## Running\n\nIn the second terminal `dev` starts a NATS server, a stand-in for the node and the nexlet, "
        "deploys the function,\nsends it its first sample event, and stays."
    ),
    Start("nexfn dev demo", "Ctrl-C ends all of it"),
    Say("In the first one, a question that is answered, and one that is refused:"),
    Run((_ADA,)),
    Run(("nexfn invoke demo.greet '{}'",), fails=True),
    Say("The second terminal has shown both meanwhile, and what the function logged."),
    Watch("rejected_by_function"),
    Say("## A mistake, and where it is\n\nOut of habit the setting is read from the process's own environment:"),
    Edit("function.py", [("", "import os\n\n"), (_WORKS, _REFUSED)]),
    Say("As soon as it is saved, `dev` says what a node would say. The version before it goes on."),
    Watch("the version before it goes on"),
    Say("`check` says the same, without any node:"),
    Run(("nexfn check .",), fails=True),
    Say("So it is read from where a function finds it, the import goes, and the greeting becomes a warmer one."),
    Edit("function.py", [("import os\n\n", ""), (_REFUSED, _BETTER)]),
    Say("Saved is deployed. The new version answers before the old one is told to stop."),
    Watch("redeployed"),
    Run((_ADA,)),
    Say(
        "## On a node\n\nWhat follows works with any node, and here with the one of `dev`. Another function, which "
        "`dev` does not watch,\nis deployed by hand; deployed again, it takes the place of the first."
    ),
    Run(
        (
            "cd ..",
            "nexfn init texts --template router --text | head -1",
            "nexfn deploy texts --namespace demo",
            "nexfn invoke texts.upper.greeting 'good morning'",
        )
    ),
    Edit("texts/Nexfile", [("timeout: 2s", "timeout: 500ms")]),
    Run(("nexfn deploy texts --namespace demo", "nexfn list --namespace demo")),
    Say("## Its log\n\nThe log feed keeps nothing, so whoever wants it listens first. While this waits for a line,"),
    Follow("nexfn logs demo --namespace demo --count 1", "following", _ADA),
    Say("## The end"),
    Run(("nexfn stop texts --namespace demo",)),
    Say("Ctrl-C in the second terminal ends the rest, and leaves nothing behind."),
    End(),
)


@dataclass
class _Terminal:
    """A folder, variables, and what goes on in the second terminal."""

    folder: Path
    variables: dict[str, str]
    second: asyncio.subprocess.Process | None = None

    async def run(self, command: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.variables,
            cwd=self.folder,
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def start(self, command: str, folder: Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_shell(
            f"exec {command}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.variables,
            cwd=folder,
        )

    async def end(self) -> tuple[int, str]:
        assert self.second is not None
        if self.second.returncode is None:
            self.second.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(self.second.communicate(), 60)
        assert self.second.returncode is not None
        return self.second.returncode, out.decode()


async def _until(process: asyncio.subprocess.Process, text: str) -> str:
    """Its next lines, as far as to the one that has the text."""
    assert process.stdout is not None
    seen: list[str] = []
    try:
        async with asyncio.timeout(60):
            while not any(text in line for line in seen):
                line = await process.stdout.readline()
                assert line, f"it ended without {text!r}:\n{''.join(seen)}"
                seen.append(line.decode())
    except TimeoutError:
        raise AssertionError(f"no {text!r} within a minute:\n{''.join(seen)}") from None
    return "".join(seen)


async def record(folder: Path) -> str:
    """The page, made by doing all of it in that folder, which is empty.

    Raises:
        AssertionError: a command ended otherwise than it should.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    variables = environment(
        PATH=path,
        NEXFN_JSON="0",
        NEXFN_PORT="0",
        NEXFN_INTERVAL="1h",
        PYTHONDONTWRITEBYTECODE="1",
        PYTEST_ADDOPTS="-p no:cacheprovider -p no:asyncio",
    )
    terminal = _Terminal(folder, variables)
    parts = [_HEAD]
    try:
        for step in STEPS:
            parts.append(await _done(step, terminal))
    finally:
        if terminal.second is not None:
            await terminal.end()
    return "\n".join(parts)


async def _done(step: Step, terminal: _Terminal) -> str:
    match step:
        case Say(text):
            return f"{text}\n"
        case Edit(file, replacing):
            return _fenced("diff", _edited(terminal.folder / file, replacing))
        case Run(commands, fails):
            return _fenced("console", await _run(commands, fails, terminal))
        case Start(command, until):
            terminal.second = await terminal.start(command, terminal.folder.parent)
            said = await _until(terminal.second, until)
            found = re.search(r"nats://\S+", said)
            assert found is not None, said
            terminal.variables["NATS_URL"] = found[0]
            return _fenced("console", f"$ {command}\n{said}")
        case Watch(until):
            assert terminal.second is not None
            return _fenced("console", await _until(terminal.second, until))
        case Follow(command, until, meanwhile):
            following = await terminal.start(command, terminal.folder)
            said = await _until(following, until)
            code, answer = await terminal.run(meanwhile)
            assert code == 0, answer
            out, _ = await asyncio.wait_for(following.communicate(), 60)
            assert following.returncode == 0, out
            waited = _fenced("console", f"$ {command}\n{said}{out.decode()}")
            asked = _fenced("console", f"$ {meanwhile}\n{answer}")
            return f"{waited}\nsomebody asks:\n\n{asked}"
        case End():
            code, said = await terminal.end()
            assert code == 0, said
            assert said.endswith("stopping ...\n"), said
            return _fenced("console", "^Cstopping ...")


async def _run(commands: Sequence[str], fails: bool, terminal: _Terminal) -> str:
    shown = []
    for command in commands:
        if command.startswith("cd "):
            terminal.folder = (terminal.folder / command.removeprefix("cd ")).resolve()
            shown.append(f"$ {command}\n")
            continue
        code, said = await terminal.run(command)
        assert (code != 0) == (fails and command == commands[-1]), f"$ {command}\n{said}"
        shown.append(f"$ {command}\n{said}")
    return "".join(shown)


def _edited(file: Path, replacing: Sequence[tuple[str, str]]) -> str:
    before = text = file.read_text()
    for old, new in replacing:
        assert old in text, f"{file} has no {old!r}"
        text = text.replace(old, new, 1)
    file.write_text(text)
    changed = difflib.unified_diff(before.splitlines(), text.splitlines(), file.name, file.name, n=1, lineterm="")
    return "".join(f"{line}\n" for line in changed)


def _fenced(language: str, text: str) -> str:
    assert "```" not in text
    return f"```{language}\n{text.rstrip()}\n```\n"


_VARIES = (
    (r"nats://127\.0\.0\.1:\d+", "nats://127.0.0.1:PORT"),
    (r"sha256:[0-9a-f]+", "sha256:DIGEST"),
    (r"\b\d\d:\d\d:\d\d\b", "HH:MM:SS"),
    (r"\b\d+(\.\d+)? ms\b", "N ms"),
    (r"\b\d+(\.\d+)? MiB\b", "N MiB"),
    (r"\bin \d+\.\d+s\b", "in Ns"),
    (r"\b\d+/\d+\b", "N/M"),  # workers, and how many there may be: as many as there are processors
    (r"\b[A-Za-z0-9]{20,}\b", "ID"),
    (r"(?<=, invocation )[\w-]{12}\.[0-9a-f]+", "ID"),
)
"""What is different each time, and what stands for it."""


def normalised(page: str) -> str:
    """The same without what is different each time."""
    for pattern, stand_in in _VARIES:
        page = re.sub(pattern, stand_in, page)
    page = re.sub(r"[ ]{2,}", "  ", page)  # columns are as wide as what is in them
    return _WATCHED.sub(lambda block: "\n".join(sorted(block[0].splitlines())), page)


_WATCHED = re.compile(r"(?<=^```console\n)\n?\d\d:.*?(?=^```)", re.M | re.S)


async def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(await record(Path(folder)))


if __name__ == "__main__":
    asyncio.run(_main())
