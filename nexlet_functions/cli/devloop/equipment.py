"""Server, stand-in node and nexlet, in one process and on this machine alone. Nothing of it is protected."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nexlet_functions.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from nexlet_functions.recording import Recorder
    from nexlet_functions.sandboxing import Sandboxing

__all__ = ["DEFAULT_PORT", "start_nexlet", "start_server"]

DEFAULT_PORT: Final = 4222
"""Where `nexfn invoke`, `nats` and `nex` look by themselves."""

GRACE: Final = 2.0
"""Seconds that running invocations get when the command ends: someone is waiting for the prompt."""

HEARTBEAT_TIMEOUT: Final = 10.0
"""Seconds until the first heartbeat, on a machine that is very busy; it is sent with the registration."""


async def start_server(stack: AsyncExitStack, port: int | None) -> str:
    """A NATS server that `stack` ends; its URL.

    Args:
        port: 0 takes a free one; None: 4222, or a free one where that is taken.

    Raises:
        CommandFailed: there is no server to start, or it does not start.
    """
    from nexlet_functions.devnode.server import EmbeddedServer, ServerNotFound

    server = EmbeddedServer(port=_choose(port))
    stack.push_async_callback(server.stop)  # first: a signal may come while it starts
    try:
        try:
            await server.start()
        except RuntimeError:
            if port is not None or _choose(None) == DEFAULT_PORT:
                raise
            # Somebody took it between our look and the server's start, such as another `dev` that began with us.
            server = EmbeddedServer()
            stack.push_async_callback(server.stop)
            await server.start()
    except ServerNotFound as error:
        raise CommandFailed(Exit.FAILED, "no-nats-server", str(error)) from None
    except RuntimeError as error:  # which has the server's last words
        raise CommandFailed(Exit.FAILED, "nats-server-failed", str(error), "try another --port") from None
    return server.url


def _choose(port: int | None) -> int:
    if port is not None:
        return port or -1
    with socket.socket() as probe:
        # As the server itself will: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return -1
    return DEFAULT_PORT


async def start_nexlet(
    stack: AsyncExitStack, url: str, *, secrets: Path | None, recorder: Recorder | None
) -> Sandboxing:
    """A node and a nexlet that registered with it and can be deployed to; `stack` ends them.

    Args:
        url: of the server.
        secrets: folder with `NAMESPACE/KEY`.
        recorder: takes every invocation; None for nobody.

    Returns:
        What the sandbox holds on this machine.

    Raises:
        CommandFailed: the nexlet is not heard of.
    """
    from nexlet_functions.devnode.buckets import make_buckets
    from nexlet_functions.devnode.node import DevNode
    from nexlet_functions.nexlet import Nexlet
    from nexlet_functions.settings import Settings, SettingsHolder
    from nexlet_sandboxes.probe import ADVICE
    from nexlet_sandboxes.profiles import PROFILES

    node = await stack.enter_async_context(await DevNode.start(url))
    settings = Settings.model_validate(
        {
            "servers": (url,),
            "no_state": True,
            "secrets_dir": secrets,
            "grace": GRACE,
            "permit_missing_layers": tuple(ADVICE),  # on whatever machine someone writes their functions
            # What an operator may allow by name somebody here may try; what takes a flag of its own takes it.
            "defaults": {"profiles": tuple(name for name in PROFILES if name != "unsafe-dev")},
        }
    )
    await make_buckets(url, settings.schedules_bucket)
    dispatchers = None
    if recorder is not None:
        from nexlet_functions.recording.dispatching import recording_to

        dispatchers = recording_to(recorder)
    nexlet = await stack.enter_async_context(await Nexlet.start(SettingsHolder(settings), dispatchers=dispatchers))
    await nexlet.wait_registered()
    # A node takes a nexlet for healthy from its first heartbeat on, and tells nobody when that has come.
    try:
        async with asyncio.timeout(HEARTBEAT_TIMEOUT):
            while not node.registrations.healthy(settings.register_type):  # noqa: ASYNC110  # as just said
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise CommandFailed(
            Exit.FAILED,
            "nexlet-silent",
            f"the nexlet sent no heartbeat within {HEARTBEAT_TIMEOUT:g} s",
            "see what it says with --log-level info",
        ) from None
    return nexlet.sandboxing
