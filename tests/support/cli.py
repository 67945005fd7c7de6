"""The command line as users have it: a process of its own, with an environment that is made for it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PROGRAM", "Ended", "environment", "nexfn", "start_nexfn"]

PROGRAM = Path(sysconfig.get_path("scripts")) / "nexfn"
"""The command that was installed beside the Python which runs the tests."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code.
        out, err: what it wrote.
    """

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output, as the JSON lines that it is in a pipe."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The last line of standard error, as the JSON that it is in a pipe."""
        record: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        return record


def environment(**more: str) -> dict[str, str]:
    """An environment without any of the variables that the command line reads, but for those given."""
    kept = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START"}
    return {name: value for name, value in os.environ.items() if name in kept} | {"COLUMNS": "100"} | more


async def nexfn(
    *arguments: str | Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    cwd: Path | None = None,
) -> Ended:
    """Run a command to its end, while the test's event loop goes on (which may be who answers it)."""
    process = await start_nexfn(*arguments, env=env, cwd=cwd)
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), timeout)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{arguments} did not end within {timeout} s\n{out.decode()}\n{err.decode()}") from None
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def start_nexfn(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> asyncio.subprocess.Process:
    """Start a command, in a session of its own, as a terminal would."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        *(str(argument) for argument in arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env) if env is not None else environment(),
        cwd=cwd,
        start_new_session=True,
    )
