"""The root of what the nexlet raises at whoever operates it.

An expected failure of a function is a value (`nexlet_sandboxes.outcomes`), a refused workload is a
`nexlet_functions.runner.agent.Refused`. What is left is here: a setting, a file or a key that the nexlet cannot work
with. Each error has a stable `code` for programs, and its message ends with the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

from nexlet_models.problems import Problem, render

__all__ = ["KeyUnusable", "NexletFunctionsError", "SettingsRefused"]


class NexletFunctionsError(Exception):
    """The root. `code` is stable; the message says what is wrong and what to do about it."""

    code = "nexlet"


class SettingsRefused(NexletFunctionsError):
    """Settings the nexlet does not start with, or does not change to.

    Attributes:
        problems: everything that is wrong, each with the flag, the variable or the key in the file it came from.
    """

    code = "settings-refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render("settings", self.problems))


class KeyUnusable(NexletFunctionsError):
    """A curve key that cannot be read, is damaged, or is open to others. Never has key material in its text."""

    code = "key-unusable"
