"""Makes the locks of workers ready, by their profile's layers and in the profile's order, and applies them.

They are made ready in the zygote (`plan`), once for each kind of worker, and applied in a fresh fork of it (`apply`),
before that has read a byte of anybody's source. A layer that fails ends the process: a worker with fewer walls than its
profile says is never ready. Each layer is still allowed by those before it: identity before the parent-death signal,
which a change of uid clears, and before no_new_privs; the filter of system calls last, since it allows none of the
calls that the others need.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from nexlet_sandboxes.kernel import capabilities, cgroups, identity, landlock, namespaces, process, rlimits, seccomp
from nexlet_sandboxes.kernel.steps import Step, Steps, failing, refused

__all__ = ["LAYERS", "Around", "Layer", "LayerFailed", "Plan", "apply", "plan"]


class LayerFailed(OSError):
    """A layer cannot be had here; the message begins with its name."""


class Around:
    """What the layers must know of the processes they close in. One serves for all workers of a zygote.

    Attributes:
        parent: pid of the zygote.
        null: a descriptor of /dev/null.
        sock: descriptor of a worker's socket.
        leash: to the zygote, for a worker that gets namespaces of its own.
        ids: arguments that make a worker somebody of its own; filled in after the fork.
        space: arguments that limit its address space; likewise.
        group: arguments that have it join its control group; likewise.
        ruleset: of Landlock, shared by all, as a descriptor; -1 where `no_ruleset` says why there is none.
    """

    def __init__(self, parent: int, null: int, sock: int, leash: socket.socket) -> None:
        """To be made when the zygote is as its workers will begin."""
        self.parent = parent
        self.null = null
        self.sock = sock
        self.leash = leash
        self.ids: list[object] = []
        self.space: list[object] = []
        self.group: list[object] = []
        self.ruleset = -1
        self.no_ruleset: OSError | None = None
        try:
            self.ruleset = landlock.make_ruleset()
        except OSError as error:
            self.no_ruleset = error
        self._base = rlimits.address_space()
        _, self._most = resource.getrlimit(resource.RLIMIT_AS)

    def fill_in(self, number: int, memory: int, group: int) -> None:
        """In the fork: it is worker `number`, and may grow by `memory` bytes, as far as the zygote itself may.

        Args:
            group: descriptor of the control group that it is to join; -1 where it was born in it, or there is none.
        """
        self.group[:] = (group,)
        self.ids[:] = [identity.of_worker(number)] * 3
        total = self._base + memory
        if self._most != resource.RLIM_INFINITY and self._most < total:
            total = self._most
        self.space[:] = (resource.RLIMIT_AS, (total, total))


@dataclass(frozen=True, slots=True)
class Plan:
    """The locks of one kind of worker.

    Attributes:
        steps: to be made one after another, each as (layer, call, arguments, expected).
        grouped: whether it gets a control group of its own.
        leashed: whether it gets namespaces of its own, for which it takes a second fork.
        last: the layer that is to be tried; "" for a worker that works.
    """

    steps: tuple[tuple[str, Callable[..., object], Sequence[object], object], ...]
    grouped: bool
    leashed: bool
    last: str


Layer = Callable[[Around, Collection[str]], Steps]
"""Gives the steps of a layer for a worker that has the layers named. Raises `OSError` where it cannot be had."""


def _cgroup(around: Around, layers: Collection[str]) -> Steps:
    return (Step(cgroups.join, around.group),)


def _environment(around: Around, layers: Collection[str]) -> Steps:
    return process.clear_environment()


def _descriptors(around: Around, layers: Collection[str]) -> Steps:
    kept = [around.sock]
    if "namespaces" in layers:
        kept.append(around.leash.fileno())
    if "landlock" in layers and around.ruleset >= 0:
        kept.append(around.ruleset)
    return process.keep_only(around.null, *kept)


def _session(around: Around, layers: Collection[str]) -> Steps:
    return (Step(os.setsid),)


def _identity(around: Around, layers: Collection[str]) -> Steps:
    return identity.become(around.ids)


def _namespaces(around: Around, layers: Collection[str]) -> Steps:
    return (Step(namespaces.enter, (around.leash,)),)


def _empty_root(around: Around, layers: Collection[str]) -> Steps:
    if "namespaces" not in layers:
        raise OSError("without namespaces of its own it would take away everybody's files")
    return (Step(namespaces.empty_root),)


def _capabilities(around: Around, layers: Collection[str]) -> Steps:
    return capabilities.drop_all()


def _parent_death(around: Around, layers: Collection[str]) -> Steps:
    if "namespaces" in layers:
        return process.die_with_outer_parent(around.parent)
    return process.die_with_parent(around.parent)


def _not_dumpable(around: Around, layers: Collection[str]) -> Steps:
    return process.dumpable(False)


def _rlimits(around: Around, layers: Collection[str]) -> Steps:
    return (rlimits.limit_address_space(around.space), *rlimits.limit_resources())


def _no_new_privs(around: Around, layers: Collection[str]) -> Steps:
    return process.no_new_privileges()


def _landlock(around: Around, layers: Collection[str]) -> Steps:
    if around.no_ruleset is not None:
        raise around.no_ruleset
    return landlock.restrict(around.ruleset)


def _seccomp(around: Around, layers: Collection[str]) -> Steps:
    return seccomp.install()


LAYERS: Final[dict[str, Layer]] = {
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


def plan(layers: Sequence[str], around: Around, *, without: Collection[str] = (), last: str = "") -> Plan:
    """Make layers ready. One that cannot be had here fails in the worker, where it is applied.

    Args:
        layers: of a profile, in its order.
        without: layers to leave out: the machine lacks them, and the operator permits that by name.
        last: the layer to end with, for trying that one alone; "" means all of them.
    """
    wanted = layers[: layers.index(last) + 1] if last else layers
    layers = tuple(layer for layer in wanted if layer not in without)
    planned: list[tuple[str, Callable[..., object], Sequence[object], object]] = []
    for layer in layers:
        try:
            steps = LAYERS[layer](around, layers)
        except OSError as error:
            steps = (failing(error),)
        planned += [(layer, step.call, step.arguments, step.expected) for step in steps]
    return Plan(tuple(planned), "cgroup" in layers, "namespaces" in layers, last)


def apply(planned: Plan) -> None:
    """Lock the calling process. See `steps.run`, which this repeats: one function less to enter.

    Raises:
        LayerFailed: a layer cannot be had here; the process must end.
    """
    for layer, call, arguments, expected in planned.steps:
        try:
            result = call(*arguments)
            if result == -1 or (expected is not None and result != expected):
                raise refused(call, result)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LayerFailed(f"{layer}: {reason}") from error
