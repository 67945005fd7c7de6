"""What a nexlet keeps over its own death: its registration, and the workloads it was given.

- `KeptRegistration`, `KeptWorkload`: a file each, JSON, with the version of its layout.
- `State`: the folder. Files are 0600 and written whole or not at all (a temporary one, fsync, rename); a lock keeps
  two nexlets from sharing one folder. A file that is damaged or of another version is set aside under another name,
  with a word in the log, and the nexlet goes on without it. What a full disk, or one that is not to be written to,
  keeps from being written is owed: it is tried again (`catch_up`) until it is there.

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

import orjson
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
    """A state folder that cannot be made, written to, or is another nexlet's.

    Attributes:
        in_use: it is another nexlet's, which runs.
    """

    code = "state-unusable"

    def __init__(self, text: str, *, in_use: bool = False) -> None:
        super().__init__(text)
        self.in_use = in_use


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
        # Digests of what stands on the disk. What a restart brings back is not written again: for a hundred workloads
        # that is two hundred waits for a disk, while they are to serve.
        self._standing: dict[Path, bytes] = {}
        # What could not be written; None is a file that could not be removed.
        self._owed: dict[Path, bytes | None] = {}

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
                "give each nexlet a folder of its own, or take over from that one (up --take-over)",
                in_use=True,
            ) from None
        return cls.inherit(folder, lock)

    @classmethod
    def inherit(cls, folder: Path, lock: int) -> Self:
        """The same, with a lock that is ours already: it was handed over, and is closed with the state."""
        with contextlib.suppress(OSError):  # a full disk has no room for what only tells a person whom to look for
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        for left in (*folder.glob(".new-*"), *(folder / "workloads").glob(".new-*")):
            with contextlib.suppress(OSError):
                left.unlink()  # of a write that was cut short
        return cls(folder, lock)

    @classmethod
    def look(cls, folder: Path) -> Self:
        """What another nexlet keeps, which runs: to be read, and not written to."""
        return cls(folder, -1)

    @property
    def folder(self) -> Path:
        """All of it."""
        return self._folder

    @property
    def lock(self) -> int:
        """The descriptor that holds the folder, for a nexlet that takes over."""
        return self._lock

    @property
    def agent_folder(self) -> Path:
        """The agent's own part."""
        return self._folder / "agent"

    def registration(self) -> KeptRegistration | None:
        """What was kept, if anything and if it is sound."""
        return self._read(self._folder / "registration.json", KeptRegistration)

    def workloads(self) -> dict[str, AgentStartWorkloadRequest]:
        """What was kept and is sound, by workload id."""
        found: dict[str, AgentStartWorkloadRequest] = {}
        for file in sorted((self._folder / "workloads").glob("*.json")):
            kept = self._read(file, KeptWorkload)
            if kept is None:
                continue
            if file != self._file(kept.id):
                self._set_aside(file, f"it is about workload {kept.id!r}, which has a file of another name")
                continue
            found[kept.id] = kept.request
        return found

    @property
    def owed(self) -> int:
        """How many files are not as they should be, because they could not be written or removed."""
        return len(self._owed)

    async def keep_registration(self, kept: KeptRegistration) -> None:
        """Write it down. What goes wrong is logged, and tried again: serving goes on."""
        await self._do(self._folder / "registration.json", kept.to_json())

    async def keep_workload(self, workload_id: str, request: AgentStartWorkloadRequest) -> None:
        """Write it down; see `keep_registration`."""
        await self._do(self._file(workload_id), KeptWorkload(id=workload_id, request=request).to_json())

    async def forget_workload(self, workload_id: str) -> None:
        """Remove it, where it is there."""
        await self._do(self._file(workload_id), None)

    async def catch_up(self) -> None:
        """Try again what is owed. To be called now and then."""
        for file in list(self._owed):
            async with self._order:
                if file not in self._owed or not await self._try(file, self._owed[file]):
                    continue
            if not self._owed:
                _log.info("state is kept again: everything that was owed is written")

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)

    def _file(self, workload_id: str) -> Path:
        # An id is a subject's token, which may have characters that a file's name cannot.
        return self._folder / "workloads" / f"{hashlib.sha256(workload_id.encode()).hexdigest()[:40]}.json"

    async def _do(self, file: Path, data: bytes | None) -> None:
        async with self._order:
            if data is None or self._standing.get(file) != _digest(data):
                await self._try(file, data)

    async def _try(self, file: Path, data: bytes | None) -> bool:
        """Have `file` say `data`, or be gone where that is None. Whether it does."""
        known = file in self._owed
        try:
            if data is None:
                await asyncio.to_thread(self._remove, file)
            else:
                await asyncio.to_thread(self._write, file, data)
        except OSError as error:
            self._standing.pop(file, None)
            self._owed[file] = data
            if not known:  # once, however often it is tried
                _log.error(
                    "state could not be kept",
                    file=str(file),
                    reason=error.strerror,
                    consequence="serving goes on; a restart does not know of it until it could be written",
                )
            return False
        self._owed.pop(file, None)
        if data is None:
            self._standing.pop(file, None)
        else:
            self._standing[file] = _digest(data)
        return True

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
    def _remove(file: Path) -> None:
        file.unlink(missing_ok=True)
        _sync_folder(file.parent)

    def _read(self, file: Path, kind: type[_Kept]) -> _Kept | None:
        try:
            data = file.read_bytes()
            version = _version(data)
            if version != VERSION:
                self._set_aside(file, f"its version is {version}, and this program reads version {VERSION}")
                return None
            kept = kind.from_json(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._set_aside(file, f"it cannot be read: {error.strerror}")
            return None
        except MalformedMessage as error:
            self._set_aside(file, f"it is damaged: {error}")
            return None
        self._standing[file] = _digest(data)
        return kept

    @staticmethod
    def _set_aside(file: Path, reason: str) -> None:
        aside = file.with_suffix(".set-aside")
        try:
            file.replace(aside)
        except OSError as error:
            _log.warning("a state file is not used", file=str(file), reason=reason, stays=error.strerror)
        else:
            _log.warning("a state file is not used", file=str(file), reason=reason, kept_as=str(aside))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _version(data: bytes) -> object:
    """What a file says its layout is, whatever else it has.

    Raises:
        MalformedMessage: it says nothing of the kind.
    """
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedMessage("state file", (f"no JSON: {error}",)) from None
    version = said.get("version") if isinstance(said, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise MalformedMessage("state file", ("it does not say its version",))
    return version


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
