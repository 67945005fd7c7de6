"""Documents that are tried out: the files they show are written, the commands they show are run.

The info string of a fenced block says what becomes of it:

- `file=NAME`: it is written to that file.
- `console`: it has commands, each after `$ `, and below each what it prints; `...` stands for anything, as in doctest.
  Commands run in a folder of their own, with the environment's `bin` first on PATH, and as on a terminal
  (`NEXFN_JSON=0`). `nats://127.0.0.1:4222` stands for the server of the test. What runs until it is ended (`nexfn dev`,
  `nexfn up`, `nex node up`, a program of `docs/examples`) goes on in the background.
- a second word, as in `json event`: it is read as one of those (`tests/docs/test_blocks.py` has the list).
"""

from __future__ import annotations

import asyncio
import doctest
import fnmatch
import os
import re
import signal
import sysconfig
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import environment

__all__ = ["ROOT", "Background", "Command", "Shown", "Walk", "blocks", "matches", "pages"]

ROOT = Path(__file__).parents[2]

STATED_URL = "nats://127.0.0.1:4222"
STATED_STATE = "/var/lib/nexlet-functions"
_GOES_ON = re.compile(r"nexfn (dev|up)\b|nex node up\b|python docs/examples/")
_FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Command:
    """One command of a `console` block, and what the document says that it prints."""

    line: str
    expected: str


@dataclass(frozen=True)
class Shown:
    """A fenced block: a file to write, commands to run, something to be read, or none of these.

    Attributes:
        line: of its fence, from 1.
        kind: the second word of its info string, "" where there is none.
        options: what it says as `NAME=VALUE`.
    """

    line: int
    kind: str
    options: dict[str, str]
    text: str
    commands: tuple[Command, ...]

    @property
    def file(self) -> str:
        """The file it is written to, "" for none."""
        return self.options.get("file", "")


def pages() -> list[Path]:
    """Every document there is."""
    return [ROOT / "README.md", ROOT / "samples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: str) -> Iterator[Shown]:
    """The fenced blocks of a Markdown text, in order."""
    for block in _FENCE.finditer(document):
        info, text = str(block[1]), str(block[2])
        language, _, more = info.partition(" ")
        words = more.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        commands = tuple(_commands(text)) if language == "console" else ()
        yield Shown(
            line=document.count("\n", 0, block.start()) + 1,
            kind=words[0] if words and "=" not in words[0] else "",
            options=options,
            text=text,
            commands=commands,
        )


def _commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        line, _, expected = part.partition("\n")
        yield Command(line, expected)


class Background:
    """A command that goes on until it is ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""

    async def until(self, expected: str, timeout: float = 60.0) -> None:
        """Read what it prints until that is what was expected."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                while not matches(expected, self.out):
                    line = await self.process.stdout.readline()
                    assert line, f"it ended, having printed:\n{self.out}"
                    self.out += line.decode()
        except TimeoutError:
            raise AssertionError(f"expected:\n{expected}\nwithin {timeout} s, got:\n{self.out}") from None

    async def end(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(self.process.communicate(), 30)
        assert self.process.returncode is not None
        return self.process.returncode


def matches(expected: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS)


Equivalent = Callable[["Walk", Command], Awaitable[None]]


class Walk:
    """Walks through a document in a folder of its own.

    Attributes:
        folder: where commands run.
        url: of the server that `nats://127.0.0.1:4222` stands for; "" for the one that `nexfn dev` starts.
        ran: every command that was run or had its equivalent run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str = "",
        equivalents: dict[str, Equivalent] | None = None,
        programs: Path | None = None,
    ) -> None:
        """Nothing is run yet.

        Args:
            folder: where commands run.
            url: see above.
            equivalents: the beginning of a command line, `*` for anything, to what is done in its place.
            programs: a folder with further programs, first on PATH.
        """
        self.folder = folder
        self.url = url
        self.ran: list[str] = []
        self._equivalents = equivalents or {}
        self._background: list[Background] = []
        path = [*([str(programs)] if programs is not None else []), sysconfig.get_path("scripts"), os.environ["PATH"]]
        self._environment = environment(
            PATH=os.pathsep.join(path),
            NEXFN_JSON="0",
            NEXFN_PORT="0",
            NEXFN_NO_STATE="1",
            NEXFN_NODES="1",  # there is one, so that nothing waits for the answer of another
        )

    async def through(self, document: str) -> None:
        """All of it; whatever runs in the background is ended afterwards, and must end with 0."""
        try:
            for block in blocks(document):
                if block.file:
                    file = self.folder / block.file
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block.text)
                for command in block.commands:
                    await self.run(command)
        finally:
            await self.end_background()

    async def run(self, command: Command) -> None:
        """One command, or its equivalent."""
        self.ran.append(command.line)
        for beginning, equivalent in self._equivalents.items():
            if fnmatch.fnmatchcase(command.line, f"{beginning}*"):
                await equivalent(self, command)
                return
        if _GOES_ON.match(command.line):
            await self._start(command)
            return
        _, got = await self.outcome(command.line)
        assert matches(command.expected, got), f"$ {command.line}\nexpected:\n{command.expected}\ngot:\n{got}"

    async def outcome(self, line: str) -> tuple[int, str]:
        """The exit code of a command, and what it prints; with what it says of errors, where it is not 0."""
        process = await self._shell(line)
        try:
            out, err = await asyncio.wait_for(process.communicate(), 60)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)  # the shell and what it runs
            raise AssertionError(f"$ {line}\ndid not end within a minute") from None
        assert process.returncode is not None
        # What went well may still have warned.
        return process.returncode, out.decode() + (err.decode() if process.returncode else "")

    async def end_background(self) -> None:
        """End what runs in the background, the newest first."""
        while self._background:
            assert await self._background.pop().end() == 0

    async def _start(self, command: Command) -> None:
        background = Background(await self._shell(f"exec {command.line}", errors=asyncio.subprocess.STDOUT))
        self._background.append(background)
        if command.line.startswith("nexfn up"):
            await background.until("...nexlet starts...")
        if command.line.startswith("nexfn dev"):
            await background.until("...ready: ...", timeout=60)
            found = re.search(r"nats://\S+", background.out)
            assert found is not None, background.out
            self._environment["NATS_URL"] = found[0]
        if command.expected:
            await background.until(command.expected)

    async def _shell(self, line: str, *, errors: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        environment = self._environment
        if "--state-dir" in line:
            environment = {name: value for name, value in environment.items() if name != "NEXFN_NO_STATE"}
        return await asyncio.create_subprocess_shell(
            line.replace(STATED_URL, self.url or STATED_URL).replace(STATED_STATE, str(self.folder / "state")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )
