"""What a service manager is told: systemd's notification protocol (sd_notify(3)), where there is one that listens.

One datagram for each state: ready, reloading, stopping, a status that `systemctl status` shows, and that we live
(`WatchdogSec=`). Nothing listens in a terminal, and nothing is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, Mapping

__all__ = ["ServiceManager"]


class ServiceManager:
    """The one that started us, if it wants to hear of us."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """Use `of`.

        Args:
            address: of its socket, a path or `@` and a name; "" for nobody.
            watchdog: seconds without a word after which it takes us for stuck; 0 where it does not look.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog
        self._timer: asyncio.TimerHandle | None = None
        self._ready = False

    @classmethod
    def of(cls, environment: Mapping[str, str], *, pid: int) -> ServiceManager:
        """By NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which is another's where somebody else is watched."""
        watched = environment.get("WATCHDOG_USEC", "") if environment.get("WATCHDOG_PID", str(pid)) == str(pid) else ""
        return cls(environment.get("NOTIFY_SOCKET", ""), int(watched) / 1e6 if watched.isdecimal() else 0.0)

    def ready(self) -> None:
        """Started: it connects and registers from now on, for as long as that takes. The watchdog is fed."""
        self._ready = True
        self._say("READY=1")
        if self._watchdog:
            self._feed()

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Around reading the settings again. While it starts there is nothing to tell of it."""
        if self._ready:
            self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            if self._ready:
                self._say("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={' '.join(text.split())}")

    def _feed(self) -> None:
        # From the event loop, so that it ends when that hangs; twice as often as asked for, see sd_watchdog_enabled(3).
        self._say("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._watchdog / 2, self._feed)

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # Nobody there, or nobody who reads: we are no less ready for that.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)
