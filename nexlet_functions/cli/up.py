"""`up`: the nexlet itself, beside a node or started by one."""

from __future__ import annotations

import asyncio
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nexlet_functions.cli import ahead
from nexlet_functions.cli.exits import Exit
from nexlet_functions.cli.notify import ServiceManager
from nexlet_functions.cli.options import CREDENTIALS, setting_flags
from nexlet_functions.cli.own_log import Speaker, set_up_logging
from nexlet_functions.cli.running import loading, loop_factory

if TYPE_CHECKING:
    import structlog
    from opentelemetry.trace import Tracer

    from nexlet_functions.nexlet import Nexlet
    from nexlet_functions.settings import Settings, SettingsHolder

__all__ = ["up"]

ONE_CTRL_C = 1.0
"""Seconds in which several SIGINT are one: a Ctrl-C at a node's terminal reaches us as well, and the node sends one."""


@setting_flags(
    NATS=CREDENTIALS,
    Nex=("nexus", "register_type", "name", "max_workloads"),
    What_is_kept=(
        "settings_file",
        "state_dir",
        "no_state",
        "take_over",
        "xkey_file",
        "xkey_peers",
        "secrets_dir",
        "secrets_bucket",
    ),
    Functions=(
        "source_folders",
        "default_profile",
        "permit_missing_layers",
        "cgroup",
        "events",
        "grace",
    ),
    What_it_shows=("metrics", "metrics_interval", "tracing", "log_level", "log_levels", "log_format"),
    Seldom=(
        "connect_timeout",
        "ping_interval",
        "artifact_timeout",
        "max_pending",
        "max_pending_bytes",
        "max_idle_workers",
        "reserve_workers",
        "max_outgoing",
        "max_own_connections",
        "max_requests",
        "max_starting",
        "max_hops",
        "max_calls_at_once",
        "max_calls_bytes",
        "max_call_size",
        "schedules_bucket",
        "rotation_interval",
    ),
)
def up(*, flags: Mapping[str, object]) -> None:
    """Run the nexlet: register with a node, take functions, serve until SIGTERM.

    Beside a node that takes remote agents, or started by a node, whose environment then has everything it needs. Times
    and bounds that are seldom changed are options, too: see docs/cli.md, or NEXFN_... in the environment.
    """
    _close_to_others()
    from nexlet_functions.settings import Settings, SettingsHolder

    holder = SettingsHolder(Settings.read(flags), lambda: Settings.read(flags))
    speaker = Speaker()
    set_up_logging(
        level=holder.current.log_level,
        levels=holder.current.log_levels,
        form=holder.current.log_format,
        speaker=speaker,
    )
    _raise_descriptors()
    with _traces(holder.current) as tracer, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_up(holder, tracer, speaker))


@contextmanager
def _traces(settings: Settings) -> Iterator[Tracer | None]:
    """What makes spans, where the settings ask for them. They are sent when all is over."""
    if not settings.tracing:
        yield None
        return
    from nexlet_functions.observing.extras import ExtraMissing

    try:
        from nexlet_functions.observing import tracing
    except ImportError:
        raise ExtraMissing("tracing", "opentelemetry-api", "otel") from None
    provider = tracing.provider_from(os.environ)
    try:
        yield tracing.tracer_of(provider)
    finally:
        tracing.shut_down(provider)


