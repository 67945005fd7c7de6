"""What TAB offers where an argument is one of a few things: function folders, sample events, modules.

Commands and options are offered by the command line itself. Here are values, found by looking at names of files:
nothing of a function is read, and where nothing is found a shell falls back to files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import typer

__all__ = ["function_folders", "module_names", "sample_event_names"]

_NEXFILE = "Nexfile"  # as in `nexlet_functions.nexfile`, which takes longer to import than a person waits for TAB

_MOST = 2000
"""Folders that are looked into; beyond that somebody is not in a project."""


def function_folders(incomplete: str) -> list[str]:
    """Function folders, and folders of function folders, that begin as `incomplete` does."""
    typed, _, beginning = incomplete.rpartition("/")
    parent = Path(f"{typed}/" if incomplete.startswith("/") else typed or ".")
    lead = f"{typed}/" if "/" in incomplete else ""
    found = ["."] if not incomplete and Path(_NEXFILE).is_file() else []
    for number, name in enumerate(_folders(parent)):
        if number == _MOST:
            break
        if not name.startswith(beginning):
            continue
        if (parent / name / _NEXFILE).is_file():
            found.append(f"{lead}{name}")
            continue
        below = [each for each in _folders(parent / name) if (parent / name / each / _NEXFILE).is_file()]
        if below:
            found += [f"{lead}{name}", *(f"{lead}{name}/{each}" for each in below)]
    return found


def _folders(parent: Path) -> Iterator[str]:
    """Names of the folders in a folder, in order; hidden ones are not meant."""
    try:
        with os.scandir(parent) as entries:
            yield from sorted(each.name for each in entries if not each.name.startswith(".") and each.is_dir())
    except OSError:
        return


def sample_event_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The sample events of the folder that `--local` names."""
    folder = ctx.params.get("local")
    if folder is None:
        return []
    names = sorted(each.stem for each in (Path(folder) / "events").glob("*.json"))
    return [name for name in names if name.startswith(incomplete)]


def module_names(incomplete: str) -> list[str]:
    """Modules that a function may import."""
    from nexlet_sandboxes.language.modules import ALLOWED

    return [name for name in sorted(ALLOWED) if name.startswith(incomplete)]
