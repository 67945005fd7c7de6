"""Modules that an operator permits beside the allowed ones: how processes are told of them, and what they lead to.

`Permitted` is a module's name to the names it may give. The zygote imports these modules before any worker is forked,
since workers read no file. `audit` has a throw-away process look at where their names lead, so that nothing of them is
in the memory of the nexlet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import orjson

__all__ = ["Permitted", "audit", "from_arguments", "to_arguments"]

Permitted: TypeAlias = Mapping[str, Sequence[str]]

_AUDIT_TIMEOUT = 30.0
"""Seconds for importing these modules and following their names; large libraries take a few."""


def to_arguments(modules: Permitted) -> list[str]:
    """`modules` as arguments of a process: "calendar:isleap,monthrange" for each."""
    return [f"{name}:{','.join(names)}" for name, names in modules.items()]


def from_arguments(arguments: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What `to_arguments` made arguments of."""
    parted = (argument.partition(":") for argument in arguments)
    return {name: tuple(names.split(",")) for name, _, names in parted}


async def audit(modules: Permitted) -> dict[str, list[str]]:
    """What an operator ought to know of modules before functions use them.

    Returns:
        A module's name to findings, a line each: see `nexlet_sandboxes.language.modules.audit`. A module of which
        nothing was found is not in it; that is no proof that there is nothing.
    """
    if not modules:
        return {}
    # The zygote imports this module for its arguments: asyncio would nearly double what is forked for each worker.
    import asyncio
    import subprocess

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "nexlet_sandboxes.audit_process"),
        *to_arguments(modules),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"TZ": "UTC"},
    )
    try:
        async with asyncio.timeout(_AUDIT_TIMEOUT):
            said, _ = await process.communicate()
    except TimeoutError:
        return {name: [f"it was not judged within {_AUDIT_TIMEOUT:.0f} seconds"] for name in modules}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return {name: [f"it was not judged: that ended with exit code {process.returncode}"] for name in modules}
    findings: dict[str, list[str]] = orjson.loads(said)
    return findings
