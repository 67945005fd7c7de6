"""What takes longest, begun before the command line is read: the zygote of the commands that load functions here.

Reading a command line takes a tenth of a second, most of it for what reads it; a zygote takes as long to get ready, on
another core. So the first words are looked at, and a zygote is launched where they ask for one. This is a guess: where
it turns out that none is needed, or another one, it is ended. Nothing depends on its being right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexlet_sandboxes.launching import Launched

__all__ = ["begin", "take"]

_launched: Launched | None = None


def begin(arguments: Sequence[str]) -> None:
    """Launch a zygote where these arguments look as if one is needed."""
    global _launched
    if not _looks_like_loading(arguments):
        return
    from nexlet_sandboxes.launching import launch_early

    _launched = launch_early()


def _looks_like_loading(arguments: Sequence[str]) -> bool:
    command, said = arguments[:1], set(arguments[1:])
    if said & {"--help", "-h", "--no-load", "--settings-file"}:
        return False
    return command == ["check"] or (command == ["invoke"] and bool(said & {"--local", "-l"}))


def take() -> Launched | None:
    """The zygote that was launched, which is the caller's from now on; None where none was."""
    global _launched
    launched, _launched = _launched, None
    return launched
