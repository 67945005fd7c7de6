"""What takes longest, begun before the command line is read: the zygote of the commands that run functions here.

Reading a command line takes a tenth of a second, most of it for what reads it; a zygote takes as long to get ready, on
another core. So the first words are looked at, and a zygote is launched where they ask for one. This is a guess: where
it turns out that none is needed, or another one, it is ended. Nothing depends on its being right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexlet_sandboxes.launching import Launched

__all__ = ["begin", "take"]

_launched: Launched | None = None


def begin(arguments: Sequence[str]) -> None:
    """Launch a zygote where these arguments look as if one is needed."""
    global _launched
    serves = _looks_like_serving(arguments)
    if not serves and not _looks_like_loading(arguments):
        return
    from nexlet_sandboxes.launching import launch_early

    _launched = launch_early(short_lived=not serves)


def _looks_like_loading(arguments: Sequence[str]) -> bool:
    command, said = arguments[:1], set(arguments[1:])
    if said & {"--help", "-h", "--no-load", "--settings-file"}:
        return False
    return command == ["check"] or (command == ["invoke"] and bool(said & {"--local", "-l"}))


def _looks_like_serving(arguments: Sequence[str]) -> bool:
    """The nexlet itself. A settings file may permit modules, which its zygote is to have; with a folder for control
    groups the nexlet may have to move before it has any child.
    """
    if list(arguments[:1]) != ["up"] or {"--help", "-h"} & set(arguments):
        return False
    return not any(
        f"NEXFN_{name}" in os.environ or any(said.startswith(option) for said in arguments)
        for name, option in (("SETTINGS_FILE", "--settings-file"), ("CGROUP", "--cgroup"))
    )


def take() -> Launched | None:
    """The zygote that was launched, which is the caller's from now on; None where none was."""
    global _launched
    launched, _launched = _launched, None
    return launched
