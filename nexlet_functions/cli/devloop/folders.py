"""The function folders below what was named on the command line, as they are right now.

Folders come and go while somebody works: one is copied, renamed, checked out anew. So everything here looks at the disk
each time and takes what it finds; nothing of it raises because something is not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from nexlet_functions.nexfile import has_nexfile

__all__ = ["Stamp", "folders_in", "newest", "places_of", "stamp_of"]

Stamp = tuple[tuple[str, int, int, int], ...]
"""Of each file: name, time of the last change in nanoseconds, size, inode. Another file is another stamp, also where an
editor wrote it beside its place and moved it there."""


def folders_in(roots: Iterable[Path]) -> list[Path]:
    """Each root that is a function's folder, or else the function folders right below it, in order, none twice."""
    found: dict[Path, None] = {}
    for root in roots:
        if has_nexfile(root):
            found[root] = None
        else:
            found |= dict.fromkeys(each for each in _folders_below(root) if has_nexfile(each))
    return list(found)


def places_of(roots: Iterable[Path]) -> frozenset[Path]:
    """The folders in which something that matters may be saved, not looking below them.

    Of a root that is gone, the folder it was in: there it will be noticed when it comes back.
    """
    places: set[Path] = set()
    for root in roots:
        if not root.is_dir():
            places |= {parent for parent in root.absolute().parents[:1] if parent.is_dir()}
            continue
        places.add(root)
        if not has_nexfile(root):
            places.update(_folders_below(root))
    return frozenset(places)


def stamp_of(folder: Path | None, further: Sequence[Path] = ()) -> Stamp:
    """What tells whether something of a function was saved: its folder's files, without those of its events.

    Args:
        folder: None for the further files alone.
        further: files elsewhere that it is made of: its secrets.
    """
    files = _files(folder) if folder is not None else []
    stamps = []
    for name, path in [*sorted(files), *((str(file), str(file)) for file in further)]:
        try:
            found = os.stat(path)  # noqa: PTH116  # a tenth of the time of a Path's
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            stamps.append((name, found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamps)


def newest(stamp: Stamp) -> float:
    """Seconds since the epoch, of the file that was changed last; 0 where there is none."""
    return max((changed for _, changed, _, _ in stamp), default=0) / 1e9


def _files(folder: Path) -> list[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            return [
                (entry.name, entry.path)
                for entry in entries
                if not entry.name.startswith(".") and not entry.name.endswith("~")
            ]
    except OSError:
        return []  # gone meanwhile: the next look sees that


def _folders_below(root: Path) -> list[Path]:
    """Those that we may look into: nobody listens to what is saved in the others."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                root / entry.name
                for entry in entries
                if not entry.name.startswith((".", "__"))
                and os.access(entry.path, os.R_OK | os.X_OK)
                and entry.is_dir()
            )
    except OSError:
        return []
