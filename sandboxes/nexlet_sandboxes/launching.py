"""Executing a zygote: all that a process has to have loaded for it is here, and that is little.

A zygote takes longer to get ready than anything else that a short command does. So whoever will need one begins with
that, before anything else is imported: while the one process loads what workers need, the other loads what it needs
itself. `Zygote.start` takes over what was `launch`ed.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nexlet_sandboxes.zygote_main import SHORT_LIVED

__all__ = ["ARGUMENTS", "SHORT_LIVED", "Launched", "launch", "launch_early"]

ARGUMENTS: Final = ("-I", "-m", "nexlet_sandboxes.zygote_main")
"""What the interpreter is executed with; behind them `SHORT_LIVED`, and the modules that an operator permits."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A zygote's process, which may not be ready yet.

    Attributes:
        arguments: what the interpreter was executed with.
        process: itself.
        control: our end of its control socket. It ends when that is closed.
    """

    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    control: socket.socket

    def end(self) -> None:
        """For who has no use for it: ended, and gone when this returns."""
        self.control.close()
        self.process.kill()
        self.process.wait()  # it was killed: a matter of milliseconds


def launch(arguments: Sequence[str]) -> Launched:
    """Execute a zygote, with an empty environment. It gets ready by itself.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            # Not asyncio's: its child watcher would reap what `Zygote` waits for, and starting takes a millisecond.
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # Without TZ libc looks for /etc/localtime, which a locked worker may not: local time would depend on
                # when it was first asked for. Functions live in UTC.
                env={"TZ": "UTC"},
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return Launched(tuple(arguments), process, ours)


def launch_early(*, short_lived: bool = True) -> Launched | None:
    """Launch what `Zygote.start` will want, before anything is known of what it is wanted for.

    Args:
        short_lived: as for `Zygote.start`.

    Returns:
        None where that cannot be done; `Zygote.start` tries again then, and says why it cannot.
    """
    if sys.platform != "linux":
        return None
    try:
        return launch((*ARGUMENTS, SHORT_LIVED) if short_lived else ARGUMENTS)
    except OSError:
        return None
