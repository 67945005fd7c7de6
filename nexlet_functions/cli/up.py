"""`up`: the nexlet itself, beside a node or started by one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nexlet_functions.cli.logs import set_up_logging
from nexlet_functions.cli.options import CREDENTIALS, setting_flags
from nexlet_functions.cli.running import loop_factory

if TYPE_CHECKING:
    from nexlet_functions.nexlet import Nexlet
    from nexlet_functions.settings import SettingsHolder

__all__ = ["up"]


@setting_flags(
    NATS=CREDENTIALS,
    Nex=("nexus", "register_type", "name", "max_workloads"),
    What_is_kept=("settings_file", "state_dir", "no_state", "xkey_file", "xkey_peers", "secrets_dir"),
    Functions=("source_folders", "default_profile", "permit_missing_layers", "events", "grace", "artifact_timeout"),
    Log=("log_level", "log_format"),
)
def up(*, flags: Mapping[str, object]) -> None:
    """Run the nexlet: register with a node, take functions, serve until SIGTERM.

    Beside a node that takes remote agents, or started by a node, whose environment then has everything it needs.
    """
    from nexlet_functions.settings import Settings, SettingsHolder

    holder = SettingsHolder(Settings.read(flags), lambda: Settings.read(flags))
    set_up_logging(level=holder.current.log_level, form=holder.current.log_format)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_up(holder))


async def _up(holder: SettingsHolder) -> None:
    from nexlet_functions.nexlet import Nexlet

    loop = asyncio.get_running_loop()
    parent = os.getppid()
    # A signal that comes while it starts must not be lost, nor leave half of it behind.
    asked = asyncio.Event()
    started: list[Nexlet] = []

    def stop() -> None:
        asked.set()
        for nexlet in started:
            nexlet.stop_soon()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, holder)
    async with await Nexlet.start(holder, environment=os.environ) as nexlet:
        started.append(nexlet)
        if asked.is_set():
            nexlet.stop_soon()
        if nexlet.started_by_node:
            with _until_ended(parent, stop):
                await nexlet.wait()
        else:
            await nexlet.wait()


@contextmanager
def _until_ended(parent: int, stop: Callable[[], None]) -> Iterator[None]:
    """Stop when the node that started us ends without ending us (it was killed, or crashed).

    The next one starts an agent of its own, under another id. We would serve beside it for ever, and nobody could tell
    us to stop.
    """
    import structlog

    def gone() -> None:
        log.warning("the node that started this nexlet has ended, and so does the nexlet", pid=parent)
        stop()

    log = structlog.stdlib.get_logger("nexlet_functions")
    if os.getppid() != parent:
        gone()  # while we were starting
        yield
        return
    if parent == 0:
        yield  # it is outside of our container, where we cannot see it
        return
    # Not the kernel's signal at the parent's death: it comes when the thread that started us ends.
    watched = os.pidfd_open(parent)
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(watched)
        gone()

    loop.add_reader(watched, ended)
    try:
        yield
    finally:
        loop.remove_reader(watched)
        os.close(watched)


def _reload(holder: SettingsHolder) -> None:
    import structlog

    from nexlet_functions.errors import SettingsRefused

    log = structlog.stdlib.get_logger("nexlet_functions")
    try:
        changed, restart = holder.reload()
    except SettingsRefused as refused:
        log.error("the settings stay as they are: what was read is refused", problems=str(refused))
        return
    log.info("settings read again", changed=list(changed))
    if restart:
        log.warning("some settings changed that take a restart", settings=list(restart))
