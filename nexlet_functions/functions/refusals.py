"""How a workload is refused: a list of problems on the inside, one text with a status on the outside.

Everything that prepares a function raises `Refusal` with all that it found. `refused` makes of it what the runner
sends: the text that the person at the command line reads, and the status that HTTP would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nexlet_models.problems import Problem, headline, render

if TYPE_CHECKING:
    from nexlet_functions.runner.agent import Refused

__all__ = ["STATUS", "Refusal", "refused", "status_of"]

STATUS: Final[dict[str, int]] = {
    "subject-not-allowed": 403,
    "grant-not-allowed": 403,
    "grants-unusable": 403,
    "over-ceiling": 403,
    "profile-not-allowed": 403,
    "trigger-refused": 403,
    "schedule-refused": 403,
    "artifact-not-allowed": 403,
    "artifact-missing": 404,
    "secret-missing": 404,
    "stream-missing": 404,
    "consumer-differs": 409,
    "bucket-missing": 404,
    "conflict": 409,
    "stopped": 409,
    "too-large": 413,
    "quota-exceeded": 429,
    "internal": 500,
    "no-worker": 503,
    "draining": 503,
    "unreachable": 503,
}
"""What a problem's code means in HTTP's numbers; a code that is not here is the author's fault, 400."""


class Refusal(Exception):
    """A function is not started.

    Attributes:
        problems: every reason, at least one.
    """

    def __init__(self, *problems: Problem) -> None:
        assert problems, "a refusal has a reason"
        self.problems = problems
        super().__init__(headline("function", problems))


def status_of(problems: Sequence[Problem]) -> int:
    """The status of a refusal: that of its problems where they agree, else 400."""
    found = {STATUS.get(problem.code, 400) for problem in problems}
    return found.pop() if len(found) == 1 else 400


def refused(name: str, problems: Sequence[Problem]) -> Refused:
    """What the runner is told.

    Args:
        name: of the function; "" where the request did not even say that much.
    """
    from nexlet_functions.runner.agent import Refused  # with all of the runner, which who only checks does without

    return Refused(render(name or "function", problems), status=status_of(problems))
