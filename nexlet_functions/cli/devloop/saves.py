"""Tells that something may have been saved, by what the kernel tells of the folders in question.

Not what was saved: an editor writes beside a file's place and moves it there, a checkout takes a folder away and brings
it back, and a folder that is new may have its files before anybody listens to it. Whoever is told looks for himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

__all__ = ["saves"]

QUIET: Final = 15
"""Milliseconds without a further change after which a burst of saves is over."""

LONGEST: Final = 150
"""Milliseconds after which one that does not end is looked at all the same."""

LOOK: Final = 500
"""Milliseconds after which it is seen that a folder is another one under the same name: nothing tells that."""

_Identified = dict[Path, tuple[int, int]]


async def saves(
    places: Callable[[], frozenset[Path]], *, recursive: bool = False
) -> AsyncGenerator[frozenset[Path], None]:
    """Yields at once, and after each burst of changes in one of `places`, which may be others each time.

    What is yielded are the paths that are told of, for people; none where listening has just begun. To be closed
    (`contextlib.aclosing`) by whoever stops early.

    Args:
        recursive: below `places` as well, but for what tools keep there (`__pycache__`, `.git`, ...).

    Raises:
        ImportError: watchfiles is not installed.
        OSError: the kernel has no room for one more who listens.
    """
    import watchfiles  # noqa: F401  # it is missed here, and not when something is saved

    while True:
        watched = _identified(places())
        # Listening begins before this yields for the first time: whatever is not seen then is told.
        async with aclosing(_changes(watched, recursive=recursive)) as changes:
            async for changed in changes:
                if changed is not None:
                    yield changed
                if _identified(places()) != watched:
                    break


async def _changes(watched: _Identified, *, recursive: bool) -> AsyncGenerator[frozenset[Path] | None, None]:
    """Paths, at once none and then of each burst; None whenever nothing happened for a while."""
    import watchfiles

    if not watched:
        yield frozenset()
        while True:
            await asyncio.sleep(LOOK / 1000)
            yield None
    stop = asyncio.Event()
    noticed = watchfiles.awatch(
        *watched,
        recursive=recursive,
        watch_filter=watchfiles.DefaultFilter() if recursive else None,
        debounce=LONGEST,
        step=QUIET,
        rust_timeout=LOOK,
        yield_on_timeout=True,
        stop_event=stop,
    )
    coming = asyncio.ensure_future(anext(noticed, None))
    try:
        await asyncio.sleep(0)  # its first step begins to listen
        yield frozenset()
        while True:
            try:
                changed = await coming
            except FileNotFoundError:  # a folder went before it could be listened to
                return
            except RuntimeError as error:  # watchfiles' own for what the kernel refuses, such as one more listener
                raise OSError(str(error)) from error
            if changed is None:
                return
            coming = asyncio.ensure_future(anext(noticed, None))
            yield frozenset(Path(path) for _, path in changed) or None
    finally:
        stop.set()  # looked at every QUIET milliseconds by the thread that listens
        await asyncio.wait([coming])
        if not coming.cancelled():
            coming.exception()  # of one that nobody waits for any more
        await noticed.aclose()


def _identified(places: frozenset[Path]) -> _Identified:
    """With what tells a folder from another one that takes its name."""
    found: _Identified = {}
    for place in places:
        try:
            status = place.stat()
        except OSError:
            continue
        found[place] = (status.st_dev, status.st_ino)
    return found
