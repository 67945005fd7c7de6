"""Commands that run while a test goes on, with what they say as it comes; and the fixtures that start and end them.

A folder of tests has them by importing `live` and `temporary` in its conftest.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import environment, start_nexfn

__all__ = ["Live", "StartLive", "live", "temporary"]


class Live:
    """A command that runs, with its records as they come.

    Attributes:
        records: those read so far.
        errors: the lines of standard error, as JSON.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.records: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self._read_errors = asyncio.create_task(self._errors())

    async def _errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(json.loads(line))

    async def until(self, kind: str, *, timeout: float = 60.0, **fields: Any) -> dict[str, Any]:
        """The next record of that type with those fields."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout):
            while True:
                line = await self.process.stdout.readline()
                assert line, f"it ended without {kind}: {self.records} {self.errors}"
                record: dict[str, Any] = json.loads(line)
                self.records.append(record)
                if record["type"] == kind and all(record.get(name) == value for name, value in fields.items()):
                    return record

    async def until_logged(self, event: str, *, timeout: float = 60.0) -> dict[str, Any]:
        """The log line of that text."""
        async with asyncio.timeout(timeout):
            while True:
                for line in self.errors:
                    if line.get("event") == event:
                        return line
                await asyncio.sleep(0.01)

    async def end(self, number: signal.Signals = signal.SIGINT, *, timeout: float = 30.0) -> int:
        """Send the signal, and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended(timeout=timeout)

    async def ended(self, *, timeout: float = 60.0) -> int:
        """The exit code, once it has ended by itself; what it still says is in `records`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout):
            async for line in self.process.stdout:
                self.records.append(json.loads(line))
            await self._read_errors
            return await self.process.wait()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of that type."""
        return [record for record in self.records if record["type"] == kind]


StartLive = Callable[..., Awaitable[Live]]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for temporary files of the commands of this test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
async def live(temporary: Path) -> AsyncIterator[StartLive]:
    """Starts commands; what still runs at the end of the test is killed."""
    started: list[Live] = []

    async def start(*arguments: str | Path, env: dict[str, str] | None = None) -> Live:
        env = environment(TMPDIR=str(temporary)) if env is None else env
        one = Live(await start_nexfn(*arguments, env=env))
        started.append(one)
        return one

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.ended()
