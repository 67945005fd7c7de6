"""Profiles: which layers stand around a worker, as data.

A layer is one thing the operating system or the language is asked to deny. A profile is an ordered list of them; the
order is the order in which they are applied, and it matters (each step is still allowed by the ones before it). What is
applied is looked up here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT", "PROFILES", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile.

    Attributes:
        name: as a start request's `sandbox` says it.
        layers: what is applied to the worker before it reads any of the author's source, in order.
        summary: one line for `nexlet-functions doctor` and the workload's metadata.
        single_use: a worker is given one call and ends with it; the next call has a fresh one.
    """

    name: str
    layers: tuple[str, ...]
    summary: str
    single_use: bool = False

    def around(self, *, cgroup: bool) -> tuple[str, ...]:
        """The layers, with the control group in front where an operator delegates a folder for these."""
        return ("cgroup", *self.layers) if cgroup else self.layers


_NOTHING_OURS: Final = ("environment", "descriptors")
_LIMITED: Final = ("session", "parent-death", "not-dumpable", "rlimits")
_KERNEL: Final = ("capabilities", "no-new-privs", "landlock", "seccomp")

PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="strict",
            layers=(*_NOTHING_OURS, "identity", *_LIMITED, *_KERNEL),
            summary="no file, no network, no other process, and only the system calls that computing takes",
        ),
        Profile(
            name="isolated",
            layers=(*_NOTHING_OURS, "identity", "namespaces", *_LIMITED, "empty-root", *_KERNEL),
            summary="strict, in namespaces of its own with an empty file system, so that there is nothing to reach for",
        ),
        Profile(
            name="oneshot",
            layers=(*_NOTHING_OURS, "identity", *_LIMITED, *_KERNEL),
            summary="strict, and a fresh process for each invocation: nothing is left for the next one, and no batches",
            single_use=True,
        ),
        Profile(
            name="process",
            layers=(*_NOTHING_OURS, "identity", *_LIMITED, "capabilities", "no-new-privs"),
            summary="a process of its own with an empty environment, no descriptors, and resource limits",
        ),
        Profile(
            name="unsafe-dev",
            layers=(*_NOTHING_OURS, "parent-death", "rlimits"),
            summary="no protection but the language layer: a process with an empty environment and resource limits",
        ),
    )
}
"""Every profile this version has; a start request that asks for another one is refused. `unsafe-dev` closes descriptors
and dies with its parent for order's sake, not to protect anyone: it may read and signal what its user may."""

DEFAULT: Final = "strict"
