"""What a nexlet keeps over its own death: its registration, and the workloads it was given.

- `KeptRegistration`, `KeptWorkload`: a file each, JSON, with the version of its layout.
- `State`: the folder. Files are 0600 and written whole or not at all (a temporary one, fsync, rename); a lock keeps
  two nexlets from sharing one folder. A file that is damaged or of another version is set aside, with a word in the
  log, and the nexlet goes on without it.

Both kinds of file hold credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Self, TypeVar

import structlog

from nexlet_functions.errors import NexletFunctionsError
from nexlet_models.base import Message
from nexlet_models.connection import NatsConnectionData
from nexlet_models.errors import MalformedMessage
from nexlet_models.workloads import AgentStartWorkloadRequest

__all__ = ["KeptRegistration", "KeptWorkload", "State", "StateUnusable"]

VERSION = 1

_log = structlog.stdlib.get_logger("nexlet_functions.runner")


class StateUnusable(NexletFunctionsError):
    """A state folder that cannot be made, written to, or is another nexlet's."""

    code = "state-unusable"


class KeptRegistration(Message):
    """Who we are to which node.

    Attributes:
        nexus: where it was made.
        offer: digest of what was registered; a nexlet that offers something else registers anew.
        registration_creds: what may repeat the registration; None where the nexlet's own do.
    """

    version: int = VERSION
    nexus: str
    node_id: str
    agent_id: str
    offer: str
    connection_data: NatsConnectionData
    registration_creds: NatsConnectionData | None = None


class KeptWorkload(Message):
    """One workload, as it was asked for."""

    version: int = VERSION
    id: str
    request: AgentStartWorkloadRequest


_Kept = TypeVar("_Kept", KeptRegistration, KeptWorkload)


class State:
    """A locked state folder. Open it, close it."""

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        # One write after another: a workload that is stopped while its start is being kept must end up forgotten.
        self._order = asyncio.Lock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Make the folder where there is none, and lock it.

        Raises:
            StateUnusable: it cannot be made or written to, or another nexlet uses it.
        """
        try:
            for one in (folder, folder / "workloads", folder / "agent"):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "workloads").chmod(0o700)
            (folder / "agent").chmod(0o700)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateUnusable(
                f"state folder {folder} cannot be used: {error.strerror}; name another one, or do without state"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 32).decode("ascii", "replace").strip()
            os.close(lock)
            raise StateUnusable(
                f"state folder {folder} is in use by another nexlet{f' (process {holder})' if holder else ''}; "
                "give each nexlet a folder of its own"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        state = cls(folder, lock)
        for left in (*folder.glob(".new-*"), *(folder / "workloads").glob(".new-*")):
            left.unlink(missing_ok=True)  # of a write that was cut short
        return state

    @property
    def agent_folder(self) -> Path:
        """The agent's own part."""
        return self._folder / "agent"

    def registration(self) -> KeptRegistration | None:
        """What was kept, if anything and if it is sound."""
        return self._read(self._folder / "registration.json", KeptRegistration)

    def workloads(self) -> dict[str, AgentStartWorkloadRequest]:
        """What was kept and is sound, by workload id."""
        kept = (self._read(file, KeptWorkload) for file in sorted((self._folder / "workloads").glob("*.json")))
        return {one.id: one.request for one in kept if one is not None}

    async def keep_registration(self, kept: KeptRegistration) -> None:
        """Write it down. What goes wrong is logged: serving goes on, resuming will not be possible."""
        await self._do(self._write, self._folder / "registration.json", kept.to_json())

    async def keep_workload(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        """Write it down; see `keep_registration`."""
        await self._do(self._write, self._file(workload_id), KeptWorkload(id=workload_id, request=request).to_json())

    async def forget_workload(self, workload_id: str) -> None:
        """Remove it, where it is there."""
        await self._do(self._remove, self._file(workload_id), b"")

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def _file(self, workload_id: str) -> Path:
        # An id is a subject's token, which may have characters that a file's name cannot.
        return self._folder / "workloads" / f"{hashlib.sha256(workload_id.encode()).hexdigest()[:40]}.json"

    async def _do(self, work: object, file: Path, data: bytes) -> None:
        assert callable(work)
        async with self._order:
            try:
                await asyncio.to_thread(work, file, data)
            except OSError as error:
                _log.error("state could not be kept", file=str(file), reason=error.strerror)

    @staticmethod
    def _write(file: Path, data: bytes) -> None:
        # mkstemp makes it 0600.
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(descriptor)
            Path(name).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        _sync_folder(file.parent)

    @staticmethod
    def _remove(file: Path, _: bytes) -> None:
        file.unlink(missing_ok=True)
        _sync_folder(file.parent)

    def _read(self, file: Path, kind: type[_Kept]) -> _Kept | None:
        try:
            kept = kind.from_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, MalformedMessage) as error:
            self._set_aside(file, error.strerror or "" if isinstance(error, OSError) else str(error))
            return None
        if kept.version != VERSION:
            self._set_aside(file, f"its version is {kept.version}, this program's is {VERSION}")
            return None
        return kept

    @staticmethod
    def _set_aside(file: Path, reason: str) -> None:
        aside = file.with_suffix(".set-aside")
        _log.warning("a state file is not used", file=str(file), reason=reason, kept_as=str(aside))
        with contextlib.suppress(OSError):
            file.replace(aside)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
