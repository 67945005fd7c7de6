"""How a call that a function made ends when it does not succeed: by one of the names that its author catches."""

from __future__ import annotations

import enum

__all__ = ["CallFailed", "Failure"]


class Failure(enum.StrEnum):
    """The exceptions that an author catches by name."""

    NOT_FOUND = "NotFound"
    CONFLICT = "Conflict"
    DENIED = "Denied"
    TIMED_OUT = "TimedOut"
    TOO_LARGE = "TooLarge"
    UNAVAILABLE = "Unavailable"


class CallFailed(Exception):
    """A call failed.

    Attributes:
        failure: what the author sees it as.
        text: what, why, and the next step.
    """

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text
