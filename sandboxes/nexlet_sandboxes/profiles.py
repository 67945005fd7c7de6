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
    """

    name: str
    layers: tuple[str, ...]
    summary: str


_PROCESS: Final = ("environment", "descriptors", "session", "identity", "parent-death", "not-dumpable", "rlimits")

PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="strict",
            layers=(*_PROCESS, "no-new-privs", "landlock", "seccomp"),
            summary="no file, no network, no other process, and only the system calls that computing takes",
        ),
        Profile(
            name="process",
            layers=(*_PROCESS, "no-new-privs"),
            summary="a process of its own with an empty environment, no descriptors, and resource limits",
        ),
    )
}
"""Every profile this version has; a start request that asks for another one is refused."""

DEFAULT: Final = "strict"
