"""How an invocation ended, and how a load failed: values, not exceptions.

`Outcome` is the word that events, metrics and replies use. Each has one code, read as HTTP's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from nexlet_models.problems import Problem, headline

__all__ = ["CODES", "LoadRefused", "ModulesRefused", "Outcome", "SandboxError"]


class Outcome(enum.StrEnum):
    """How an invocation ended. The text is what the event's field `outcome` says."""

    OK = "ok"
    ERROR = "error"
    REJECTED_BY_FUNCTION = "rejected_by_function"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"


CODES: dict[Outcome, int] = {
    Outcome.OK: 200,
    Outcome.ERROR: 500,
    Outcome.REJECTED_BY_FUNCTION: 400,
    Outcome.TIMEOUT: 504,
    Outcome.MEMORY: 507,
    Outcome.CRASH: 502,
    Outcome.REJECTED: 429,
    Outcome.EXPIRED: 503,
    Outcome.UNAVAILABLE: 503,
}
"""The code a requester reads; a function that raises `Reject(code, text)` chooses its own."""


class SandboxError(Exception):
    """The root of what this package raises. `code` is stable, for programs; the message has the next step."""

    code = "sandbox"


class LoadRefused(SandboxError):
    """A program could not be made ready: its sources are refused, it raised, or hung while loading.

    Attributes:
        problems: every reason, in the order of the source.
    """

    code = "load-refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(headline("function", self.problems))


class ModulesRefused(SandboxError):
    """Modules that an operator permits cannot be given to functions.

    Attributes:
        reasons: by the name of each such module.
    """

    code = "modules-refused"

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"module {name!r} cannot be given: {why}" for name, why in self.reasons.items()))
