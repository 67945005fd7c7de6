"""Running something until it ends or a signal ends it, with the loop that is fastest here."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["loading", "loop_factory", "run_until_signalled"]

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def loading() -> Iterator[None]:
    """Around imports: what they make lives as long as the process does, so no collection need ever look through it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where that extra is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_until_signalled(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, bool]], *, on_signal: Callable[[], None]
) -> bool | None:
    """Run `work` to its end, or cancel it at the first SIGINT, SIGTERM or SIGHUP and wait for its cleaning up.

    Further signals change nothing: cleaning up that is interrupted leaves things behind.

    Args:
        work: is given an event that is set at the first signal. It waits for that where it has nothing else to do: a
            cancellation alone may be lost in a library that is just busy with one of its own.
        on_signal: called at the first signal.

    Returns:
        What `work` returned; None where a signal ended it.
    """

    async def main() -> bool | None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        task = asyncio.ensure_future(work(asked))

        def stop() -> None:
            if not asked.is_set():
                asked.set()
                on_signal()
                task.cancel()

        for number in STOPPING:
            loop.add_signal_handler(number, stop)
        try:
            fine = await task
        except asyncio.CancelledError:
            if not asked.is_set():
                raise
            return None
        return None if asked.is_set() else fine

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())
