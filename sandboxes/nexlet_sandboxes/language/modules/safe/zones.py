"""`zoneinfo` over time zones read beforehand: a worker reads no files.

All files of the system's time zone database together are less than half a megabyte; as `ZoneInfo` objects they would be
many times that. So the bytes are kept, shared by every worker, and a zone is made from them when it is asked for.
"""

from __future__ import annotations

import io
import zoneinfo
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nexlet_sandboxes.language.modules.own import plain_text

__all__ = ["ZoneInfo", "available_timezones", "load"]

_files: dict[str, bytes] = {}
_made: dict[str, ZoneInfo] = {}
_loaded = False


def load() -> int:
    """Reads the time zone database, once; how many zones it has.

    The system's first, and that of the `tzdata` package where the system has none.
    """
    global _loaded
    if not _loaded:
        _loaded = True
        shared: dict[bytes, bytes] = {}  # many zones are links to others
        for root in _roots():
            for key, data in _read(root):
                _files.setdefault(key, shared.setdefault(data, data))
            if _files:
                break
        # Where there is no database at all, this one needs none.
        _files.setdefault("UTC", b"TZif" + bytes(16) + _header(1, 4) + bytes(6) + b"UTC\0")
    return len(_files)


class ZoneInfo(zoneinfo.ZoneInfo):
    """A time zone of the IANA database, by its key: `ZoneInfo("Europe/Vienna")`. The same key gives the same object."""

    def __new__(cls, key: str) -> ZoneInfo:
        """Raises `ZoneInfoNotFoundError` where there is no such zone."""
        text = plain_text(key, "a time zone's key")
        found = _made.get(text) if cls is ZoneInfo else None
        if found is None:
            found = cls.no_cache(text)
            if cls is ZoneInfo:
                _made[text] = found
        return found

    @classmethod
    def no_cache(cls, key: str) -> ZoneInfo:
        """A new object for a time zone. Raises `ZoneInfoNotFoundError` where there is no such zone."""
        text = plain_text(key, "a time zone's key")
        load()
        data = _files.get(text)
        if data is None:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {text}")
        return super().from_file(io.BytesIO(data), key=text)

    @classmethod
    def clear_cache(cls, *, only_keys: Iterable[str] | None = None) -> None:
        """Lets go of the objects made so far."""
        for key in list(_made) if only_keys is None else only_keys:
            _made.pop(key, None)

    @classmethod
    def from_file(cls, fobj: Any, /, key: str | None = None) -> Any:
        """Not offered: a zone comes from the database."""
        raise NotImplementedError("ZoneInfo.from_file() is not available: write ZoneInfo(key)")

    def __reduce__(self) -> tuple[Any, ...]:  # a copy of a datetime copies its zone as well
        return (type(self), (self.key,))


ZoneInfo.__module__ = "zoneinfo"


def available_timezones() -> set[str]:
    """The keys of all zones there are."""
    load()
    return set(_files)


def _roots() -> list[Path]:
    roots = [Path(path) for path in zoneinfo.TZPATH]
    package = find_spec("tzdata")
    if package is not None and package.submodule_search_locations:
        roots.append(Path(package.submodule_search_locations[0]) / "zoneinfo")
    return roots


def _read(root: Path) -> list[tuple[str, bytes]]:
    if not root.is_dir():
        return []
    found = []
    for path in sorted(root.rglob("*")):
        key = path.relative_to(root).as_posix()
        # posix/ and right/ hold the whole database again, the latter with leap seconds; the others name no zone.
        if key.startswith(("posix/", "right/")) or key in {"posixrules", "localtime", "Factory"} or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(4) == b"TZif":
                found.append((key, b"TZif" + file.read()))
    return found


def _header(types: int, characters: int) -> bytes:
    """The counts of a version 1 TZif file with nothing in it but local time types (RFC 8536, section 3.1)."""
    return b"".join(count.to_bytes(4, "big") for count in (0, 0, 0, 0, types, characters))