async def _up(holder: SettingsHolder, tracer: Tracer | None, speaker: Speaker) -> None:
    from nexlet_functions.sandboxing import prove_soon
    from nexlet_sandboxes.zygote import Zygote

    loop = asyncio.get_running_loop()
    parent = os.getppid()
    manager = ServiceManager.of(os.environ, pid=os.getpid())
    # A signal that comes while it starts must not be lost, nor leave half of it behind.
    signals = _Signals(loop, manager)
    loop.add_signal_handler(signal.SIGHUP, _reload, holder, manager)
    # Executed at once, or before: while it loads what workers need, on another core, we load what the nexlet needs; and
    # while we do that in a thread, it shows what this machine's sandbox holds.
    zygote = asyncio.ensure_future(
        Zygote.start(modules=holder.current.modules, cgroup=holder.current.cgroup, launched=ahead.take())
    )
    proof = asyncio.ensure_future(prove_soon(zygote, holder.current))
    with loading():
        await asyncio.to_thread(importlib.import_module, "nexlet_functions.nexlet")
        from nexlet_functions.collecting import Collecting
        from nexlet_functions.nexlet import Nexlet

    async with await Nexlet.start(holder, environment=os.environ, zygote=zygote, proof=proof, tracer=tracer) as nexlet:
        speaker.ids = lambda: {"agent_id": nexlet.runner.agent_id, "node_id": nexlet.runner.node_id}
        manager.status("waits for a server and a node")
        manager.ready()
        signals.stop_with(nexlet.stop_soon)
        registered = asyncio.create_task(_tell_registered(nexlet, manager))
        collecting = asyncio.create_task(Collecting(lambda: nexlet.agent).run())
        if nexlet.started_by_node:
            with _until_ended(parent, signals.stop):
                await nexlet.wait()
        else:
            await nexlet.wait()
        registered.cancel()
        collecting.cancel()


async def _tell_registered(nexlet: Nexlet, manager: ServiceManager) -> None:
    await nexlet.runner.wait_registered()
    manager.status(f"registered as {nexlet.runner.agent_id} with node {nexlet.runner.node_id}")


class _Signals:
    """SIGTERM and SIGINT ask it to end in order; a person's second Ctrl-C ends it where it stands."""

    def __init__(self, loop: asyncio.AbstractEventLoop, manager: ServiceManager) -> None:
        self._loop = loop
        self._manager = manager
        self._asked_at: float | None = None
        self._stop: Callable[[], None] | None = None
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def stop(self) -> None:
        """Begin to end, or as soon as there is something to end."""
        if self._asked_at is None:
            self._asked_at = self._loop.time()
            self._manager.stopping()
            if self._stop is not None:
                self._stop()

    def stop_with(self, stop: Callable[[], None]) -> None:
        """From now on `stop` is what ends it; at once, where that was asked for before."""
        self._stop = stop
        if self._asked_at is not None:
            stop()

    def _interrupt(self) -> None:
        if self._asked_at is None or self._loop.time() < self._asked_at + ONE_CTRL_C:
            self.stop()
            return
        _logger().warning("interrupted again: ends at once, and what still ran is lost")
        sys.stderr.flush()
        # The zygote and the workers go with us: the kernel sees to it.
        os._exit(Exit.INTERRUPTED)


@contextmanager
def _until_ended(parent: int, stop: Callable[[], None]) -> Iterator[None]:
    """Stop when the node that started us ends without ending us (it was killed, or crashed).

    The next one starts an agent of its own, under another id. We would serve beside it for ever, and nobody could tell
    us to stop.
    """

    def gone() -> None:
        _logger().warning("the node that started this nexlet has ended, and so does the nexlet", pid=parent)
        stop()

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


def _close_to_others() -> None:
    """No core dump, no debugger but root's, and nobody of our user reads our memory or what environment we were given.

    Credentials are in both. Where the nexlet is no root, workers are of its user, and not every profile closes the
    files of /proc to them.
    """
    if sys.platform == "linux":
        from nexlet_sandboxes.kernel import process, steps

        steps.run(process.dumpable(False))


def _raise_descriptors() -> None:
    """As many descriptors as we may have: the usual 1024, kept low for programs that use select(), is 300 workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reload(holder: SettingsHolder, manager: ServiceManager) -> None:
    with manager.reloading():
        _read_again(holder)


def _read_again(holder: SettingsHolder) -> None:
    from nexlet_functions.errors import SettingsRefused

    log = _logger()
    try:
        changed, restart = holder.reload()
    except SettingsRefused as refused:
        log.error("the settings stay as they are: what was read is refused", problems=str(refused))
        return
    log.info("settings read again", changed=list(changed))
    if restart:
        log.warning("some settings changed that take a restart", settings=list(restart))


def _logger() -> structlog.stdlib.BoundLogger:
    import structlog

    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("nexlet_functions")
    return logger
