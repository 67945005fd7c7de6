"""Applies a profile's layers to the process that calls it, in the profile's order.

Called in a fresh fork, before it has read a byte of anybody's source. A layer that fails ends the process: a worker
with fewer walls than its profile says is never ready. Each layer is still allowed by those before it: identity before
the parent-death signal, which a change of uid clears, and before no_new_privs; the filter of system calls last, since
it allows none of the calls that the others need.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from nexlet_sandboxes.kernel import (
    capabilities,
    cgroups,
    identity,
    landlock,
    libc,
    namespaces,
    process,
    rlimits,
    seccomp,
)

__all__ = ["LAYERS", "Around", "LayerFailed", "apply", "prepare"]


class LayerFailed(OSError):
    """A layer cannot be had here; the message begins with its name."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the layers must know of the process they close in.

    Attributes:
        parent: pid of the zygote.
        keep: descriptors that stay open.
        number: of the worker, for an identity of its own.
        memory: bytes it may grow by.
        leash: to the zygote, for a process that gets namespaces of its own; None for any other.
        group: descriptor of the control group that it is to join; -1 where it was born in it, or there is none.
    """

    parent: int
    keep: tuple[int, ...]
    number: int
    memory: int
    leash: socket.socket | None = None
    group: int = -1


def _cgroup(around: Around) -> None:
    if around.group >= 0:
        cgroups.join(around.group)


def _environment(around: Around) -> None:
    # See `zygote`: without TZ libc goes and looks for the machine's own. It is as it should be where nobody meddled.
    if len(os.environ) != 1 or os.environ.get("TZ") != "UTC":
        os.environ.clear()
        os.environ["TZ"] = "UTC"


def _descriptors(around: Around) -> None:
    process.keep_only(*around.keep)


def _session(around: Around) -> None:
    os.setsid()


def _identity(around: Around) -> None:
    identity.become_nobody(around.number)


def _namespaces(around: Around) -> None:
    assert around.leash is not None
    namespaces.enter(around.leash)


def _empty_root(around: Around) -> None:
    if around.leash is None:
        raise OSError("without namespaces of its own it would take away everybody's files")
    namespaces.empty_root()


def _capabilities(around: Around) -> None:
    capabilities.drop_all()


def _parent_death(around: Around) -> None:
    process.die_with_parent(around.parent)


def _not_dumpable(around: Around) -> None:
    process.dumpable(False)


def _rlimits(around: Around) -> None:
    rlimits.limit_address_space(around.memory, base=rlimits.address_space())
    rlimits.limit_resources()


def _no_new_privs(around: Around) -> None:
    process.no_new_privileges()


def _landlock(around: Around) -> None:
    landlock.deny_everything()


def _seccomp(around: Around) -> None:
    seccomp.install()


LAYERS: Final[dict[str, Callable[[Around], None]]] = {
    "cgroup": _cgroup,
    "environment": _environment,
    "descriptors": _descriptors,
    "identity": _identity,
    "namespaces": _namespaces,
    "session": _session,
    "parent-death": _parent_death,
    "not-dumpable": _not_dumpable,
    "rlimits": _rlimits,
    "empty-root": _empty_root,
    "capabilities": _capabilities,
    "no-new-privs": _no_new_privs,
    "landlock": _landlock,
    "seccomp": _seccomp,
}
"""Every layer by the name that profiles, logs and metadata use, in the order in which they must be applied."""


def prepare() -> None:
    """Make ready in this process what all its children need, so that they share it. What cannot be had is left to them.

    Each page that a worker writes to is memory of its own, and time until it is ready.
    """
    libc.prepare("prctl", "syscall", "capset", "unshare", "mount", "umount2")
    for ready in (seccomp.prepared, rlimits.prepared, landlock.prepare):
        with contextlib.suppress(OSError):  # then the layer says so where it is applied
            ready()


def apply(layers: Iterable[str], around: Around, *, without: Collection[str] = (), last: str = "") -> None:
    """Apply layers.

    Args:
        layers: of a profile, in its order.
        without: layers to leave out: the machine lacks them, and the operator permits that by name.
        last: the layer to end with, for trying that one alone; "" means all of them.

    Raises:
        LayerFailed: a layer cannot be had here; the process must end.
    """
    for layer in layers:
        if layer in without:
            continue
        try:
            LAYERS[layer](around)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LayerFailed(f"{layer}: {reason}") from error
        if layer == last:
            break
