"""A folder of cgroup v2 for a test: a real one where this machine lets us make one."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from nexlet_sandboxes.kernel.cgroups import clear

__all__ = ["Unavailable", "delegated_folder"]


class Unavailable(Exception):
    """There is no cgroup v2 here, or none that we may make folders in. The text says which."""


@contextlib.contextmanager
def delegated_folder() -> Iterator[Path]:
    """An empty folder of cgroup v2; gone afterwards, with everything in it.

    Raises:
        Unavailable: there is none to be had.
    """
    folder = _parent() / f"nexlet-test-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        raise Unavailable(f"no folder can be made in {folder.parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        assert clear(folder), f"{folder} cannot be removed"


def _parent() -> Path:
    """The root of where cgroup v2 is mounted: only the root of all may have both processes and groups."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            mounted = Path(fields.split()[4])
            if not (mounted / "cgroup.type").exists():
                return mounted
    raise Unavailable("the root of cgroup v2 is not mounted here")
