"""Applies a profile's layers to the process that calls it, in the profile's order.

Called in a fresh fork, before it has read a byte of anybody's source. A layer that fails ends the process: a worker
with fewer walls than its profile says is never ready.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from nexlet_sandboxes.kernel import process, rlimits
from nexlet_sandboxes.profiles import Profile

__all__ = ["LAYERS", "Around", "apply"]


class Around:
    """What the layers must know of the process they close in.

    Attributes:
        parent: pid of the zygote.
        keep: descriptors that stay open.
    """

    __slots__ = ("keep", "parent")

    def __init__(self, *, parent: int, keep: tuple[int, ...]) -> None:
        self.parent = parent
        self.keep = keep


def _session(around: Around) -> None:
    os.setsid()


LAYERS: Final[dict[str, Callable[[Around], None]]] = {
    "environment": lambda around: os.environ.clear(),
    "descriptors": lambda around: process.keep_only(*around.keep),
    "session": _session,
    "parent-death": lambda around: process.die_with_parent(around.parent),
    "not-dumpable": lambda around: process.not_dumpable(),
    "rlimits": lambda around: rlimits.limit_resources(),
    "no-new-privs": lambda around: process.no_new_privileges(),
}
"""Every layer by the name that profiles, logs and metadata use."""


def apply(profile: Profile, around: Around) -> None:
    """Apply every layer of `profile`.

    Raises:
        OSError, ValueError: a layer cannot be had here; the process must end.
    """
    for layer in profile.layers:
        LAYERS[layer](around)
