"""Running something until it ends or a signal ends it, with the loop that is fastest here."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["loop_factory", "run_until_signalled"]

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where that extra is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_until_signalled(work: Coroutine[Any, Any, bool], *, on_signal: Callable[[], None]) -> bool | None:
    """Run `work` to its end, or cancel it at the first SIGINT, SIGTERM or SIGHUP and wait for its cleaning up.

    Further signals change nothing: cleaning up that is interrupted leaves things behind.

    Args:
        on_signal: called at the first signal.

    Returns:
        What `work` returned; None where a signal ended it.
    """

    async def main() -> bool | None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        signalled = False

        def stop() -> None:
            nonlocal signalled
            if not signalled:
                signalled = True
                on_signal()
                task.cancel()

        for number in STOPPING:
            loop.add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            if not signalled:
                raise
            return None

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())
