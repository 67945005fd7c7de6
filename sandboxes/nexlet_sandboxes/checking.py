"""Looking at a program's sources without running them, in a worker that is thrown away.

Compiling can loop or eat memory like running can, so it is never done in the process that asks.
"""

from __future__ import annotations

from nexlet_models.problems import Problem
from nexlet_sandboxes.calls import Call, Result
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.profiles import DEFAULT
from nexlet_sandboxes.program import Limits, Program
from nexlet_sandboxes.zygote import Zygote

__all__ = ["check"]


class _Nobody:
    """A sink for a pool that runs nothing."""

    def finished(self, call: Call, result: Result) -> None:
        raise AssertionError("nothing was submitted")

    def logged(self, call_id: int, stream: str, level: int, line: bytes) -> None:
        raise AssertionError("nothing was run")

    def measured(self, call_id: int, data: bytes) -> None:
        raise AssertionError("nothing was run")

    def flush(self) -> None:
        pass

    def changed(self) -> None:
        pass


async def check(
    zygote: Zygote, program: Program, *, limits: Limits | None = None, profile: str = DEFAULT
) -> tuple[Problem, ...]:
    """Everything that is wrong with the sources of `program`.

    Args:
        limits: `load_timeout` and `memory` bound the looking.

    Raises:
        SandboxError: no worker could be made, or it ended without a word.
    """
    return await Pool(zygote, program, limits or Limits(), _Nobody(), profile=profile).check()
