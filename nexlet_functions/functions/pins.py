"""What is kept for a workload over a restart: the source that it runs, and the form that this was compiled to.

A source that came from elsewhere is pinned as long as its workload lives: a tag that moves or a file that is edited
changes nothing that runs. The compiled form is a shortcut: with it, a nexlet that starts again with a hundred functions
starts a hundred processes, and not two hundred. It is code, but to the nexlet nothing but bytes: it goes to workers of
the very function that it was compiled for, which may run whatever its author wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Collection
from pathlib import Path

from nexlet_functions.functions.artifacts import Artifact, digest_of
from nexlet_functions.functions.private_files import private_folder, replace_private
from nexlet_models.start_request import StartRequest

__all__ = ["Pins"]

_FORGET_AFTER = 30 * 86400.0  # seconds without use, after which a pin's workload has gone without a stop
_FORM = b"compiled 1\n"


class Pins:
    """Sources and compiled forms of the workloads that run.

    A file for each, readable by its owner alone, named by a digest of the workload's id: that is
    whatever the node says.
    """

    _VERSION = 1

    def __init__(self, folder: Path | None) -> None:
        """Keep them in `folder`; None keeps none, and a restart fetches what is there then."""
        self._folder = folder

    async def find(self, workload_id: str, request: StartRequest) -> Artifact | None:
        """The source that this workload was started with; None where none is kept that fits its request."""
        if self._folder is None or request.uri is None:
            return None
        found = await asyncio.to_thread(self._read, self._path(workload_id))
        if found is None or found.place != request.uri or request.sha256 not in (None, found.sha256):
            return None
        return found

    async def keep(self, workload_id: str, artifact: Artifact) -> None:
        """Keep what the workload runs, unless it was inline.

        Raises:
            OSError: it cannot be written.
        """
        if self._folder is not None and artifact.place:
            await asyncio.to_thread(self._write, self._path(workload_id), artifact)

    async def find_form(self, workload_id: str, fingerprint: str) -> bytes:
        """What its sources were compiled to; b"" where nothing is kept that is whole and has this fingerprint."""
        if self._folder is None:
            return b""
        return await asyncio.to_thread(_read_form, self._form_path(workload_id), fingerprint)

    async def keep_form(self, workload_id: str, fingerprint: str, form: bytes) -> None:
        """Keep what its sources were compiled to.

        Raises:
            OSError: it cannot be written.
        """
        if self._folder is not None:
            await asyncio.to_thread(self._write_form, self._form_path(workload_id), fingerprint, form)

    async def drop_form(self, workload_id: str) -> None:
        """It did not do: the sources are to be compiled again."""
        if self._folder is not None:
            await asyncio.to_thread(self._form_path(workload_id).unlink, missing_ok=True)

    async def drop(self, workload_id: str) -> None:
        """The workload is gone."""
        if self._folder is not None:
            await asyncio.to_thread(self._path(workload_id).unlink, missing_ok=True)
            await self.drop_form(workload_id)

    async def forget_old(self, in_use: Collection[str] = ()) -> int:
        """Drop what nobody has asked for in thirty days: workloads that were stopped while we were away. How many.

        Args:
            in_use: workloads whose sources stay, however old they look: a function may run for months, and the clock of
                the machine may have been anything when it was started.
        """
        return await asyncio.to_thread(self._forget_old, frozenset(in_use)) if self._folder is not None else 0

    def _path(self, workload_id: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{digest_of(workload_id.encode())}.json"

    def _form_path(self, workload_id: str) -> Path:
        return self._path(workload_id).with_suffix(".compiled")

    def _read(self, path: Path) -> Artifact | None:
        try:
            kept = json.loads(path.read_bytes())
            if kept["version"] != self._VERSION:
                return None
            artifact = Artifact(kept["source"], kept["sha256"], kept["uri"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # there is none, or none that can be read: then it is fetched again, and checked as any other
        with contextlib.suppress(OSError):  # a disk that is read-only by now keeps it all the same
            os.utime(path)  # it is in use
        return artifact

    def _write(self, path: Path, artifact: Artifact) -> None:
        private_folder(path.parent)
        kept = {"version": self._VERSION, "uri": artifact.place, "sha256": artifact.sha256, "source": artifact.source}
        replace_private(path, json.dumps(kept).encode())

    def _write_form(self, path: Path, fingerprint: str, form: bytes) -> None:
        private_folder(path.parent)
        # Not synced: one that a power cut has damaged is found out by its checksum, and made again.
        replace_private(path, _FORM + bytes.fromhex(fingerprint) + hashlib.sha256(form).digest() + form, sync=False)

    def _forget_old(self, in_use: frozenset[str]) -> int:
        assert self._folder is not None
        oldest, forgotten = time.time() - _FORGET_AFTER, 0
        kept = {self._path(workload_id).stem for workload_id in in_use}
        for path in (*self._folder.glob("*.json"), *self._folder.glob("*.compiled")):
            if path.stem in kept:
                continue
            with contextlib.suppress(OSError):  # gone by now, or not to be removed: another time
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    forgotten += 1
        return forgotten


def _read_form(path: Path, fingerprint: str) -> bytes:
    try:
        kept = path.read_bytes()
    except OSError:
        return b""  # there is none, or none that can be read: then it is compiled again
    made = _FORM + bytes.fromhex(fingerprint)
    checksum, form = kept[len(made) : len(made) + 32], kept[len(made) + 32 :]
    if not kept.startswith(made) or hashlib.sha256(form).digest() != checksum:
        return b""
    with contextlib.suppress(OSError):  # as for a source
        os.utime(path)
    return form
