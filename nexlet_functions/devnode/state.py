"""What the stand-in node keeps over a restart: who it is, and which workloads were deployed to which type of agent.

One file, JSON, mode 0600 (it holds the node's private keys and the workloads' environments), written beside its place
and moved there. A real node keeps its workloads in a bucket, by type as well.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Literal

import nkeys
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from nexlet_functions.errors import KeyUnusable, NexletFunctionsError
from nexlet_functions.functions.keys import CurveKey
from nexlet_functions.functions.private_files import private_folder, replace_private
from nexlet_models.workloads import StartWorkloadRequest

__all__ = ["Identity", "NodeState", "StateUnusable"]


class StateUnusable(NexletFunctionsError):
    """A state file that cannot be read, written or understood."""

    code = "devnode-state"

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"the node's state file {file} cannot be used: {reason}; move it away or name another one")


class Identity:
    """Who a node is: a server key and a curve key.

    Attributes:
        node_id: public server key (N...).
        xkey: public curve key (X...).
    """

    def __init__(self, node_seed: SecretStr, curve_key: CurveKey) -> None:
        """From what `node_seed` and `curve_key` were before.

        Raises:
            ValueError: `node_seed` is no seed of a server.
        """
        seed = node_seed.get_secret_value()
        try:
            pair = nkeys.from_seed(bytearray(seed.encode()))
            public = bytes(pair.public_key).decode()
        except nkeys.NkeysError:
            raise ValueError("a server's seed begins with SN") from None
        if not public.startswith("N"):
            raise ValueError("a server's seed begins with SN")
        self.node_seed = node_seed
        self.curve_key = curve_key
        self.node_id = public
        self.xkey = curve_key.public

    @classmethod
    def generate(cls) -> Identity:
        """A new one."""
        seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_SERVER)
        return cls(SecretStr(seed.decode()), CurveKey.generate())

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


class _Stored(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    node_seed: str = Field(repr=False)
    curve_seed: str = Field(repr=False)
    workloads: dict[str, dict[str, StartWorkloadRequest]] = Field(default_factory=dict, repr=False)


class NodeState:
    """An identity, and workload requests by register type and id. Without a file, it lives as long as the object."""

    def __init__(self, file: Path | None = None) -> None:
        """Read `file`, or begin with a new identity where there is none.

        Raises:
            StateUnusable: see there.
        """
        self._file = file
        self._writing = asyncio.Lock()
        self._workloads: dict[str, dict[str, StartWorkloadRequest]] = {}
        self.identity = Identity.generate()
        if file is None:
            return
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            self._write(self._serialised())
            return
        except OSError as error:
            raise StateUnusable(file, error.strerror or type(error).__name__) from error
        try:
            stored = _Stored.model_validate_json(data)
            curve_key = CurveKey.from_seed(SecretStr(stored.curve_seed))
            self.identity = Identity(SecretStr(stored.node_seed), curve_key)
        except (ValidationError, ValueError, KeyUnusable):
            raise StateUnusable(file, "it is damaged, or of another version") from None
        self._workloads = stored.workloads

    def of_type(self, register_type: str) -> dict[str, StartWorkloadRequest]:
        """Workload id to request, of one type of agent."""
        return dict(self._workloads.get(register_type, {}))

    async def store(self, workload_id: str, request: StartWorkloadRequest) -> None:
        """Keep a workload.

        Raises:
            StateUnusable: the file cannot be written; the workload is kept in memory all the same.
        """
        self._workloads.setdefault(request.workload_type, {})[workload_id] = request
        await self._save()

    async def remove(self, register_type: str, workload_id: str) -> None:
        """Forget a workload; none is there to forget when it was never kept.

        Raises:
            StateUnusable: the file cannot be written.
        """
        if self._workloads.get(register_type, {}).pop(workload_id, None) is not None:
            await self._save()

    async def _save(self) -> None:
        if self._file is None:
            return
        async with self._writing:  # what is written last is the latest
            await asyncio.to_thread(self._write, self._serialised())

    def _serialised(self) -> bytes:
        stored = {
            "version": 1,
            "node_seed": self.identity.node_seed.get_secret_value(),
            "curve_seed": self.identity.curve_key.seed().get_secret_value(),
            "workloads": {
                register_type: {workload_id: json.loads(request.to_json()) for workload_id, request in kept.items()}
                for register_type, kept in self._workloads.items()
            },
        }
        return json.dumps(stored, indent=1).encode()

    def _write(self, data: bytes) -> None:
        assert self._file is not None, "only a state with a file is written"
        try:
            private_folder(self._file.parent)
            replace_private(self._file, data)
        except OSError as error:
            raise StateUnusable(self._file, error.strerror or type(error).__name__) from error
